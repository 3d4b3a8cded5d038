//! What keeper and worker say to each other on the control socket.
//!
//! It must never change an existing message without raising `PROTOCOL`: the two may come from different releases.
//! `Hello` must stay readable for all releases. Each side ignores messages that it does not know.

use crate::position::Position;
use serde::{Deserialize, Serialize};

/// The version of this protocol.
pub const PROTOCOL: u32 = 3;
/// The environment variable that holds the descriptor number of the worker's end of the control socket.
pub const CONTROL_FD_ENV: &str = "SELVEDGE_CONTROL_FD";
/// Limit of the bytes already read from one side of a stream.
pub const PENDING_MAX: usize = 512 << 10;
/// Limit of the note beside a resumable stream, in bytes. Earlier keepers had the same limit for parked clients.
pub const NOTE_MAX: usize = 64 << 10;
/// Limit of the note beside a parked client, in bytes. The note holds a whole request, whose body may have 16 MiB.
pub const PARKED_NOTE_MAX: usize = 64 << 20;

/// Worker to keeper.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum FromWorker {
    /// The first message.
    /// `alive`: it answers `Ask`; workers of earlier releases do not.
    Hello {
        protocol: u32,
        version: String,
        pid: u32,
        #[serde(default)]
        alive: bool,
    },
    /// It serves from now on.
    Ready,
    /// It cannot serve, and exits.
    Refuse { reason: String },
    /// Descriptors: client, upstream. Bytes: `to_upstream` of them for the upstream, then the note of `resume`, the
    /// rest for the client. `replaces`: the number under which this client was parked; it is parked no longer. `held`: the
    /// number of a client that the keeper accepted; it is a stream from now on. `input`: a third descriptor, to which the
    /// client's bytes go instead of to the upstream; only for keepers that said `inputs`.
    Stream {
        label: String,
        to_upstream: usize,
        resume: Option<ResumeHead>,
        replaces: Option<u64>,
        #[serde(default)]
        held: Option<u64>,
        #[serde(default)]
        input: bool,
    },
    /// Descriptor: the memory in which this worker keeps its records, for the next one.
    Memory,
    /// Descriptor: a connection that must stay open if this worker dies.
    Hold { key: u64 },
    /// That connection is needed no longer.
    Drop { key: u64 },
    /// What the estate says of that client, and what came along with it, is on this worker's own record.
    Taken { client: u64 },
    /// That client is the next worker's. Bytes: what was read from it and not served.
    GiveBack { client: u64 },
    /// That client's connection is to be ended.
    End { client: u64 },
    /// Asks for a `Snapshot`.
    Status { id: u64 },
    /// Descriptor: an idle client connection. Bytes: what was already read from it.
    Conn { listener: String },
    /// Descriptor: a client. Bytes: a note for the next worker.
    Park { id: u64 },
    /// That client is served: forget it.
    Unpark { id: u64 },
    /// This worker no longer touches clients of ended streams: the next may have them. Clients that it parked itself go
    /// to the next worker once it is `Done`, or gone.
    Release,
    /// Drained: all that is left to do is to exit.
    Done,
    /// The answer to `Ask`.
    Alive,
}

/// Keeper to worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum FromKeeper {
    /// Descriptors: the sockets, in the order of their names; then, if `stderr`, the keeper's stderr. `note_max`: the
    /// longest note it takes beside a parked client. `inputs`: a stream may have one.
    Welcome {
        protocol: u32,
        version: String,
        sockets: Vec<String>,
        stderr: bool,
        more: bool,
        #[serde(default = "first_note_max")]
        note_max: usize,
        #[serde(default)]
        inputs: bool,
    },
    /// The keeper rejects this worker and ends it.
    Refused { reason: String, protocol: u32 },
    /// Stop accepting, finish, hand over, say `Done`, exit.
    Drain { limit_ms: u64 },
    /// Exit within this time.
    Stop { grace_ms: u64 },
    /// Say `Alive`. Only for workers that said that they answer it.
    Ask,
    /// Bytes: a `Snapshot` as JSON.
    Status { id: u64 },
    /// Descriptor: an idle client connection of another worker. Bytes: what was already read from it.
    Conn { listener: String },
    /// Descriptor: a parked client. Bytes: its note.
    Parked { id: u64, ended: Option<Ended> },
    /// Descriptor: a client that the keeper accepted. Bytes: what was read from it and not served. `estate`: the worker that
    /// served it and is dead.
    Client { id: u64, listener: String, estate: Option<u32> },
    /// Descriptors: connections that a dead worker held.
    Held { worker: u32, keys: Vec<u64> },
    /// Descriptor: the memory of a dead worker. Its connections have come before it, its clients come behind it.
    Estate { worker: u32 },
    /// All that dead workers have left has been said.
    Settled,
    /// There is no room for another client: end one that asks for nothing.
    Crowded,
}

/// The limit of keepers that did not state one.
fn first_note_max() -> usize {
    NOTE_MAX
}

/// Resume this stream when its upstream ends: park the client without telling it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ResumeHead {
    /// Length of the note.
    pub(crate) note: usize,
    /// The stream's position.
    pub(crate) position: Position,
    /// Do not pass on the client's half-close.
    pub(crate) hold_upstream: bool,
}

/// How a resumable stream ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// What the client has received.
    pub position: Position,
    /// When, in nanoseconds of the Unix epoch.
    pub at: u64,
}
