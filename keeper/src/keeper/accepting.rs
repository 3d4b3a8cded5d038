//! Accepts clients, gives them to the worker that serves, and ends their connections.
//!
//! It must never accept what no worker can serve: those clients wait in the listener's queue.

use super::{Keeper, Stopping};
use crate::poller::{Happening, Interest, Token};
use crate::protocol::FromKeeper;
use crate::worker::{Outgoing, Phase};
use std::os::fd::OwnedFd;

impl Keeper {
    /// A client has come.
    pub(super) fn accept(&mut self, at: u32) {
        let room = self.room();
        if let Some((name, listener)) = self.listeners.get(at as usize) {
            self.clients.accept(listener, name, room, &self.poller);
        }
    }

    /// A client is gone, or its worker has ended both directions.
    pub(super) fn on_client(&mut self, id: u64, happening: Happening) {
        if happening.hung_up
            && let Some(client) = self.clients.remove(id, &self.poller)
        {
            self.let_go(&client.socket);
            self.shared.bury([client.socket]);
        }
    }

    /// Ends a client's connection, at its worker's wish.
    pub(super) fn end_client(&mut self, id: u64) {
        if let Some(client) = self.clients.remove(id, &self.poller) {
            self.let_go(&client.socket);
            self.shared.bury([client.socket]);
        }
    }

    pub(super) fn on_memory(&mut self, id: u32, mut fds: Vec<OwnedFd>) {
        let serving = self.serving;
        let worker = self.workers.iter_mut().find(|worker| worker.id == id);
        let (Some(memory), Some(worker)) = (fds.pop(), worker) else {
            return self.on_garbage(id, "a memory without a descriptor");
        };
        worker.has_memory = true;
        if serving != Some(id) {
            // What the dead have left is for the one that serves.
            worker.settled = true;
            worker.send(simple(FromKeeper::Settled));
        }
        self.clients.remember(id, memory);
    }

    pub(super) fn on_hold(&mut self, id: u32, key: u64, mut fds: Vec<OwnedFd>) {
        match fds.pop() {
            Some(connection) => self.clients.hold(id, key, connection),
            None => self.on_garbage(id, "a connection without a descriptor"),
        }
    }

    /// Gives the serving worker what dead ones have left, and clients that wait, as soon as it is ready.
    pub(super) fn deliver_clients(&mut self, id: u32) {
        let Some(worker) = self.workers.iter_mut().find(|worker| worker.id == id) else { return };
        if !worker.has_memory {
            return;
        }
        // Those of dead workers come first, also when it was ready before it could be told of them.
        let fresh = worker.settled && matches!(worker.phase, Phase::Ready(_));
        while worker.outbox.is_empty() {
            let orders = match self.clients.next_for(id, fresh) {
                Some(orders) => orders,
                None if worker.settled => return,
                None => {
                    worker.settled = true;
                    vec![simple(FromKeeper::Settled)]
                }
            };
            orders.into_iter().for_each(|order| {
                worker.send(order);
            });
        }
    }

    /// Watches the listeners while there is a worker for their clients, and room.
    pub(super) fn mind_listeners(&mut self) {
        let serving = self.serving;
        let worker = self.workers.iter_mut().find(|worker| Some(worker.id) == serving);
        // Those that come while a worker is replaced wait here as well as in the queue.
        let is_served = worker.as_ref().map_or(self.accepting, |worker| worker.has_memory || self.accepting);
        let is_full = is_served && self.room() == 0;
        if is_full && self.accepting {
            let worker = self.workers.iter_mut().find(|worker| Some(worker.id) == serving);
            worker.map(|worker| worker.send(simple(FromKeeper::Crowded)));
        }
        self.watch_listeners(is_served && !is_full && self.stopping == Stopping::No);
    }

    /// Those that come from now on wait in the queue, for the next keeper. Those that were accepted are still served.
    pub(super) fn stop_accepting(&mut self) {
        self.watch_listeners(false);
        self.deliver_all();
    }

    fn watch_listeners(&mut self, wanted: bool) {
        if wanted == self.accepting {
            return;
        }
        self.accepting = wanted;
        for (at, (name, listener)) in self.listeners.iter().enumerate() {
            if !(self.plan.accepts)(name) {
                continue;
            }
            match wanted {
                // A listener that cannot be watched is tried again with the next change.
                true => drop(self.poller.add(listener, Token::Accept(at as u32), Interest::ReadEdge)),
                false => self.poller.remove(listener),
            }
        }
    }
}

/// An order of one word.
pub(super) fn simple(head: FromKeeper) -> Outgoing {
    Outgoing { head, bytes: Vec::new(), fds: Vec::new() }
}
