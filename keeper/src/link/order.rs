//! What the keeper tells a worker.
//!
//! It must never fail on an unknown message: keepers may be younger than workers.

use crate::channel::Packet;
use crate::protocol::{Ended, FromKeeper};
use crate::status::Snapshot;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// One message from the keeper.
#[derive(Debug)]
pub enum Order {
    /// Stop accepting and stop touching parked clients (`release`), finish short requests, hand idle connections over
    /// (`give_conn`), say `done`, leave; all of it within the limit.
    Drain {
        /// After this time the process is killed.
        limit: Duration,
    },
    /// Exit: the keeper is being stopped.
    Stop {
        /// After this time the process is killed.
        grace: Duration,
    },
    /// The answer to `ask_status`.
    Status {
        /// The number that `ask_status` returned.
        id: u64,
        /// The keeper at that moment.
        snapshot: Box<Snapshot>,
    },
    /// An idle client connection which another worker accepted.
    Conn {
        /// The listener that accepted it.
        listener: String,
        /// The client.
        client: OwnedFd,
        /// What was already read from it.
        read: Vec<u8>,
    },
    /// A client that an earlier worker parked. It stays parked until `unpark`.
    Parked {
        /// For `unpark`, or for `park_again`.
        id: u64,
        /// The client.
        client: OwnedFd,
        /// The note that the earlier worker left.
        note: Vec<u8>,
        /// Set if it was a stream whose upstream has ended.
        ended: Option<Ended>,
    },
    /// A client that the keeper accepted.
    Client {
        /// For `taken`, `give_back`, `end`, and for the stream that it becomes.
        id: u64,
        /// The listener that it came by.
        listener: String,
        /// The client.
        client: OwnedFd,
        /// What was read from it and not served.
        read: Vec<u8>,
        /// The dead worker that served it: its records say what became of the last request. Call `taken` once they have been
        /// copied, and do nothing before.
        estate: Option<u32>,
    },
    /// Connections that a dead worker held.
    Held {
        /// That worker.
        worker: u32,
        /// The connections, by their numbers.
        connections: Vec<(u64, OwnedFd)>,
    },
    /// The records of a dead worker; its clients come next.
    Estate {
        /// That worker.
        worker: u32,
        /// The memory of its records.
        memory: OwnedFd,
    },
    /// All that dead workers have left has been said.
    Settled,
    /// There is no room for more clients: end one that asks for nothing.
    Crowded,
    /// A client came for whose descriptor this process has no room: it is to be ended.
    NoRoom {
        /// The keeper's number for it.
        id: u64,
    },
    /// The keeper is gone; the worker must exit.
    KeeperGone,
}

/// The order in a packet; none if it is not an order, or makes no sense.
pub(super) fn understand(packet: Packet<FromKeeper>) -> Option<Order> {
    let mut fds = packet.fds.into_iter();
    Some(match packet.head {
        FromKeeper::Drain { limit_ms } => Order::Drain { limit: Duration::from_millis(limit_ms) },
        FromKeeper::Stop { grace_ms } => Order::Stop { grace: Duration::from_millis(grace_ms) },
        FromKeeper::Status { id } => {
            Order::Status { id, snapshot: Box::new(serde_json::from_slice(&packet.bytes).ok()?) }
        }
        FromKeeper::Conn { listener } => Order::Conn { listener, client: fds.next()?, read: packet.bytes },
        FromKeeper::Parked { id, ended } => {
            Order::Parked { id, client: fds.next()?, note: packet.bytes, ended }
        }
        FromKeeper::Client { id, listener, estate } => {
            Order::Client { id, listener, client: fds.next()?, read: packet.bytes, estate }
        }
        FromKeeper::Held { worker, keys } => {
            Order::Held { worker, connections: keys.into_iter().zip(fds).collect() }
        }
        FromKeeper::Estate { worker } => Order::Estate { worker, memory: fds.next()? },
        FromKeeper::Settled => Order::Settled,
        FromKeeper::Crowded => Order::Crowded,
        FromKeeper::Welcome { .. } | FromKeeper::Refused { .. } | FromKeeper::Ask => return None,
    })
}
