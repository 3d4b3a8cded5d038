//! The control listener: the connections of requesters, their lines, and the lines that they still have to read.
//!
//! It must never make the keeper wait for a requester: one that does not read its lines loses them.

use crate::error::Error;
use crate::poller::{Interest, Poller, Token};
use rustix::io::Errno;
use rustix::net::{SendFlags, SocketFlags, accept_with, send};
use std::os::fd::OwnedFd;

/// More requesters than this at once are turned away.
const MOST: usize = 16;
/// A requester that leaves this many bytes unread gets no more: a status of many streams is long.
const UNSENT_MAX: usize = 64 << 20;
/// A longer line is not a request.
const LINE_MAX: usize = 64 << 10;

/// One requester.
pub(super) struct Requester {
    pub(super) id: u32,
    pub(super) fd: OwnedFd,
    line: Vec<u8>,
    /// What it has not read yet.
    unsent: Vec<u8>,
    /// Nothing more will be said: closed as soon as everything is sent.
    leaving: bool,
}

impl Requester {
    /// Sends what can be sent. False if the requester can be forgotten.
    fn flush(&mut self, poller: &Poller) -> bool {
        while !self.unsent.is_empty() {
            match send(&self.fd, &self.unsent, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => return false,
            }
        }
        let interest = if self.unsent.is_empty() { Interest::Read } else { Interest::Both };
        let watched = poller.modify(&self.fd, Token::Requester(self.id), interest).is_ok();
        watched && !(self.leaving && self.unsent.is_empty())
    }
}

/// All of them.
pub(super) struct Requests {
    pub(super) listener: OwnedFd,
    requesters: Vec<Requester>,
    next: u32,
}

impl Requests {
    pub(super) fn new(listener: OwnedFd, poller: &Poller) -> Result<Requests, Error> {
        // Edge-triggered: when no descriptor is left to accept with, level-triggered epoll would wake us for ever.
        poller.add(&listener, Token::Control, Interest::ReadEdge).map_err(Error::os("keeper.sock"))?;
        Ok(Requests { listener, requesters: Vec::new(), next: 0 })
    }

    /// Accepts waiting requesters.
    pub(super) fn accept(&mut self, poller: &Poller) {
        loop {
            match accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(_) if self.requesters.len() >= MOST => {}
                Ok(fd) => drop(self.admit(fd, poller)),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(_) => return,
            }
        }
    }

    /// Adds one, and returns its number.
    pub(super) fn admit(&mut self, fd: OwnedFd, poller: &Poller) -> Option<u32> {
        let id = self.next;
        poller.add(&fd, Token::Requester(id), Interest::Read).ok()?;
        self.next = self.next.wrapping_add(1);
        self.requesters.push(Requester { id, fd, line: Vec::new(), unsent: Vec::new(), leaving: false });
        Some(id)
    }

    /// Reads on. Returns a line once it is complete; forgets requesters that left.
    pub(super) fn read(&mut self, id: u32) -> Option<String> {
        let at = self.requesters.iter().position(|requester| requester.id == id)?;
        let requester = &mut self.requesters[at];
        let mut buffer = [0; 4096];
        match rustix::io::read(&requester.fd, &mut buffer) {
            Ok(read) if read > 0 && requester.line.len() < LINE_MAX => {
                requester.line.extend_from_slice(&buffer[..read]);
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            _ => {
                self.requesters.remove(at);
                return None;
            }
        }
        let end = requester.line.iter().position(|byte| *byte == b'\n')?;
        let line = String::from_utf8_lossy(&requester.line[..end]).into_owned();
        requester.line.drain(..=end);
        Some(line)
    }

    /// Sends a line; closes the connection after the last one.
    pub(super) fn tell(&mut self, id: Option<u32>, line: &str, last: bool, poller: &Poller) {
        let found = self.requesters.iter_mut().find(|requester| Some(requester.id) == id);
        let Some(requester) = found else { return };
        requester.leaving |= last;
        if requester.unsent.len() + line.len() < UNSENT_MAX {
            requester.unsent.extend_from_slice(line.as_bytes());
            requester.unsent.push(b'\n');
        }
        self.flush(id, poller);
    }

    /// Sends what could not be sent before.
    pub(super) fn flush(&mut self, id: Option<u32>, poller: &Poller) {
        self.requesters.retain_mut(|requester| Some(requester.id) != id || requester.flush(poller));
    }

    /// The descriptor of one requester.
    pub(super) fn fd(&self, id: Option<u32>) -> Option<&OwnedFd> {
        self.requesters.iter().find(|requester| Some(requester.id) == id).map(|requester| &requester.fd)
    }
}
