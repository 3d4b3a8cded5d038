//! A new image of the keeper takes over from the former one.
//!
//! It must never do without a descriptor that the former one left: each is somebody's connection.

use super::Keeper;
use super::handover::{Conn, Parked};
use crate::bind;
use crate::error::Error;
use crate::plan::{Listener, Plan};
use crate::protocol::PROTOCOL;
use crate::saved::{self, Loaded, SavedParked};
use std::os::fd::OwnedFd;

impl Keeper {
    /// Takes over from the former image of this process.
    pub(super) fn resume(mut plan: Plan, mut loaded: Loaded) -> Result<Keeper, Error> {
        let state = std::mem::take(&mut loaded.saved);
        let wanted = std::mem::take(&mut plan.listeners);
        let (lock, control) = (loaded.own(state.lock)?, loaded.own(state.control)?);
        let mut keeper = Keeper::with(plan, lock, control)?;
        for (name, number) in state.listeners {
            keeper.listeners.push((name, loaded.own(number)?));
        }
        // In the order in which their bytes were written.
        for stream in state.streams {
            let stream = loaded.stream(stream)?;
            if let Err(error) = keeper.pump.add(&keeper.poller, stream) {
                keeper.log(&format!("a stream was lost: {error}"));
            }
        }
        for worker in state.workers {
            let worker = loaded.worker(worker)?;
            worker.watch(&keeper.poller).map_err(Error::os("epoll"))?;
            keeper.workers.push(worker);
        }
        for conn in state.conns {
            let (client, read) = (loaded.own(conn.client)?, loaded.bytes(conn.read));
            keeper.handover.conns.push_back(Conn { listener: conn.listener, client, read });
        }
        for parked in state.parked {
            let (client, note) = (loaded.own(parked.client)?, loaded.bytes(parked.note));
            let SavedParked { id, holder, ended, .. } = parked;
            keeper.handover.parked.insert(id, Parked { client, note, holder, ended });
        }
        keeper.pump.set_finished(state.finished);
        keeper.serving = state.serving;
        keeper.next_worker = state.next_worker;
        keeper.failures = state.failures;
        keeper.was_ready = state.was_ready;
        keeper.respawn_at = state.respawn_in_ms.map(saved::ahead);
        keeper.since = saved::ago(state.up_ms);
        keeper.counts = state.counts;
        keeper.program.exe = state.worker_exe.unwrap_or(keeper.program.exe);
        let requester = state.requester.and_then(|number| loaded.own(number).ok());
        keeper.begin_again(wanted, requester, &state.version)?;
        if state.protocol != PROTOCOL {
            // The worker of the former release can't be talked with for long.
            keeper.on_reload();
        }
        Ok(keeper)
    }

    /// What a new image does first.
    fn begin_again(
        &mut self,
        wanted: Vec<Listener>,
        requester: Option<OwnedFd>,
        former: &str,
    ) -> Result<(), Error> {
        self.counts.reexecs += 1;
        for listener in wanted {
            // What was held is held on, under its name, whatever the plan says now.
            if self.listeners.iter().all(|(name, _)| *name != listener.name) {
                match bind::bind(&listener) {
                    Ok(bound) => self.listeners.push(bound),
                    Err(error) => self.log(&error.to_string()),
                }
            }
        }
        let requester = requester.and_then(|fd| self.requests.admit(fd, &self.poller));
        let line =
            format!("the keeper was replaced in place: version {}, before {former}", self.plan.version);
        self.say_ok(requester, &line);
        for worker in &mut self.workers {
            worker.flush(&self.poller);
        }
        // A worker may have ended while nobody looked.
        self.on_child()
    }
}
