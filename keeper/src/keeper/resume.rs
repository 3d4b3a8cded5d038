//! A new image of the keeper takes over from the former one.
//!
//! It must never drop a descriptor that the former image left: each is a client's connection.

use super::Keeper;
use super::clients::{Client, Estate};
use super::handover::{Conn, Parked};
use super::trial::Upgrade;
use crate::bind;
use crate::error::Error;
use crate::plan::{Listener, Plan};
use crate::poller::{Interest, Token};
use crate::protocol::PROTOCOL;
use crate::saved::{self, Loaded, SavedClient, SavedEstate, SavedParked};
use crate::shared::board::Board;
use crate::shared::memory::Memory;
use crate::takeover::Killed;

impl Keeper {
    /// Takes over from the former image of this process, or from a keeper that was killed.
    pub(super) fn resume(
        mut plan: Plan,
        (mut loaded, killed): (Loaded, Option<Killed>),
    ) -> Result<Keeper, Error> {
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
            let worker = loaded.worker(worker, &keeper.shared)?;
            worker.watch(&keeper.poller).map_err(Error::os("epoll"))?;
            keeper.workers.push(worker);
        }
        for conn in state.conns {
            let (client, read) = (loaded.own(conn.client)?, loaded.bytes(conn.read));
            keeper.handover.push(Conn { listener: conn.listener, client, read });
        }
        for parked in state.parked {
            let (client, note) = (loaded.own(parked.client)?, loaded.bytes(parked.note));
            let SavedParked { id, unsent, holder, ended, .. } = parked;
            keeper.handover.parked.insert(id, Parked { client, note, unsent, holder, ended });
        }
        keeper.clients.next = state.next_client;
        keeper.resume_clients((state.clients, state.estates), &mut loaded)?;
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
        let requester = requester.and_then(|fd| keeper.requests.admit(fd, &keeper.poller));
        keeper.bind_new(wanted);
        match killed {
            Some(killed) => {
                keeper.go_on_with((state.upgrade, state.tries_image), requester);
                keeper.finish_for(killed, &loaded);
            }
            None => {
                let second = state.second.map(|(pid, board)| Ok((loaded.own(board)?, pid))).transpose()?;
                let board = second.and_then(|(fd, pid)| Some((Board::open(Memory::map(fd).ok()?)?, pid)));
                keeper.stand_by(board);
                keeper.begin_again(requester, &state.version);
            }
        }
        // A worker may have exited between the two images.
        keeper.on_child()?;
        if state.protocol != PROTOCOL {
            // The worker of the former release cannot be talked to for long.
            keeper.on_reload();
        }
        Ok(keeper)
    }

    fn resume_clients(
        &mut self,
        (clients, estates): (Vec<SavedClient>, Vec<SavedEstate>),
        loaded: &mut Loaded,
    ) -> Result<(), Error> {
        for SavedClient { id, socket, listener, holder, estate, read } in clients {
            let (socket, read) = (loaded.own(socket)?, loaded.bytes(read));
            self.poller.add(&socket, Token::Held(id), Interest::Nothing).map_err(Error::os("epoll"))?;
            if holder.is_none() {
                self.clients.waiting.insert(id);
            }
            self.clients.all.insert(id, Client { socket, listener: listener.into(), holder, estate, read });
        }
        for SavedEstate { worker, memory, connections, left, heir } in estates {
            let memory = memory.map(|memory| loaded.own(memory)).transpose()?;
            let connections = connections
                .into_iter()
                .map(|(key, fd)| Ok((key, loaded.own(fd)?)))
                .collect::<Result<_, Error>>()?;
            let clients = self.clients.all.values().filter(|client| client.estate == Some(worker)).count();
            self.clients.estates.insert(worker.into(), Estate { memory, connections, left, clients, heir });
        }
        Ok(())
    }

    /// Sockets that were held stay held, under their names, whatever the plan says now; others are added.
    fn bind_new(&mut self, wanted: Vec<Listener>) {
        for listener in wanted {
            if self.listeners.iter().all(|(name, _)| *name != listener.name) {
                match bind::bind(&listener) {
                    Ok(bound) => self.listeners.push(bound),
                    Err(error) => self.log(&error.to_string()),
                }
            }
        }
    }

    /// What a new image does first.
    fn begin_again(&mut self, requester: Option<u32>, former: &str) {
        self.counts.reexecs += 1;
        let line =
            format!("the keeper was replaced in place: version {}, before {former}", self.plan.version);
        self.say_ok(requester, &line);
    }

    /// An upgrade that was under way goes on; the trial of another image does not.
    fn go_on_with(&mut self, (upgrade, tries_image): (Option<u32>, bool), requester: Option<u32>) {
        if tries_image {
            self.say_failed(requester, "the keeper was killed meanwhile, and goes on as it was");
        }
        if let Some(worker) = upgrade {
            self.upgrade = Some(Upgrade { worker, requester });
        }
    }
}
