//! What keeper and worker say to each other on the control socket.
//!
//! It must never change what is there without raising `PROTOCOL`: the two may come from different releases. `Hello` must
//! stay readable for all releases. A message that the other side does not know is ignored there.

use crate::position::Position;
use serde::{Deserialize, Serialize};

/// The version of this protocol.
pub const PROTOCOL: u32 = 2;
/// The worker's environment has the number of its end of the control socket under this name.
pub const CONTROL_FD_ENV: &str = "SELVEDGE_CONTROL_FD";
/// Bytes already read from one side of a stream: at most so many.
pub const PENDING_MAX: usize = 512 << 10;
/// A note beside a parked connection: at most so many bytes.
pub const NOTE_MAX: usize = 64 << 10;

/// Worker to keeper.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum FromWorker {
    /// The first message.
    Hello { protocol: u32, version: String, pid: u32 },
    /// It serves from now on.
    Ready,
    /// It can't serve, and leaves.
    Refuse { reason: String },
    /// Descriptors: client, upstream. Bytes: `to_upstream` of them for the upstream, then the note of `resume`, the
    /// rest for the client. `replaces`: the parked client that this is; it is parked no longer.
    Stream { label: String, to_upstream: usize, resume: Option<ResumeHead>, replaces: Option<u64> },
    /// Asks for a `Snapshot`.
    Status { id: u64 },
    /// Descriptor: an idle client connection. Bytes: what was already read from it.
    Conn { listener: String },
    /// Descriptor: a client. Bytes: a note for the next worker.
    Park { id: u64 },
    /// That client is served: forget it.
    Unpark { id: u64 },
    /// This worker touches no client of an ended stream any more: the next may have them. What else it parked is given
    /// on when it is `Done`, or gone.
    Release,
    /// Drained: nothing is left to do here but leaving.
    Done,
}

/// Keeper to worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum FromKeeper {
    /// Descriptors: the sockets, in the order of their names; then, if `stderr`, the keeper's stderr.
    Welcome { protocol: u32, version: String, sockets: Vec<String>, stderr: bool, more: bool },
    /// The keeper does not want this worker; it is ended.
    Refused { reason: String, protocol: u32 },
    /// Stop accepting, finish, hand over, say `Done`, leave.
    Drain { limit_ms: u64 },
    /// Leave within this time.
    Stop { grace_ms: u64 },
    /// Bytes: a `Snapshot` as JSON.
    Status { id: u64 },
    /// Descriptor: an idle client connection of another worker. Bytes: what was already read from it.
    Conn { listener: String },
    /// Descriptor: a parked client. Bytes: its note.
    Parked { id: u64, ended: Option<Ended> },
}

/// What is to be done when the upstream of a stream ends: the client is parked, not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ResumeHead {
    /// Length of the note.
    pub(crate) note: usize,
    /// Where the stream stands.
    pub(crate) position: Position,
    /// The client's half-close is not passed on.
    pub(crate) hold_upstream: bool,
}

/// How a stream ended that can be resumed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// What the client has got.
    pub position: Position,
    /// When, in nanoseconds of the Unix epoch.
    pub at: u64,
}
