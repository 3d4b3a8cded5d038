//! Clients that wait for a worker: idle connections on their way to the next one, and parked clients.
//!
//! It must never lose a parked client before a worker reports it as served.

use crate::kept::Kept;
use crate::protocol::{Ended, FromKeeper};
use crate::pump::EndedStream;
use crate::worker::Outgoing;
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

/// Above this many waiting connections, the worker that hands them over is made to wait.
const MANY: usize = 64;

/// An idle connection in transit between workers.
pub(super) struct Conn {
    pub(super) listener: String,
    pub(super) client: OwnedFd,
    pub(super) read: Vec<u8>,
}

/// A parked client.
pub(super) struct Parked {
    pub(super) client: OwnedFd,
    pub(super) note: Vec<u8>,
    /// What was read from it and not written to the upstream that has ended: comes first in the next stream.
    pub(super) unsent: Vec<u8>,
    /// The worker that serves it.
    pub(super) holder: Option<u32>,
    /// Set if it was a stream whose upstream has ended.
    pub(super) ended: Option<Ended>,
}

/// All waiting clients.
#[derive(Default)]
pub(super) struct Handover {
    /// In their order.
    pub(super) conns: Kept<Conn>,
    pub(super) parked: Kept<Parked>,
}

/// The number of the first connection: those that come back go before it.
const FIRST: u64 = 1 << 32;

impl Handover {
    /// Adds a connection behind all others.
    pub(super) fn push(&mut self, conn: Conn) {
        let number = self.conns.last_key_value().map_or(FIRST, |(last, _)| last + 1);
        self.conns.insert(number, conn);
    }

    fn push_first(&mut self, conn: Conn) {
        let number = self.conns.first_key_value().map_or(FIRST, |(first, _)| first - 1);
        self.conns.insert(number, conn);
    }

    /// Parks the client of a stream whose upstream has ended.
    pub(super) fn park_ended(&mut self, stream: EndedStream) {
        let at = stream.at;
        // Workers number theirs by the microsecond of their start; the highest bit marks ours.
        let mut id = at | 1 << 63;
        while self.parked.contains_key(&id) {
            id += 1;
        }
        let ended = Some(Ended { position: stream.position, at });
        let EndedStream { client, note, unsent, .. } = stream;
        self.parked.insert(id, Parked { client, note, unsent, holder: None, ended });
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

    /// That worker returns the clients of ended streams; it finishes everything else that it parked.
    pub(super) fn release_ended(&mut self, holder: u32) {
        let held = |parked: &Parked| parked.holder == Some(holder) && parked.ended.is_some();
        self.parked.matching(held).for_each(|(_, parked)| parked.holder = None);
    }

    /// That worker serves no parked client any more.
    pub(super) fn release(&mut self, holder: u32) {
        let held = |parked: &Parked| parked.holder == Some(holder);
        self.parked.matching(held).for_each(|(_, parked)| parked.holder = None);
    }

    /// Connections that never reached the worker they were meant for: the next one gets them.
    pub(super) fn take_back(&mut self, orders: VecDeque<Outgoing>) {
        for mut order in orders.into_iter().rev() {
            if let (FromKeeper::Conn { listener }, Some(client)) = (order.head, order.fds.pop()) {
                self.push_first(Conn { listener, client, read: order.bytes });
            }
        }
    }

    /// The next order for the worker that serves now.
    pub(super) fn next_for(&mut self, worker: u32) -> Option<Outgoing> {
        let first = self.conns.first_key_value().map(|(number, _)| *number);
        if let Some(conn) = first.and_then(|number| self.conns.remove(number)) {
            let head = FromKeeper::Conn { listener: conn.listener };
            return Some(Outgoing { head, bytes: conn.read, fds: vec![conn.client] });
        }
        let id = self.parked.iter().find(|(_, parked)| parked.holder.is_none()).map(|(id, _)| *id)?;
        let parked = self.parked.get_mut(id)?;
        let copy: io::Result<OwnedFd> = parked.client.try_clone();
        let client = copy.ok()?;
        parked.holder = Some(worker);
        Some(Outgoing {
            head: FromKeeper::Parked { id, ended: parked.ended },
            bytes: parked.note.clone(),
            fds: vec![client],
        })
    }
}
