//! What tells whether a record of the keeper or of a worker is still true. Plain data; it must never be a whole copy.

use crate::status::Counts;
use crate::worker::{Phase, Worker};
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Instant;

/// What tells whether a record is still true.
#[derive(Default)]
pub(super) struct Recorded {
    pub(super) base: Option<BaseMark>,
    pub(super) workers: BTreeMap<u32, WorkerMark>,
    pub(super) listeners: usize,
    pub(super) next_client: u64,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) struct BaseMark {
    pub(super) serving: Option<u32>,
    pub(super) next_worker: u32,
    pub(super) failures: usize,
    pub(super) respawn_at: Option<Instant>,
    pub(super) was_ready: bool,
    pub(super) counts: Counts,
    pub(super) upgrade: Option<u32>,
    pub(super) tries_image: bool,
    pub(super) requester: Option<RawFd>,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) struct WorkerMark {
    phase: Phase,
    socket: Option<RawFd>,
    stderr: Option<RawFd>,
    version: usize,
    declined: bool,
    has_refusal: bool,
    kill_at: Option<Instant>,
    alive: bool,
    has_memory: bool,
    settled: bool,
}

impl WorkerMark {
    pub(super) fn of(worker: &Worker) -> WorkerMark {
        let stderr = worker.capture.as_ref().and_then(|capture| capture.fd());
        WorkerMark {
            phase: worker.phase,
            socket: worker.socket.as_ref().map(AsRawFd::as_raw_fd),
            stderr: stderr.map(|fd| fd.as_raw_fd()),
            version: worker.version.len(),
            declined: worker.declined,
            has_refusal: worker.refusal.is_some(),
            kill_at: worker.kill_at,
            alive: worker.liveness.is_some(),
            has_memory: worker.has_memory,
            settled: worker.settled,
        }
    }
}
