//! Clients that wait for a worker: idle connections on their way to the next one, and parked ones.
//!
//! It must never lose a parked client before some worker said that it was served.

use crate::protocol::{Ended, FromKeeper};
use crate::pump::EndedStream;
use crate::saved::{Saved, SavedConn, SavedParked};
use crate::worker::Outgoing;
use rustix::net::{RecvFlags, Shutdown, recv, shutdown};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;

/// Above so many waiting connections the worker that hands them over is made to wait.
const MANY: usize = 64;

/// An idle connection that is on its way.
pub(super) struct Conn {
    pub(super) listener: String,
    pub(super) client: OwnedFd,
    pub(super) read: Vec<u8>,
}

/// A parked client.
pub(super) struct Parked {
    pub(super) client: OwnedFd,
    pub(super) note: Vec<u8>,
    /// The worker that serves it.
    pub(super) holder: Option<u32>,
    /// It was a stream whose upstream is over.
    pub(super) ended: Option<Ended>,
}

/// Unread bytes that are taken off a client that is let go, at most.
const UNREAD_MAX: usize = 1 << 20;

impl super::Keeper {
    /// Ends a client's connection the way the end of a stream does: a socket that is closed with unread bytes would
    /// give the client a reset, and with it the loss of what it has not read yet.
    pub(super) fn let_go(&mut self, client: &OwnedFd) {
        let _ = shutdown(client, Shutdown::Both);
        let mut left = UNREAD_MAX;
        while left > 0
            && let Ok((read @ 1.., _)) = recv(client, &mut self.buffer[..], RecvFlags::DONTWAIT)
        {
            left = left.saturating_sub(read);
        }
    }

    /// Writes all of them down for the next image.
    pub(super) fn save_handover(&self, saved: &mut Saved) {
        for conn in &self.handover.conns {
            let (client, read) = (saved.keep(&conn.client), saved.add_bytes(&conn.read));
            saved.conns.push(SavedConn { listener: conn.listener.clone(), client, read });
        }
        for (&id, parked) in &self.handover.parked {
            let (client, note) = (saved.keep(&parked.client), saved.add_bytes(&parked.note));
            let Parked { holder, ended, .. } = *parked;
            saved.parked.push(SavedParked { id, client, note, holder, ended });
        }
    }
}

/// All of them.
pub(super) struct Handover {
    pub(super) conns: VecDeque<Conn>,
    pub(super) parked: BTreeMap<u64, Parked>,
}

impl Handover {
    pub(super) fn new() -> Handover {
        Handover { conns: VecDeque::new(), parked: BTreeMap::new() }
    }

    /// Parks the client of a stream whose upstream is over.
    pub(super) fn park_ended(&mut self, stream: EndedStream) {
        let at = stream.at;
        // Workers number theirs by the microsecond of their start; the highest bit is ours.
        let mut id = at | 1 << 63;
        while self.parked.contains_key(&id) {
            id += 1;
        }
        let ended = Some(Ended { position: stream.position, at });
        self.parked.insert(id, Parked { client: stream.client, note: stream.note, holder: None, ended });
    }

    /// How many descriptors wait here.
    pub(super) fn len(&self) -> usize {
        self.conns.len() + self.parked.len()
    }

    pub(super) fn parked_len(&self) -> usize {
        self.parked.len()
    }

    pub(super) fn is_crowded(&self) -> bool {
        self.conns.len() >= MANY
    }

    /// That worker gives back the clients of streams that ended; what else it parked it brings to its end.
    pub(super) fn release_ended(&mut self, holder: u32) {
        let held = |parked: &&mut Parked| parked.holder == Some(holder) && parked.ended.is_some();
        for parked in self.parked.values_mut().filter(held) {
            parked.holder = None;
        }
    }

    /// That worker serves no parked client any more.
    pub(super) fn release(&mut self, holder: u32) {
        for parked in self.parked.values_mut().filter(|parked| parked.holder == Some(holder)) {
            parked.holder = None;
        }
    }

    /// Connections that never reached the worker for which they were: the next one gets them.
    pub(super) fn take_back(&mut self, orders: VecDeque<Outgoing>) {
        for mut order in orders.into_iter().rev() {
            if let (FromKeeper::Conn { listener }, Some(client)) = (order.head, order.fds.pop()) {
                self.conns.push_front(Conn { listener, client, read: order.bytes });
            }
        }
    }

    /// The next order for the worker that serves now.
    pub(super) fn next_for(&mut self, worker: u32) -> Option<Outgoing> {
        if let Some(conn) = self.conns.pop_front() {
            let head = FromKeeper::Conn { listener: conn.listener };
            return Some(Outgoing { head, bytes: conn.read, fds: vec![conn.client] });
        }
        let (id, parked) = self.parked.iter_mut().find(|(_, parked)| parked.holder.is_none())?;
        let copy: io::Result<OwnedFd> = parked.client.try_clone();
        let client = copy.ok()?;
        parked.holder = Some(worker);
        Some(Outgoing {
            head: FromKeeper::Parked { id: *id, ended: parked.ended },
            bytes: parked.note.clone(),
            fds: vec![client],
        })
    }
}
