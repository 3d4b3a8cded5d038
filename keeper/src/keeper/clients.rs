//! Clients that the keeper accepts itself: a worker serves each of them, and until one is gone it is held here as well.
//!
//! A worker leaves behind what it had in its hands: a memory of its own, and connections that it said to hold. The next one
//! gets all of it, together with the clients. Must never lose a client because a worker dies, give one to two workers, or
//! read a byte of one that is served.

use crate::kept::Kept;
use crate::poller::{Interest, Poller, Token};
use crate::protocol::FromKeeper;
use crate::worker::Outgoing;
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Descriptors in one message beside the memory.
const CONNECTIONS: usize = 128;

/// A client.
pub(super) struct Client {
    pub(super) socket: OwnedFd,
    /// The listener that it came by.
    pub(super) listener: Arc<str>,
    /// The worker that serves it.
    pub(super) holder: Option<u32>,
    /// The dead worker whose estate says what became of its request, until a worker has read that.
    pub(super) estate: Option<u32>,
    /// What a worker has read and not served; the next one has not got it yet.
    pub(super) read: Vec<u8>,
}

/// What a worker leaves behind.
#[derive(Default)]
pub(super) struct Estate {
    pub(super) memory: Option<OwnedFd>,
    pub(super) connections: BTreeMap<u64, OwnedFd>,
    /// Its worker is dead.
    pub(super) left: bool,
    /// Clients whose last request it tells of.
    pub(super) clients: usize,
    /// The worker that got it.
    pub(super) heir: Option<u32>,
}

/// All of them.
#[derive(Default)]
pub(super) struct Clients {
    pub(super) all: Kept<Client>,
    /// Those that no worker serves.
    pub(super) waiting: BTreeSet<u64>,
    pub(super) next: u64,
    /// By the worker that made them.
    pub(super) estates: Kept<Estate>,
    /// Descriptors that records still name: their numbers must not be used again before those are gone.
    pub(super) graves: Vec<OwnedFd>,
}

impl Clients {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Descriptors of all kinds that are held here.
    pub(super) fn descriptors(&self) -> usize {
        let held = |estate: &Estate| estate.connections.len() + 1;
        self.all.len() + self.estates.values().map(held).sum::<usize>()
    }

