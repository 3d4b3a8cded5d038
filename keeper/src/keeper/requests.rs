//! The control listener: who asks for an upgrade, and what they are told.
//!
//! It must never let the keeper wait for a requester: who does not read his lines loses them.

use super::{Keeper, Stopping};
use crate::control::{FAILED, OK, UpgradeRequest};
use crate::error::Error;
use crate::poller::{Happening, Interest, Poller, Token};
use rustix::io::Errno;
use rustix::net::{SendFlags, SocketFlags, accept_with, send};
use std::os::fd::OwnedFd;

/// More than so many at once are turned away.
const MOST: usize = 16;
/// Who does not read so many bytes gets no more: a status of many streams is long.
const UNSENT_MAX: usize = 64 << 20;
/// A longer line is no request.
const LINE_MAX: usize = 64 << 10;

/// One requester.
pub(super) struct Requester {
    pub(super) id: u32,
    pub(super) fd: OwnedFd,
    line: Vec<u8>,
    /// What he has not read yet.
    unsent: Vec<u8>,
    /// Nothing more will be said: closed as soon as all is sent.
    leaving: bool,
}

impl Requester {
    /// Sends what can be sent. False if he is to be forgotten.
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
        // By edges: with no descriptor left to accept by, a level would wake us for ever.
        poller.add(&listener, Token::Control, Interest::ReadEdge).map_err(Error::os("keeper.sock"))?;
        Ok(Requests { listener, requesters: Vec::new(), next: 0 })
    }

    /// Takes in who waits at the door.
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

    /// Adds one, and gives its number.
    pub(super) fn admit(&mut self, fd: OwnedFd, poller: &Poller) -> Option<u32> {
        let id = self.next;
        poller.add(&fd, Token::Requester(id), Interest::Read).ok()?;
        self.next = self.next.wrapping_add(1);
        self.requesters.push(Requester { id, fd, line: Vec::new(), unsent: Vec::new(), leaving: false });
        Some(id)
    }

    /// Reads on. A line, if one is complete; those who left are forgotten.
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

    /// Sends a line; after the last one he is let go.
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

    /// Sends on what could not be sent before.
    pub(super) fn flush(&mut self, id: Option<u32>, poller: &Poller) {
        self.requesters.retain_mut(|requester| Some(requester.id) != id || requester.flush(poller));
    }

    /// The descriptor of one.
    pub(super) fn fd(&self, id: Option<u32>) -> Option<&OwnedFd> {
        self.requesters.iter().find(|requester| Some(requester.id) == id).map(|requester| &requester.fd)
    }
}

impl Keeper {
    pub(super) fn on_request(&mut self, id: u32, happening: Happening) {
        if happening.writable {
            self.requests.flush(Some(id), &self.poller);
        }
        if !happening.readable {
            return;
        }
        let Some(line) = self.requests.read(id) else { return };
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match word {
            "upgrade" => {
                let rest = if rest.trim().is_empty() { "{}" } else { rest };
                match serde_json::from_str(rest) {
                    Ok(request) => self.on_upgrade(&request, Some(id)),
                    Err(error) => self.say_failed(Some(id), &format!("not understood: {error}")),
                }
            }
            "status" => {
                let line = serde_json::to_string(&self.snapshot()).unwrap_or_default();
                self.requests.tell(Some(id), &line, false, &self.poller);
            }
            _ => self.say_failed(Some(id), "not understood: upgrade or status"),
        }
    }

    fn on_upgrade(&mut self, request: &UpgradeRequest, requester: Option<u32>) {
        if self.stopping != Stopping::No {
            self.say_failed(requester, "the keeper is being stopped");
        } else if self.upgrade.is_some() || self.successor.is_some() {
            self.say_failed(requester, "another upgrade is under way");
        } else if request.keeper {
            self.begin_succession(request, requester);
        } else {
            self.begin_upgrade(request, requester);
        }
    }

    /// SIGHUP: an upgrade with defaults.
    pub(super) fn on_reload(&mut self) {
        self.on_upgrade(&UpgradeRequest::default(), None);
    }

    /// A line of progress, for the requester and the log.
    pub(super) fn say(&mut self, requester: Option<u32>, line: &str) {
        self.log(&format!("upgrade: {line}"));
        self.requests.tell(requester, line, false, &self.poller);
    }

    fn say_last(&mut self, requester: Option<u32>, line: &str) {
        self.log(&format!("upgrade: {line}"));
        self.requests.tell(requester, line, true, &self.poller);
    }

    pub(super) fn say_ok(&mut self, requester: Option<u32>, line: &str) {
        self.say_last(requester, &format!("{OK}{line}"));
    }

    pub(super) fn say_failed(&mut self, requester: Option<u32>, reason: &str) {
        self.say_last(requester, &format!("{FAILED}{reason}"));
    }
}
