//! What is to be done with the engine's answer to a request that changes something, as data: the worker that reads
//! the answer does the same, be it the one that asked or a successor. Must stay readable for the next release.

use selvedge_containers::label::Note;
use selvedge_engine::lifetime;
use selvedge_engine::refusal::Refusal;
use serde::{Deserialize, Serialize};

/// When a request was asked, and whether this is the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// Nanoseconds of the Unix epoch: also what tells this request from all others.
    pub(crate) when: u64,
    /// The engine broke off, or an earlier worker died: part of it may have been done.
    pub(crate) again: bool,
}

/// What the next worker needs to know of a request that was asked of the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    /// When it was asked first.
    pub(crate) asked: Asked,
    /// When the container that is to start had been started last, as the engine writes it.
    #[serde(default)]
    pub(crate) started: Option<String>,
    /// What comes after the answer.
    pub(crate) then: Then,
}

impl Order {
    /// Something asked just now, for the first time.
    pub(crate) fn now(then: Then) -> Self {
        Self { asked: Asked::now(), started: None, then }
    }
}

impl Asked {
    /// For the first time.
    pub(crate) fn now() -> Self {
        Self { when: lifetime::now(), again: false }
    }
}

/// What comes after the engine's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Then {
    /// It goes to the client as it came.
    Relay,
    /// It goes to the client, framed by us.
    Pass,
    /// An agreement makes it a stream.
    Upgrade,
    /// An agreement makes it a stream that outlives the engine.
    Attach,
    /// The engine's words, if they are about what the client wrote; else these.
    Words(Refusal),
    /// A create whose image is not there: a container that it made all the same goes.
    Unseen,
    /// A create with a wire.
    Created(Box<Created>),
    /// A start or restart of this container.
    Started(String),
}

/// A create with a wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Created {
    /// The name that the client gave.
    pub(crate) name: Option<String>,
    /// What is written on the container.
    pub(crate) note: Note,
    /// The name of its image, and the id that it had.
    pub(crate) image: (String, String),
}
