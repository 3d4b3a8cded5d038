//! The signals by which an engine stops a container, made to work for a process that may be pid 1.
//!
//! The kernel drops what pid 1 of a namespace has no handler for, but never what it has blocked: so they are
//! blocked and then fetched. Must never leave a trace: handlers are not touched, the mask is given back.

use rustix::fd::OwnedFd;

use crate::syscall;

const HUP: u32 = 1;
const INT: u32 = 2;
const QUIT: u32 = 3;
const TERM: u32 = 15;

/// One bit per signal, bit 0 for signal 1.
const SET: u64 = 1 << (HUP - 1) | 1 << (INT - 1) | 1 << (QUIT - 1) | 1 << (TERM - 1);

/// The signals that end a wait, blocked for as long as this lives.
pub(crate) struct StopSignals {
    mask_before: Option<u64>,
}

impl StopSignals {
    /// Blocks them. A seccomp profile that refuses it costs the quick end on SIGTERM, not the start.
    pub(crate) fn block() -> Self {
        Self { mask_before: syscall::block_signals(SET).ok() }
    }

    /// Gives the mask back as it was: what is pending now acts as it would have on the program.
    pub(crate) fn restore(self) {
        if let Some(mask) = self.mask_before {
            syscall::set_signal_mask(mask);
        }
    }

    /// A descriptor that is readable when one of them came, where the kernel lets us have one.
    pub(crate) fn descriptor(&self) -> Option<OwnedFd> {
        syscall::signal_descriptor(SET).ok()
    }

    /// One that already came.
    pub(crate) fn pending(&self) -> Option<u8> {
        syscall::take_signal(SET, Some(0)).ok()
    }

    /// Sleeps for some milliseconds, or until one of them comes.
    pub(crate) fn sleep(&self, milliseconds: u32) -> Option<u8> {
        const EAGAIN: i32 = 11;
        const EINTR: i32 = 4;
        match syscall::take_signal(SET, Some(milliseconds)) {
            Ok(signal) => Some(signal),
            Err(EAGAIN | EINTR) => None,
            // Refused as well, this makes the wait a busy one.
            Err(_refused) => {
                let limit =
                    rustix::event::Timespec { tv_sec: 0, tv_nsec: i64::from(milliseconds) * 1_000_000 };
                let _woken = rustix::event::poll(&mut [], Some(&limit));
                None
            }
        }
    }

    /// Waits until one of them comes, however long it takes.
    pub(crate) fn wait_for_one(&self) {
        while self.sleep(LONG_MILLISECONDS).is_none() {}
    }
}

/// An upper limit for one sleep only: below a second, so that the fallback's nanoseconds stay valid.
const LONG_MILLISECONDS: u32 = 999;
