//! One of the sockets of a stream, and what epoll reported of it. It must never read or write by itself.

use crate::poller::{Happening, Interest, Poller, Token};
use std::os::fd::OwnedFd;
use std::time::{SystemTime, UNIX_EPOCH};

/// One of the sockets, and what epoll reported of it.
pub(crate) struct End {
    pub(crate) fd: OwnedFd,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// Nothing that is written here can arrive any more.
    pub(crate) gone: bool,
    /// When the peer was first seen to be gone, in nanoseconds of the Unix epoch.
    pub(crate) gone_at: Option<u64>,
    watches_room: bool,
}

/// Nanoseconds of the Unix epoch.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}

impl End {
    pub(super) fn new(fd: OwnedFd) -> End {
        End { fd, readable: false, writable: true, gone: false, gone_at: None, watches_room: false }
    }

    pub(crate) fn note(&mut self, happening: Happening) {
        self.readable |= happening.readable;
        self.writable |= happening.writable;
        // For a unix socket: the peer has closed, or we and the peer each shut down one direction. For TCP: both
        // directions are shut down, or the connection was reset.
        self.gone |= happening.hung_up;
        if happening.hung_up {
            self.gone_at.get_or_insert_with(now);
        }
    }

    /// Asks epoll for "room to write" only while we wait for it: otherwise each byte that the peer takes would wake us.
    /// In the midst of bulk data the interest stays, as it would return with the next full buffer.
    pub(super) fn arm(&mut self, poller: &Poller, token: Token, bulk: bool) {
        let wanted = !self.writable || (bulk && self.watches_room);
        if wanted == self.watches_room {
            return;
        }
        let interest = if wanted { Interest::BothEdge } else { Interest::ReadEdge };
        match poller.modify(&self.fd, token, interest) {
            Ok(()) => self.watches_room = wanted,
            // If the kernel has no memory for this, the stream would hang for ever.
            Err(_) => self.gone = true,
        }
    }
}
