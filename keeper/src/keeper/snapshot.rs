//! What the keeper says of itself. It must never change anything.

use super::Keeper;
use crate::second::Seconds;
use crate::status::{Snapshot, StreamStatus, WorkerStatus};
use crate::worker::{Phase, Worker};
use std::time::Instant;

impl Keeper {
    pub(super) fn snapshot(&self) -> Snapshot {
        let ms = |since: Instant| since.elapsed().as_millis() as u64;
        let mut workers: Vec<&Worker> = self.workers.iter().collect();
        workers.sort_by_key(|worker| Some(worker.id) != self.serving);
        Snapshot {
            pid: std::process::id(),
            version: self.plan.version.clone(),
            protocol: crate::protocol::PROTOCOL,
            up_ms: ms(self.since),
            reexecs: self.counts.reexecs,
            second: self
                .seconds
                .as_ref()
                .and_then(Seconds::pid)
                .map_or(0, |pid| pid.as_raw_nonzero().get() as u32),
            takeovers: self.counts.takeovers,
            listeners: self.listeners.iter().map(|(name, _)| name.clone()).collect(),
            workers: workers.into_iter().map(|worker| self.describe(worker)).collect(),
            worker_deaths: self.counts.worker_deaths,
            upgrades: self.counts.upgrades,
            streams_finished: self.pump.finished(),
            streams_refused: self.counts.streams_refused,
            garbled: self.counts.garbled,
            parked: self.handover.parked_len() as u64,
            clients: self.clients.len() as u64,
            streams: self
                .pump
                .iter()
                .map(|stream| StreamStatus {
                    label: stream.label.to_string(),
                    age_ms: ms(stream.since),
                    to_upstream: stream.flows[0].moved(),
                    to_client: stream.flows[1].moved(),
                })
                .collect(),
        }
    }

    fn describe(&self, worker: &Worker) -> WorkerStatus {
        let state = match worker.phase {
            _ if self.upgrade.as_ref().is_some_and(|upgrade| upgrade.worker == worker.id) => "trial",
            Phase::Starting => "starting",
            Phase::Ready(_) => "ready",
            Phase::Leaving => "leaving",
        };
        WorkerStatus {
            pid: worker.pid.as_raw_nonzero().get() as u32,
            version: worker.version.clone(),
            state: state.to_owned(),
            up_ms: worker.since.elapsed().as_millis() as u64,
        }
    }
}
