//! What a container's first process is doing, told by its comm: `wait` writes its state there, and into its mailbox.

use std::io;
use std::time::Duration;

use selvedge_engine::wording::Lookup;

use crate::mailbox;

/// What the first process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
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
pub async fn settled(pid: u32) -> Program {
    for _ in 0..STEPS {
        match look(pid) {
            Some(program) => return program,
            None => tokio::time::sleep(STEP).await,
        }
    }
    Program::Running
}

/// Whether the first process is `wait` in one of its states.
pub fn is_waiting(pid: u32) -> bool {
    matches!(look(pid), Some(Program::Waiting | Program::Missing(_)))
}

/// Tells `wait` that its wire is up, where it may be unable to see the route.
///
/// # Errors
/// When its memory is closed to us. That matters only to one that cannot see the route.
pub fn open_gate(pid: u32) -> io::Result<bool> {
    mailbox::open_gate(waiting(pid).unwrap_or(pid))
}

/// The process that is `wait`: with --init that is the init's child.
fn waiting(pid: u32) -> Option<u32> {
    if is_init(comm(pid)?.trim_end()) { child(pid) } else { Some(pid) }
}

fn is_init(comm: &str) -> bool {
    matches!(comm, "docker-init" | "tini")
}

fn comm(pid: u32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()
}

fn look(pid: u32) -> Option<Program> {
    let Some(comm) = comm(pid) else { return Some(Program::Gone) };
    match comm.trim_end() {
        // `wait`, before its first word or under a profile that lets it have no name.
        unnamed if unnamed.starts_with(".selvedge-wait") => told(&mailbox::state(pid)?),
        // The runtime's own process just before its exec.
        starting if starting.starts_with("runc:") => None,
        // With --init the first process is the engine's init, which runs `wait`.
        init if is_init(init) => child(pid).and_then(look),
        state => told(state).or(Some(Program::Running)),
    }
}

/// What a state's name means.
fn told(state: &str) -> Option<Program> {
    Some(match state {
        "sv:wait" => Program::Waiting,
        "sv:path" => Program::Missing(Lookup::NotInPath),
        "sv:noent" => Program::Missing(Lookup::NoEntry),
        "sv:perm" => Program::Missing(Lookup::NotExecutable),
        "sv:isdir" => Program::Missing(Lookup::Directory),
        "sv:dot" => Program::Missing(Lookup::InWorkingDirectory),
        errno if errno.starts_with("sv:e") => {
            let number = errno.trim_start_matches("sv:e").parse().unwrap_or(nix::libc::EIO);
            Program::Missing(Lookup::Unreachable(number))
        }
        _ => return None,
    })
}

fn child(pid: u32) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}
