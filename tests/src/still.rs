//! Lets one thread of a process stand still, as a deadlock or a system call that never returns would.
//!
//! It must never stop a whole process: for that there is SIGSTOP.

use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

/// The thread of that name stands still until its process ends, and is collected then.
///
/// # Panics
/// When there is none, or it cannot be stopped.
pub fn thread_of(process: u32, name: &str) {
    let thread = find(process, name).unwrap_or_else(|| panic!("{process} has no thread {name}"));
    let (stopped, stops) = std::sync::mpsc::channel();
    // A tracee obeys the thread that traces it, and no other.
    std::thread::spawn(move || {
        ptrace::seize(thread, Options::empty()).expect("it can be traced");
        ptrace::interrupt(thread).expect("it is traced");
        waitpid(thread, Some(WaitPidFlag::__WALL)).expect("it stops");
        let _ = stopped.send(());
        let _ = waitpid(thread, Some(WaitPidFlag::__WALL));
    });
    stops.recv().expect("it stands still");
}

fn find(process: u32, name: &str) -> Option<Pid> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).ok()?;
    let named = tasks.flatten().find(|task| {
        std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    })?;
    named.file_name().to_str()?.parse().ok().map(Pid::from_raw)
}
