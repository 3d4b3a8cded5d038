//! What a keeper reports about itself.
//!
//! It must never contain bytes of a stream.

use serde::{Deserialize, Serialize};

/// A keeper at one moment.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    /// The keeper's process.
    pub pid: u32,
    /// The keeper's version.
    pub version: String,
    /// The protocol that it speaks with workers.
    pub protocol: u32,
    /// Milliseconds since the keeper was started.
    pub up_ms: u64,
    /// How often the keeper was replaced in place.
    pub reexecs: u64,
    /// The process that takes over if the keeper is killed; 0 for none.
    pub second: u32,
    /// How often a keeper was killed, and its second took over.
    pub takeovers: u64,
    /// Names of the sockets that it holds.
    pub listeners: Vec<String>,
    /// All worker processes, the serving one first.
    pub workers: Vec<WorkerStatus>,
    /// How many workers died without being told to leave.
    pub worker_deaths: u64,
    /// How often a worker was replaced by an upgrade.
    pub upgrades: u64,
    /// Streams that have ended.
    pub streams_finished: u64,
    /// Streams that could not be taken over.
    pub streams_refused: u64,
    /// Messages from workers that could not be understood.
    pub garbled: u64,
    /// Client connections that wait for the next worker.
    pub parked: u64,
    /// Client connections that workers serve.
    pub clients: u64,
    /// The streams in flight.
    pub streams: Vec<StreamStatus>,
}

/// One worker.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerStatus {
    /// Its process.
    pub pid: u32,
    /// The version that it announced.
    pub version: String,
    /// `starting`, `ready`, `trial` or `leaving`.
    pub state: String,
    /// Milliseconds since it was started.
    pub up_ms: u64,
}

/// One stream.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamStatus {
    /// The label that the worker gave it.
    pub label: String,
    /// Milliseconds since it was taken over.
    pub age_ms: u64,
    /// Bytes moved from the client to the upstream.
    pub to_upstream: u64,
    /// Bytes moved from the upstream to the client.
    pub to_client: u64,
}

/// Counters for status.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Counts {
    pub(crate) worker_deaths: u64,
    pub(crate) upgrades: u64,
    pub(crate) streams_refused: u64,
    pub(crate) garbled: u64,
    pub(crate) reexecs: u64,
    pub(crate) takeovers: u64,
}
