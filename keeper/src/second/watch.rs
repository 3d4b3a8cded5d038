//! What the second does: it waits for the keeper's end, and executes the keeper's image in its own process.
//!
//! It is a forked process that goes on in the keeper's code. It must never return from here, nor drop what it inherited:
//! the descriptors are the keeper's, too.

use crate::image::Image;
use crate::shared::board::Board;
use nix::fcntl::AtFlags;
use nix::libc;
use nix::sys::signal::SigSet;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

/// What `ps -o comm` shows.
const NAME: &std::ffi::CStr = c"selvedge:second";

/// All that it needs.
pub(super) struct Watch<'a> {
    pub(super) file: &'a OwnedFd,
    pub(super) image: &'a Image,
    pub(super) board: &'a Board,
    /// While this one is not over, another second takes over.
    pub(super) before: Option<&'a Board>,
}

impl Watch<'_> {
    /// Forks a process that watches that one (a pidfd), with the same table of descriptors.
    pub(super) fn fork(&self, keeper: &OwnedFd) -> io::Result<Pid> {
        let flags = libc::CLONE_FILES | libc::SIGCHLD;
        // SAFETY: this process has only one thread (see `run`), so no lock is held and nothing is half done in the child,
        // which has a copy of this memory and never returns from `go_on`.
        match unsafe { libc::syscall(libc::SYS_clone, flags as libc::c_ulong, 0, 0, 0, 0) } {
            0 => self.go_on(keeper),
            pid => Pid::from_raw(pid as i32).filter(|_| pid > 0).ok_or_else(io::Error::last_os_error),
        }
    }

    /// The life of a second.
    fn go_on(&self, keeper: &OwnedFd) -> ! {
        let _ = nix::sys::prctl::set_name(NAME);
        // Ctrl-C is for the keeper.
        let _ = rustix::process::setpgid(None, None);
        // It ends at once when it is told to: the keeper blocks these signals.
        let _ = SigSet::empty().thread_set_mask();
        let mut polled = [PollFd::new(keeper, PollFlags::IN)];
        while !poll(&mut polled, None).is_ok_and(|count| count > 0) {}
        if self.board.is_over() || self.before.is_some_and(|before| !before.is_over()) {
            exit(0);
        }
        let error = self.take_over();
        let _ = writeln!(io::stderr(), "selvedge: the second cannot take over from a killed keeper: {error}");
        exit(1)
    }

    /// Another second watches while this one becomes the keeper. Returns only if that failed.
    fn take_over(&self) -> io::Error {
        self.board.count_takeover();
        if let Err(error) = self.fork_next() {
            let _ = writeln!(io::stderr(), "selvedge: taking over without another second: {error}");
        }
        if let Err(error) = inherit_all() {
            return error;
        }
        let (args, env) = (&self.image.args, &self.image.env);
        match nix::unistd::execveat(self.file, c"", args, env, AtFlags::AT_EMPTY_PATH) {
            Ok(never) => match never {},
            Err(error) => error.into(),
        }
    }

    fn fork_next(&self) -> io::Result<()> {
        let own = pidfd_open(getpid(), PidfdFlags::empty())?;
        let next = self.fork(&own)?;
        // The table is shared: closing it here would take it from the next one.
        std::mem::forget(own);
        self.board.set_watcher(next.as_raw_nonzero().get());
        Ok(())
    }
}

/// Lets the next image inherit all descriptors. It closes those that it does not know.
fn inherit_all() -> io::Result<()> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()));
    }
    for number in numbers {
        // SAFETY: only borrowed for one call, which fails harmlessly for the descriptor of the listing itself.
        let _ = fcntl_setfd(unsafe { BorrowedFd::borrow_raw(number) }.as_fd(), FdFlags::empty());
    }
    Ok(())
}

/// Ends this process without running what the keeper's code would run at its end.
fn exit(code: i32) -> ! {
    // SAFETY: does not return, and runs nothing.
    unsafe { libc::_exit(code) }
}
