//! A stream as it is given to the keeper, and what comes back if it cannot be. Plain data, which must never do anything.

use crate::error::Error;
use crate::position::Position;
use std::os::fd::OwnedFd;

/// A stream for the keeper to pump.
#[derive(Debug)]
pub struct Stream<'a> {
    /// What it is, for `selvedge status`: for instance "POST attach 1a2b3c".
    pub label: &'a str,
    /// The client's stream socket.
    pub client: OwnedFd,
    /// The engine's stream socket.
    pub upstream: OwnedFd,
    /// Bytes read from the client that have not reached the upstream, at most `PENDING_MAX`.
    pub to_upstream: &'a [u8],
    /// Bytes read from the upstream that have not reached the client, at most `PENDING_MAX`.
    pub to_client: &'a [u8],
    /// Makes the stream resumable over another upstream.
    pub resume: Option<Resume<'a>>,
    /// The number of the parked client, if the stream was one.
    pub replaces: Option<u64>,
    /// The number of the client that the keeper accepted, if it was one.
    pub held: Option<u64>,
    /// Another socket of the engine's, to which the client's bytes go instead: see `Link::takes_inputs`.
    pub input: Option<OwnedFd>,
}

/// Makes a stream resumable: when its upstream ends, the client is not told, and comes back as `Order::Parked` with
/// `ended`.
#[derive(Debug, Clone, Copy)]
pub struct Resume<'a> {
    /// For the worker that finds another upstream, at most `NOTE_MAX`.
    pub note: &'a [u8],
    /// What the client has received so far.
    pub position: Position,
    /// Do not pass on the client's half-close: some upstreams would take it for the client leaving.
    pub hold_upstream: bool,
}

/// A failed hand-over: the descriptors still belong to the caller.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct NotGiven {
    /// Why. `Error::QueueFull`: wait until `Link::as_fd` is writable, and try again.
    pub error: Error,
    /// The descriptors that were not given, in their original order.
    pub fds: Vec<OwnedFd>,
}
