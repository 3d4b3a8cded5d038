//! What a worker hears from its keeper.
//!
//! It must never fail on a message that it does not know: keepers may be younger than workers.

use crate::channel::Packet;
use crate::protocol::{Ended, FromKeeper};
use crate::status::Snapshot;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// What the keeper wants or tells.
#[derive(Debug)]
pub enum Order {
    /// Stop accepting and stop touching parked clients (`release`), finish short requests, hand idle connections over
    /// (`give_conn`), say `done`, leave; all of it within the limit.
    Drain {
        /// After that, this process is killed.
        limit: Duration,
    },
    /// Leave: the keeper is being stopped.
    Stop {
        /// After that, this process is killed.
        grace: Duration,
    },
    /// The answer to `ask_status`.
    Status {
        /// The question's number.
        id: u64,
        /// The keeper at that moment.
        snapshot: Box<Snapshot>,
    },
    /// An idle client connection which another worker accepted.
    Conn {
        /// The socket that it came in by.
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
        /// What the earlier worker wrote down.
        note: Vec<u8>,
        /// It was a stream whose upstream is over.
        ended: Option<Ended>,
    },
    /// The keeper is gone; a worker must leave then.
    KeeperGone,
}

/// The order in a packet; none if it is none, or makes no sense.
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
        FromKeeper::Welcome { .. } | FromKeeper::Refused { .. } => return None,
    })
}
