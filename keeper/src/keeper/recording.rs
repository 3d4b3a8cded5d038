//! Records what the keeper has, so that its second can go on with it at any instant.
//!
//! It must never send an order before it is recorded, nor let an effect of a worker's message count before its cause is
//! understood: both count by one commit.

use super::Keeper;
use super::clients::{Client, Estate};
use super::handover::{Conn, Parked};
use super::marks::{BaseMark, WorkerMark};
use crate::records::{self, BASE, CLIENT, CONN, ESTATE, LISTENERS, NEXT_CLIENT, PARKED, UNDERSTOOD, WORKER};
use crate::saved::{SavedClient, SavedConn, SavedEstate, SavedParked, SavedWorker};
use crate::shared::Shared;
use crate::shared::log::Key;
use std::os::fd::{AsRawFd, RawFd};

impl Keeper {
    /// Makes all that changed count for a successor, and then sends the orders that came of it. True if one was sent.
    pub(super) fn settle(&mut self) -> bool {
        self.record();
        self.shared.commit();
        let poller = &self.poller;
        // Each of them, even after one has sent something.
        self.workers.iter_mut().fold(false, |any, worker| worker.flush(poller) | any)
    }

    /// The packet that was received last has had its effects.
    pub(super) fn understood(&mut self) {
        if let Some((_, seq)) = self.shared.board().armed() {
            self.shared.put(UNDERSTOOD, &[&seq.to_le_bytes()]);
        }
        self.settle();
    }

    pub(super) fn record(&mut self) {
        self.record_base();
        self.record_workers();
        for (number, conn) in self.handover.conns.changes() {
            record_conn(&self.shared, number, conn);
        }
        for (number, parked) in self.handover.parked.changes() {
            record_parked(&self.shared, number, parked);
        }
        self.record_clients();
        for worker in &mut self.workers {
            worker.record_orders();
        }
    }

    fn record_clients(&mut self) {
        self.shared.bury(self.clients.graves.drain(..));
        for (number, client) in self.clients.all.changes() {
            record_client(&self.shared, number, client);
        }
        for (number, estate) in self.clients.estates.changes() {
            let key = Key { kind: ESTATE, number };
            match estate {
                Some(estate) => records::put(&self.shared, key, &estate_record(number, estate), &[]),
                None => self.shared.remove(key),
            }
        }
        if self.recorded.next_client != self.clients.next {
            self.recorded.next_client = self.clients.next;
            self.shared.put(NEXT_CLIENT, &[&self.clients.next.to_le_bytes()]);
        }
    }

    fn record_base(&mut self) {
        let requester = self.upgrade.as_ref().map(|upgrade| upgrade.requester);
        let requester = requester.or(self.successor.as_ref().map(|successor| successor.requester)).flatten();
        let mark = BaseMark {
            serving: self.serving,
            next_worker: self.next_worker,
            failures: self.failures,
            respawn_at: self.respawn_at,
            was_ready: self.was_ready,
            counts: self.counts,
            upgrade: self.upgrade.as_ref().map(|upgrade| upgrade.worker),
            tries_image: self.successor.is_some(),
            requester: self.requests.fd(requester).map(AsRawFd::as_raw_fd),
        };
        if self.recorded.base != Some(mark) {
            let mut base = self.base(requester);
            (base.upgrade, base.tries_image) = (mark.upgrade, mark.tries_image);
            records::put(&self.shared, BASE, &base, &[]);
            self.recorded.base = Some(mark);
        }
        if self.recorded.listeners != self.listeners.len() {
            let listeners: Vec<(&str, RawFd)> =
                self.listeners.iter().map(|(name, fd)| (name.as_str(), fd.as_raw_fd())).collect();
            records::put(&self.shared, LISTENERS, &listeners, &[]);
            self.recorded.listeners = self.listeners.len();
        }
    }

    fn record_workers(&mut self) {
        let key = |id: u32| Key { kind: WORKER, number: u64::from(id) };
        for worker in &self.workers {
            let mark = WorkerMark::of(worker);
            if self.recorded.workers.get(&worker.id) != Some(&mark) {
                records::put(&self.shared, key(worker.id), &SavedWorker::of(worker), &[]);
                self.recorded.workers.insert(worker.id, mark);
            }
        }
        let (workers, shared) = (&self.workers, &self.shared);
        self.recorded.workers.retain(|id, _| {
            let is_there = workers.iter().any(|worker| worker.id == *id);
            if !is_there {
                shared.remove(key(*id));
            }
            is_there
        });
    }
}

fn record_conn(shared: &Shared, number: u64, conn: Option<&Conn>) {
    let key = Key { kind: CONN, number };
    let Some(Conn { listener, client, read }) = conn else { return shared.remove(key) };
    let (listener, client) = (listener.clone(), client.as_raw_fd());
    records::put(shared, key, &SavedConn { listener, client, read: read.len() }, read);
}

fn record_client(shared: &Shared, number: u64, client: Option<&Client>) {
    let key = Key { kind: CLIENT, number };
    let Some(Client { socket, listener, holder, estate, read }) = client else { return shared.remove(key) };
    let (socket, listener, holder, estate) = (socket.as_raw_fd(), listener.to_string(), *holder, *estate);
    let record = SavedClient { id: number, socket, listener, holder, estate, read: read.len() };
    records::put(shared, key, &record, read);
}

/// What that worker leaves, in numbers.
pub(super) fn estate_record(worker: u64, estate: &Estate) -> SavedEstate {
    let connections = estate.connections.iter().map(|(key, fd)| (*key, fd.as_raw_fd())).collect();
    SavedEstate {
        // It came from such a number.
        worker: worker as u32,
        memory: estate.memory.as_ref().map(AsRawFd::as_raw_fd),
        connections,
        left: estate.left,
        heir: estate.heir,
    }
}

fn record_parked(shared: &Shared, number: u64, parked: Option<&Parked>) {
    let key = Key { kind: PARKED, number };
    let Some(Parked { client, note, unsent, holder, ended }) = parked else { return shared.remove(key) };
    let (client, unsent, holder, ended) = (client.as_raw_fd(), unsent.clone(), *holder, *ended);
    let record = SavedParked { id: number, client, note: note.len(), unsent, holder, ended };
    records::put(shared, key, &record, note);
}
