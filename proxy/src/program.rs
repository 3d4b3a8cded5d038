//! What a container's first process is doing, told by its comm: `wait` writes its state there.

use std::time::Duration;

use crate::docker::wording::Lookup;

/// What the first process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// `wait`, with a program that can be run.
    Waiting,
    /// `wait`, with none.
    Missing(Lookup),
    /// The program itself: the go was given before.
    Running,
    /// No process.
    Gone,
}

// From the engine's word that the container has started to the first instruction of `wait` it is some
// hundred microseconds; on a machine under load more.
const STEP: Duration = Duration::from_micros(300);
const STEPS: u32 = 5000;

/// Waits until the first process has come to a state that tells.
pub(crate) async fn settled(pid: u32) -> Program {
    for _ in 0..STEPS {
        match look(pid) {
            Some(program) => return program,
            None => tokio::time::sleep(STEP).await,
        }
    }
    Program::Running
}

/// Whether the first process is `wait` in one of its states.
pub(crate) fn is_waiting(pid: u32) -> bool {
    matches!(look(pid), Some(Program::Waiting | Program::Missing(_)))
}

fn look(pid: u32) -> Option<Program> {
    let Ok(comm) = std::fs::read_to_string(format!("/proc/{pid}/comm")) else { return Some(Program::Gone) };
    match comm.trim_end() {
        "sv:wait" => Some(Program::Waiting),
        "sv:path" => Some(Program::Missing(Lookup::NotInPath)),
        "sv:noent" => Some(Program::Missing(Lookup::NoEntry)),
        "sv:perm" => Some(Program::Missing(Lookup::NotExecutable)),
        "sv:isdir" => Some(Program::Missing(Lookup::Directory)),
        "sv:dot" => Some(Program::Missing(Lookup::InWorkingDirectory)),
        errno if errno.starts_with("sv:e") => {
            let number = errno.trim_start_matches("sv:e").parse().unwrap_or(nix::libc::EIO);
            Some(Program::Missing(Lookup::Unreachable(number)))
        }
        // The runtime's own process just before its exec, and `wait` before its first word.
        starting if starting.starts_with("runc:") || starting.starts_with(".selvedge-wait") => None,
        // With --init the first process is the engine's init, which runs `wait`.
        "docker-init" | "tini" => child(pid).and_then(look),
        _ => Some(Program::Running),
    }
}

fn child(pid: u32) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}
