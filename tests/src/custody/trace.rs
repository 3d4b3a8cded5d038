//! Follows a worker from system call to system call, and kills it at one of them. Must run in a thread of its own, which is
//! the tracer: nothing else may be awaited there, and it waits for no child of another thread's.

use std::collections::HashSet;
use std::sync::mpsc::channel;

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::killer::end;

/// How a worker came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Followed {
    /// How many times it stopped: before and after each system call of each of its threads.
    pub stops: usize,
    /// Whether it was killed at the stop that was asked for; else the work was done before.
    pub killed: bool,
}

/// Does the work while the worker is followed, and kills that at the `nth` stop from when the work began, or else when the
/// work is done.
///
/// # Panics
/// When it cannot be traced.
pub fn killed_at<T: Send>(worker: u32, nth: usize, work: impl FnOnce() -> T + Send) -> (Followed, T) {
    let (begin, begun) = channel();
    std::thread::scope(|scope| {
        let tracer = scope.spawn(move || {
            let mut tracer = Tracer::seize(worker);
            let _ = begin.send(());
            tracer.follow(nth)
        });
        begun.recv().expect("the worker can be traced");
        let done = work();
        end(worker);
        (tracer.join().expect("the tracer ends"), done)
    })
}

struct Tracer {
    worker: Pid,
    threads: HashSet<Pid>,
}

impl Tracer {
    /// Seizes all threads; those that they make are seized by the kernel.
    fn seize(worker: u32) -> Self {
        let worker = Pid::from_raw(i32::try_from(worker).expect("a pid"));
        let mut tracer = Self { worker, threads: HashSet::new() };
        while tracer.seize_new() {}
        tracer
    }

    /// Whether there were threads that were not seized yet.
    fn seize_new(&mut self) -> bool {
        let listed = std::fs::read_dir(format!("/proc/{}/task", self.worker)).into_iter().flatten().flatten();
        let listed =
            listed.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok()).map(Pid::from_raw);
        let new: Vec<Pid> = listed.filter(|thread| !self.threads.contains(thread)).collect();
        for thread in &new {
            // One that has ended meanwhile needs it no more; one that its maker's seizing included has it.
            if ptrace::seize(*thread, Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE).is_ok() {
                let _ = ptrace::interrupt(*thread);
            }
            self.threads.insert(*thread);
        }
        !new.is_empty()
    }

    fn stopped(&self, followed: &mut Followed, nth: usize) {
        followed.stops += 1;
        if followed.stops == nth {
            followed.killed = true;
            end(u32::try_from(self.worker.as_raw()).unwrap_or(0));
        }
    }

    /// Goes from stop to stop until the worker has ended.
    fn follow(&mut self, nth: usize) -> Followed {
        let mut followed = Followed { stops: 0, killed: false };
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        loop {
            match waitpid(Pid::from_raw(-1), Some(flags)) {
                Ok(WaitStatus::PtraceSyscall(thread)) => {
                    self.stopped(&mut followed, nth);
                    go_on(thread, None);
                }
                Ok(WaitStatus::PtraceEvent(thread, ..)) => go_on(thread, None),
                Ok(WaitStatus::Stopped(thread, signal)) => go_on(thread, Some(signal)),
                Ok(WaitStatus::Exited(thread, _) | WaitStatus::Signaled(thread, ..))
                    if thread == self.worker =>
                {
                    return followed;
                }
                Ok(_) => {}
                // All are gone.
                Err(_) => return followed,
            }
        }
    }
}

/// To its next stop. One that was killed has none.
fn go_on(thread: Pid, signal: Option<Signal>) {
    let _ = ptrace::syscall(thread, signal);
}
