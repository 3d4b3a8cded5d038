//! The control listener: who asks for an upgrade, and what they are told.
//!
//! It must never let the keeper wait for a requester: who does not read his lines loses them.

use super::{Keeper, Stopping};
use crate::control::{FAILED, OK, UpgradeRequest};
use crate::error::Error;
use crate::poller::{Interest, Poller, Token};
use rustix::io::Errno;
use rustix::net::{SendFlags, SocketFlags, accept_with, send};
use std::os::fd::OwnedFd;

/// More than so many at once are turned away.
const MOST: usize = 16;
/// A longer line is no request.
const LINE_MAX: usize = 64 << 10;

/// One requester.
pub(super) struct Requester {
    pub(super) id: u32,
    pub(super) fd: OwnedFd,
    line: Vec<u8>,
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
        self.requesters.push(Requester { id, fd, line: Vec::new() });
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
            _ => drop(self.requesters.remove(at)),
        }
        let requester = self.requesters.get_mut(at).filter(|requester| requester.id == id)?;
        let end = requester.line.iter().position(|byte| *byte == b'\n')?;
        let line = String::from_utf8_lossy(&requester.line[..end]).into_owned();
        requester.line.drain(..=end);
        Some(line)
    }

    /// Sends a line.
    pub(super) fn tell(&mut self, id: Option<u32>, line: &str) {
        let found = self.requesters.iter().find(|requester| Some(requester.id) == id);
        if let Some(requester) = found {
            let line = format!("{line}\n");
            let _ = send(&requester.fd, line.as_bytes(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        }
    }

    /// Takes one out, to be closed or kept over a change of the keeper's image.
    pub(super) fn take(&mut self, id: Option<u32>) -> Option<Requester> {
        let at = self.requesters.iter().position(|requester| Some(requester.id) == id)?;
        Some(self.requesters.remove(at))
    }

    /// The descriptor of one.
    pub(super) fn fd(&self, id: Option<u32>) -> Option<&OwnedFd> {
        self.requesters.iter().find(|requester| Some(requester.id) == id).map(|requester| &requester.fd)
    }
}

impl Keeper {
    pub(super) fn on_request(&mut self, id: u32) {
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
                self.requests.tell(Some(id), &line);
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
        self.requests.tell(requester, line);
    }

    pub(super) fn say_ok(&mut self, requester: Option<u32>, line: &str) {
        self.say(requester, &format!("{OK}{line}"));
        self.requests.take(requester);
    }

    pub(super) fn say_failed(&mut self, requester: Option<u32>, reason: &str) {
        self.say(requester, &format!("{FAILED}{reason}"));
        self.requests.take(requester);
    }
}
