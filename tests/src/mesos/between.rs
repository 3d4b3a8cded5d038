//! What stands between agent and engine: Selvedge, a plain proxy, or nothing.
//!
//! It must never wait for what the agent is doing.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::Lab;
use crate::docker::Docker;
use crate::wait::until_true;

/// What stands between agent and engine.
pub trait Between: Sync {
    /// The agent's CLI.
    fn docker(&self) -> Docker;
    /// Replaces what can be replaced.
    fn upgrade(&self);
    /// Kills what may be killed.
    fn kill(&self);
    /// Replaces the rest of it.
    fn replace_all(&self);
    /// Kills the rest of it.
    fn kill_keeper(&self);
}

/// Selvedge.
impl Between for Lab {
    fn docker(&self) -> Docker {
        self.selvedge.docker()
    }

    fn upgrade(&self) {
        let told = self.selvedge.ask(&["upgrade"]);
        assert_eq!(told.code, 0, "{}{}", told.stdout, told.stderr);
    }

    fn kill(&self) {
        self.selvedge.kill_worker();
    }

    fn replace_all(&self) {
        let told = self.selvedge.ask(&["upgrade", "--keeper"]);
        assert_eq!(told.code, 0, "{}{}", told.stdout, told.stderr);
    }

    fn kill_keeper(&self) {
        self.selvedge.kill_keeper();
    }
}

/// Nothing: what goes wrong is the engine's own.
#[derive(Debug)]
pub struct Nothing<'a>(pub &'a Lab);

impl Between for Nothing<'_> {
    fn docker(&self) -> Docker {
        self.0.engine.docker()
    }

    fn upgrade(&self) {}

    fn kill(&self) {}

    fn replace_all(&self) {}

    fn kill_keeper(&self) {}
}

/// A proxy without Selvedge's means, which can only be started anew.
#[derive(Debug)]
pub struct StandIn {
    engine: PathBuf,
    socket: PathBuf,
    child: Mutex<Option<Child>>,
}

impl StandIn {
    /// Starts one (`socat`) in front of an engine.
    #[must_use]
    pub fn start(lab: &Lab) -> Self {
        let stand_in = Self {
            engine: lab.engine.socket.clone(),
            socket: lab.host.path("stand-in.sock"),
            child: Mutex::new(None),
        };
        stand_in.restart();
        stand_in
    }

    fn restart(&self) {
        use std::os::unix::process::CommandExt;
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        end(child.take());
        let listen = format!("UNIX-LISTEN:{},fork,unlink-early", self.socket.display());
        let mut command = Command::new("socat");
        command.arg(listen).arg(format!("UNIX-CONNECT:{}", self.engine.display()));
        command.stderr(Stdio::null()).process_group(0);
        *child = Some(command.spawn().expect("socat can be started"));
        until_true("it listens", Duration::from_secs(5), || self.socket.exists());
    }
}

/// socat's children, one per connection, end with it.
fn end(child: Option<Child>) {
    if let Some(mut child) = child {
        let _ = killpg(Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX)), Signal::SIGTERM);
        let _ = child.wait();
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        end(self.child.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Between for StandIn {
    fn docker(&self) -> Docker {
        Docker::new(&self.socket)
    }

    fn upgrade(&self) {
        self.restart();
    }

    fn kill(&self) {
        self.restart();
    }

    fn replace_all(&self) {
        self.restart();
    }

    fn kill_keeper(&self) {
        self.restart();
    }
}
