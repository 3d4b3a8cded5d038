//! Replaces the worker: the new one must be ready before the old one is told anything.
//!
//! It must never touch the old worker when the new one fails.

use super::Keeper;
use super::trial::Upgrade;
use crate::control::UpgradeRequest;
use crate::notify::{notify, reloading};
use crate::plan::Program;
use crate::protocol::FromKeeper;
use crate::worker::{Outgoing, Phase};
use std::time::{Duration, Instant};

/// A worker that never became ready has nothing to finish.
const AT_ONCE: Duration = Duration::from_secs(1);

impl Keeper {
    pub(super) fn begin_upgrade(&mut self, request: &UpgradeRequest, requester: Option<u32>) {
        let exe = request.binary.clone().unwrap_or_else(|| self.plan.worker.exe.clone());
        let program = Program { exe, args: self.plan.worker.args.clone() };
        let limit = request.timeout_ms.map_or(self.plan.ready_timeout, Duration::from_millis);
        reloading();
        match self.start_worker(&program, limit) {
            Ok(worker) => {
                self.upgrade = Some(Upgrade { worker, requester });
                self.say(requester, &format!("worker {worker} started from {}", program.exe.display()));
            }
            Err(error) => self.fail_upgrade(requester, &format!("{}: {error}", program.exe.display())),
        }
    }

    fn fail_upgrade(&mut self, requester: Option<u32>, reason: &str) {
        self.say_failed(requester, reason);
        // Nothing has changed; tell systemd that the reload is over.
        notify("READY=1");
    }

    /// True if that worker's death ends an upgrade.
    pub(super) fn upgrade_died(&mut self, worker: u32, why: &str) -> bool {
        let Some(upgrade) = self.upgrade.take_if(|upgrade| upgrade.worker == worker) else { return false };
        self.fail_upgrade(upgrade.requester, why);
        true
    }

    /// Sends a line to the requester of this upgrade, if that worker is the one on trial.
    pub(super) fn upgrade_progress(&mut self, worker: u32, line: &str) {
        if let Some(upgrade) = self.upgrade.as_ref().filter(|upgrade| upgrade.worker == worker) {
            let requester = upgrade.requester;
            self.say(requester, line);
        }
    }

    /// The new worker is ready: it serves, the old one leaves.
    pub(super) fn promote(&mut self, worker: u32) {
        let Some(upgrade) = self.upgrade.take_if(|upgrade| upgrade.worker == worker) else { return };
        let old = self.serving.replace(worker);
        self.respawn_at = None;
        self.failures = 0;
        self.counts.upgrades += 1;
        let Some(new) = self.worker(worker) else { return };
        let (program, version) = (new.program.clone(), new.version.clone());
        self.program = program;
        if let Some(old) = old {
            self.send_away(old);
            self.say(upgrade.requester, &format!("worker {old} finishes its requests and leaves"));
        }
        self.say_ok(upgrade.requester, &format!("worker {worker} serves, version {version}"));
        notify("READY=1");
    }

    fn send_away(&mut self, id: u32) {
        let limit = self.plan.drain_limit;
        let Some(old) = self.workers.iter_mut().find(|worker| worker.id == id) else { return };
        let limit = if matches!(old.phase, Phase::Ready(_)) { limit } else { AT_ONCE };
        old.phase = Phase::Leaving;
        old.kill_at = Some(Instant::now() + limit);
        let head = FromKeeper::Drain { limit_ms: limit.as_millis() as u64 };
        old.send(Outgoing { head, bytes: Vec::new(), fds: Vec::new() });
    }
}