    /// Accepts one; `None` when there is none, or none can be had now.
    fn accept_one(&mut self, listener: &OwnedFd, name: &Arc<str>, poller: &Poller) -> Option<()> {
        let socket = loop {
            match accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => break socket,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(_) => return None,
            }
        };
        self.admit(socket, Arc::clone(name), Vec::new(), poller)
    }

    /// Takes one in, of which `read` has been read.
    pub(super) fn admit(
        &mut self,
        socket: OwnedFd,
        listener: Arc<str>,
        read: Vec<u8>,
        poller: &Poller,
    ) -> Option<()> {
        let id = self.next;
        self.next += 1;
        // Only its end is of interest: what it says is for the worker.
        poller.add(&socket, Token::Held(id), Interest::Nothing).ok()?;
        self.all.insert(id, Client { socket, listener, holder: None, estate: None, read });
        self.waiting.insert(id);
        Some(())
    }

    /// Accepts those in the queue of a listener, at most `room` of them. All, for epoll tells of them only once.
    pub(super) fn accept(&mut self, listener: &OwnedFd, name: &str, room: usize, poller: &Poller) {
        let name: Arc<str> = name.into();
        for _ in 0..room {
            if self.accept_one(listener, &name, poller).is_none() {
                return;
            }
        }
    }

    /// Takes one out: it is gone, or a stream now.
    pub(super) fn remove(&mut self, id: u64, poller: &Poller) -> Option<Client> {
        self.waiting.remove(&id);
        let client = self.all.remove(id)?;
        // Other descriptors of this socket may stay open, and epoll would keep watching it.
        poller.remove(&client.socket);
        self.let_go(client.estate);
        Some(client)
    }

    /// A worker gives one back, with what it has read of it.
    pub(super) fn give_back(&mut self, id: u64, worker: u32, read: Vec<u8>) {
        if let Some(client) = self.all.get_mut(id).filter(|client| client.holder == Some(worker)) {
            (client.holder, client.read) = (None, read);
            let estate = client.estate.take();
            self.waiting.insert(id);
            self.let_go(estate);
        }
    }

    /// A worker has put on its own record what the estate and we had of this client.
    pub(super) fn taken(&mut self, id: u64, worker: u32) {
        if let Some(client) = self.all.get_mut(id).filter(|client| client.holder == Some(worker)) {
            client.read = Vec::new();
            let estate = client.estate.take();
            self.let_go(estate);
        }
    }

    /// A worker's memory.
    pub(super) fn remember(&mut self, worker: u32, memory: OwnedFd) {
        let former = self.estates.or_default(worker.into()).memory.replace(memory);
        self.graves.extend(former);
    }

    /// A connection of a worker's, held until it drops it.
    pub(super) fn hold(&mut self, worker: u32, key: u64, connection: OwnedFd) {
        let former = self.estates.or_default(worker.into()).connections.insert(key, connection);
        self.graves.extend(former);
    }

    pub(super) fn drop_held(&mut self, worker: u32, key: u64) {
        let estate = self.estates.get_mut(worker.into());
        self.graves.extend(estate.and_then(|estate| estate.connections.remove(&key)));
    }

    /// A worker is gone: its clients wait for the next one.
    pub(super) fn on_death(&mut self, worker: u32) {
        for (id, client) in self.all.matching(|client| client.holder == Some(worker)) {
            client.holder = None;
            self.waiting.insert(id);
            if client.estate.is_none() {
                client.estate = Some(worker);
                self.estates.or_default(worker.into()).clients += 1;
            }
        }
        let inherited = |estate: &Estate| estate.heir == Some(worker);
        self.estates.matching(inherited).for_each(|(_, estate)| estate.heir = None);
        if let Some(estate) = self.estates.get_mut(worker.into()) {
            estate.left = true;
            if estate.clients == 0 {
                self.drop_estate(worker);
            }
        }
    }

    /// A client needs an estate no longer; without any that does it goes.
    fn let_go(&mut self, estate: Option<u32>) {
        let Some((worker, estate)) = estate.and_then(|of| Some((of, self.estates.get_mut(of.into())?)))
        else {
            return;
        };
        estate.clients = estate.clients.saturating_sub(1);
        if estate.clients == 0 && estate.left {
            self.drop_estate(worker);
        }
    }

    fn drop_estate(&mut self, worker: u32) {
        if let Some(Estate { memory, connections, .. }) = self.estates.remove(worker.into()) {
            self.graves.extend(memory.into_iter().chain(connections.into_values()));
        }
    }

    /// The next order for the worker that serves now. `fresh`: also for clients that no worker has had.
    pub(super) fn next_for(&mut self, worker: u32, fresh: bool) -> Option<Vec<Outgoing>> {
        let is_due = |id: &&u64| fresh || self.all.get(id).is_some_and(Client::had_a_worker);
        let id = *self.waiting.iter().find(is_due)?;
        let client = self.all.get_mut(id)?;
        let socket: io::Result<OwnedFd> = client.socket.try_clone();
        let order = Outgoing {
            head: FromKeeper::Client { id, listener: client.listener.to_string(), estate: client.estate },
            bytes: client.read.clone(),
            fds: vec![socket.ok()?],
        };
        let mut orders = match client.estate.and_then(|of| Some((of, self.estates.get_mut(of.into())?))) {
            Some((of, estate)) if estate.heir != Some(worker) => {
                estate.heir = Some(worker);
                inheritance(of, estate).ok()?
            }
            _ => Vec::new(),
        };
        client.holder = Some(worker);
        self.waiting.remove(&id);
        orders.push(order);
        Some(orders)
    }
}

impl Client {
    /// Whether a worker may have done something for it.
    fn had_a_worker(&self) -> bool {
        self.estate.is_some() || !self.read.is_empty()
    }
}

/// A dead worker's estate, in as many messages as it takes.
fn inheritance(of: u32, estate: &Estate) -> io::Result<Vec<Outgoing>> {
    let all: Vec<(&u64, &OwnedFd)> = estate.connections.iter().collect();
    let mut orders = Vec::new();
    for part in all.chunks(CONNECTIONS) {
        let fds = part.iter().map(|(_, fd)| fd.try_clone()).collect::<io::Result<_>>()?;
        let keys = part.iter().map(|(key, _)| **key).collect();
        orders.push(Outgoing { head: FromKeeper::Held { worker: of, keys }, bytes: Vec::new(), fds });
    }
    if let Some(memory) = &estate.memory {
        let fds = vec![memory.try_clone()?];
        orders.push(Outgoing { head: FromKeeper::Estate { worker: of }, bytes: Vec::new(), fds });
    }
    Ok(orders)
}
