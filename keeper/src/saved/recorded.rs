//! A worker's state as a record, and how it goes into the whole again. It must never keep a descriptor.

use super::{Saved, SavedEstate, SavedWorker, since, until};
use crate::protocol::FromKeeper;
use crate::worker::{Phase, Worker};
use std::os::fd::{AsRawFd, RawFd};

impl SavedWorker {
    /// A worker, without its orders.
    pub(crate) fn of(worker: &Worker) -> SavedWorker {
        let stderr = worker.capture.as_ref().and_then(|capture| capture.fd());
        SavedWorker {
            id: worker.id,
            pid: worker.pid.as_raw_nonzero().get(),
            exe: worker.program.exe.clone(),
            args: worker.program.args.clone(),
            socket: worker.socket.as_ref().map(AsRawFd::as_raw_fd),
            stderr: stderr.map(|fd| fd.as_raw_fd()),
            leaving: worker.phase == Phase::Leaving,
            ready_ms: match worker.phase {
                Phase::Ready(then) => Some(since(then)),
                _ => None,
            },
            age_ms: since(worker.since),
            version: worker.version.clone(),
            refusal: worker.refusal.clone(),
            declined: worker.declined,
            kill_in_ms: worker.kill_at.map(until),
            alive: worker.liveness.is_some(),
            has_memory: worker.has_memory,
            settled: worker.settled,
            outbox: Vec::new(),
        }
    }

    /// Its descriptors.
    pub(crate) fn fds(&self) -> impl Iterator<Item = RawFd> {
        self.socket.into_iter().chain(self.stderr)
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }
}

impl SavedEstate {
    /// Its descriptors.
    pub(crate) fn fds(&self) -> impl Iterator<Item = RawFd> {
        self.memory.into_iter().chain(self.connections.iter().map(|(_, fd)| *fd))
    }
}

impl Saved {
    /// Adds one that was recorded that long ago, with the orders that were not sent.
    pub(crate) fn add_recorded_worker(
        &mut self,
        worker: SavedWorker,
        age_ms: u64,
        outbox: Vec<(FromKeeper, usize, Vec<RawFd>)>,
    ) {
        self.workers.push(SavedWorker {
            outbox,
            age_ms: worker.age_ms.saturating_add(age_ms),
            ready_ms: worker.ready_ms.map(|ms| ms.saturating_add(age_ms)),
            kill_in_ms: worker.kill_in_ms.map(|ms| ms.saturating_sub(age_ms)),
            ..worker
        });
    }
}
