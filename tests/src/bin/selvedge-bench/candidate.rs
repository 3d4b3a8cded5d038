//! Those that are measured: each is a socket in front of an upstream, and the processes whose time counts.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use selvedge_tests::host::Host;
use selvedge_tests::http;
use selvedge_tests::shell::run;

use crate::report::SELVEDGE;

/// The yardstick R.
pub(crate) const RELAY: &str = "relay R";
/// The yardstick S.
pub(crate) const SPLICE: &str = "splice S";
/// The peer.
pub(crate) const HAPROXY: &str = "HAProxy";
/// The upstream itself.
pub(crate) const DIRECT: &str = "direct";

/// Another build of Selvedge.
pub(crate) const OTHER: &str = "the other build";

/// A process that is ended when dropped.
#[derive(Debug)]
pub(crate) struct Started(Child);

impl Started {
    /// Starts it with nothing to say. Its stdin is open for as long as it is wanted.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn new(command: &mut Command) -> anyhow::Result<Self> {
        let told = format!("{command:?}");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(command.spawn().context(told)?))
    }

    /// One of our own roles.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(crate) fn role(arguments: &[&OsStr]) -> anyhow::Result<Self> {
        Self::new(Command::new(std::env::current_exe()?).args(arguments))
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap_or(0)), Signal::SIGTERM);
        for _ in 0..100 {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One that is measured. Ended when dropped.
#[derive(Debug)]
pub(crate) struct Candidate {
    /// What the table calls it.
    pub(crate) name: &'static str,
    /// Where clients connect.
    pub(crate) socket: PathBuf,
    /// The processes that do its work; none for the upstream itself.
    pub(crate) pids: Vec<u32>,
    _started: Option<Started>,
}

fn until_up(socket: &Path) -> anyhow::Result<()> {
    for _ in 0..600 {
        if http::get(socket, "/_ping").is_ok_and(|answer| answer.status == 200) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("nobody answers at {}", socket.display())
}

impl Candidate {
    fn of(name: &'static str, socket: PathBuf, started: Started) -> anyhow::Result<Self> {
        until_up(&socket).context(name)?;
        Ok(Self { name, socket, pids: vec![started.pid()], _started: Some(started) })
    }

    /// The upstream itself.
    pub(crate) fn direct(upstream: &Path) -> Self {
        Self { name: DIRECT, socket: upstream.to_owned(), pids: Vec::new(), _started: None }
    }

    /// The fast upstream, as a process of its own. `inspect` is what it answers to an inspect.
    ///
    /// # Errors
    /// It does not start.
    pub(crate) fn upstream(host: &Host, inspect: Option<&[u8]>) -> anyhow::Result<Self> {
        let socket = host.path("up.sock");
        let body = host.path("inspect.json");
        let mut arguments = vec![OsStr::new("upstream"), socket.as_os_str()];
        if let Some(inspect) = inspect {
            std::fs::write(&body, inspect)?;
            arguments.push(body.as_os_str());
        }
        let started = Started::role(&arguments)?;
        Self::of("upstream", socket, started)
    }

    /// The yardstick R.
    ///
    /// # Errors
    /// It does not start.
    pub(crate) fn relay(host: &Host, upstream: &Path) -> anyhow::Result<Self> {
        let socket = host.path("relay.sock");
        let started = Started::role(&[OsStr::new("relay"), socket.as_os_str(), upstream.as_os_str()])?;
        Self::of(RELAY, socket, started)
    }

    /// The yardstick S.
    ///
    /// # Errors
    /// It does not start.
    pub(crate) fn splice(host: &Host, upstream: &Path) -> anyhow::Result<Self> {
        let socket = host.path("splice.sock");
        let started = Started::role(&[OsStr::new("splice"), socket.as_os_str(), upstream.as_os_str()])?;
        Self::of(SPLICE, socket, started)
    }

    /// HAProxy, unix to unix, with keep-alive on both sides. One thread: on few cores it is cheapest so.
    ///
    /// # Errors
    /// It does not start.
    pub(crate) fn haproxy(host: &Host, upstream: &Path) -> anyhow::Result<Self> {
        let (socket, config) = (host.path("haproxy.sock"), host.path("haproxy.cfg"));
        let text = format!(
            "global\n maxconn 4000\n nbthread 1\n\
             defaults\n mode http\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n timeout tunnel 1h\n \
             option http-keep-alive\n http-reuse always\n\
             frontend f\n bind unix@{}\n default_backend b\n\
             backend b\n server s unix@{}\n",
            socket.display(),
            upstream.display()
        );
        std::fs::write(&config, text)?;
        let started = Started::new(Command::new("/usr/sbin/haproxy").arg("-db").arg("-f").arg(&config))?;
        Self::of(HAPROXY, socket, started)
    }

    /// Selvedge, in the host's network namespace.
    ///
    /// # Errors
    /// It does not start.
    pub(crate) fn selvedge(host: &Host, binary: &Path, upstream: &Path) -> anyhow::Result<Self> {
        let runtime = host.path("bench-run");
        let mut command = host.command(binary);
        command.arg("run").arg("--runtime-dir").arg(&runtime).arg("--wait-path").arg(host.path("wait"));
        command.arg("--engine").arg(format!("unix://{}", upstream.display())).args(["--log", "warn"]);
        let started = Started::new(&mut command)?;
        let mut candidate = Self::of(SELVEDGE, runtime.join("docker.sock"), started)?;
        let mut ask = Command::new(binary);
        ask.args(["status", "--json", "--runtime-dir"]).arg(&runtime);
        let status: serde_json::Value =
            serde_json::from_str(&run(&mut ask, b"").stdout).context("no status")?;
        for process in ["keeper", "worker"] {
            let pid =
                status[process]["pid"].as_u64().with_context(|| format!("no {process} in the status"))?;
            let pid = u32::try_from(pid)?;
            if !candidate.pids.contains(&pid) {
                candidate.pids.push(pid);
            }
        }
        Ok(candidate)
    }
}
