//! What the keeper does about a requester's line, and what it answers.
//!
//! It must never start an upgrade while another one is under way, or while the keeper is being stopped.

use super::{Keeper, Stopping};
use crate::control::{FAILED, OK, UpgradeRequest};
use crate::poller::Happening;

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
        self.hide_second(requester);
        self.requests.tell(requester, line, true, &self.poller);
    }

    pub(super) fn say_ok(&mut self, requester: Option<u32>, line: &str) {
        self.say_last(requester, &format!("{OK}{line}"));
    }

    pub(super) fn say_failed(&mut self, requester: Option<u32>, reason: &str) {
        self.say_last(requester, &format!("{FAILED}{reason}"));
    }
}
