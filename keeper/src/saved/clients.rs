//! Clients in all their states but streams, as they are saved. Plain data; it must never lose a field's default.

use crate::protocol::Ended;
use serde::{Deserialize, Serialize};
use std::os::fd::RawFd;

/// An idle connection in transit; what was read from it is in the byte part.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedConn {
    pub(crate) listener: String,
    pub(crate) client: RawFd,
    pub(crate) read: usize,
}

/// A parked client; its note is in the byte part.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedParked {
    pub(crate) id: u64,
    pub(crate) client: RawFd,
    pub(crate) note: usize,
    /// In the text, as an earlier image would not take it from the byte part. It is rare, and at most what a pipe holds.
    #[serde(default)]
    pub(crate) unsent: Vec<u8>,
    pub(crate) holder: Option<u32>,
    #[serde(default)]
    pub(crate) ended: Option<Ended>,
}

/// A client that a worker serves; what was read from it is in the byte part.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedClient {
    pub(crate) id: u64,
    pub(crate) socket: RawFd,
    pub(crate) listener: String,
    pub(crate) holder: Option<u32>,
    pub(crate) estate: Option<u32>,
    pub(crate) read: usize,
}

/// What a worker leaves behind.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedEstate {
    pub(crate) worker: u32,
    pub(crate) memory: Option<RawFd>,
    pub(crate) connections: Vec<(u64, RawFd)>,
    pub(crate) left: bool,
    pub(crate) heir: Option<u32>,
}
