//! The signals that end us while we wait. The kernel drops signals for which a container's first process has
//! no handler, unless they are blocked: then they are kept, and a signalfd shows them (signal(7), signalfd(2)).

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{BorrowedFd, FromRawFd, OwnedFd};

use crate::sys;

const HUP: u64 = 1 << (1 - 1);
const INT: u64 = 1 << (2 - 1);
const QUIT: u64 = 1 << (3 - 1);
const TERM: u64 = 1 << (15 - 1);
const ENDING: u64 = HUP | INT | QUIT | TERM;

/// Blocks them; gives back the mask to be restored for the program.
pub(crate) fn block() -> u64 {
    let old = sys::set_signal_mask(ENDING);
    // What was blocked stays so.
    sys::set_signal_mask(old | ENDING);
    old
}

/// Puts the mask back.
pub(crate) fn restore(mask: u64) {
    sys::set_signal_mask(mask);
}

/// A descriptor that tells of them.
pub(crate) struct Descriptor(Option<OwnedFd>);

impl Descriptor {
    /// Opens it. Without one (descriptors run out) only SIGKILL ends us.
    pub(crate) fn open() -> Self {
        let number = sys::signalfd(ENDING);
        // SAFETY: just opened by the kernel for us, and nobody else knows of it.
        Self((number >= 0).then(|| unsafe { OwnedFd::from_raw_fd(number) }))
    }

    /// For a poll, together with others.
    pub(crate) fn borrow(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref().map(rustix::fd::AsFd::as_fd)
    }

    /// Waits until one of the signals comes.
    pub(crate) fn wait(&self) {
        let Some(fd) = self.borrow() else {
            loop {
                let _ = poll(&mut [], None);
            }
        };
        let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        while !matches!(poll(&mut fds, None), Ok(n) if n > 0) {}
    }

    /// Which of them has come, as the exit code of a process that it ends.
    pub(crate) fn exit_code(&self) -> i32 {
        // struct signalfd_siginfo: 128 bytes, the number first.
        let mut info = [0; 128];
        let read = self.borrow().map(|fd| rustix::io::read(fd, &mut info[..]));
        128 + if matches!(read, Some(Ok(n)) if n > 0) { i32::from(info[0]) } else { 15 }
    }
}
