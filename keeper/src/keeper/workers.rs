//! Starts workers, and decides what their readiness and their deaths mean.
//!
//! It must never leave the keeper without a worker for longer than the pause, nor with two that serve.

use super::{Keeper, Stopping};
use crate::child;
use crate::error::Error;
use crate::liveness::Look;
use crate::notify::notify;
use crate::protocol::FromKeeper;
use crate::worker::{Outgoing, Phase, Worker};
use std::time::{Duration, Instant};

/// How many workers that die in a row before they are ready are started again at once.
const AT_ONCE: usize = 10;
/// Milliseconds to wait before a worker is started again, by how many died in a row after those.
const PAUSES_MS: [u64; 6] = [100, 200, 500, 1000, 2000, 5000];
/// How many messages are read from a dead worker: all that its socket can hold.
const LAST_WORDS: usize = 1_000_000;

impl Keeper {
    /// Starts the first worker.
    ///
    /// # Errors
    /// If it cannot be executed.
    pub(super) fn start_first(&mut self) -> Result<(), Error> {
        let program = self.plan.worker.clone();
        let worker = self
            .start_worker(&program, self.plan.ready_timeout)
            .map_err(|error| Error::Worker(format!("{}: {error}", program.exe.display())))?;
        self.serving = Some(worker);
        Ok(())
    }

    pub(super) fn start_worker(
        &mut self,
        program: &crate::plan::Program,
        limit: Duration,
    ) -> std::io::Result<u32> {
        let id = self.next_worker;
        let worker = Worker::start(id, program, limit, (&self.poller, &self.shared))?;
        self.next_worker = self.next_worker.wrapping_add(1);
        self.log(&format!("worker {id} started: pid {}, {}", worker.pid, program.exe.display()));
        self.workers.push(worker);
        Ok(id)
    }

    pub(super) fn on_ready(&mut self, id: u32) {
        let Some(worker) = self.worker(id).filter(|worker| worker.phase == Phase::Starting) else { return };
        worker.phase = Phase::Ready(Instant::now());
        worker.kill_at = None;
        // From here on its stderr is ours: we sent it along with the sockets.
        worker.capture = None;
        let line = format!("worker {id} is ready: pid {}, version {}", worker.pid, worker.version);
        self.log(&line);
        self.promote(id);
        if !self.was_ready {
            notify("READY=1");
        }
        self.was_ready = true;
    }

    /// SIGCHLD: checks which of our children have exited.
    pub(super) fn on_child(&mut self) -> Result<(), Error> {
        let ids: Vec<u32> = self.workers.iter().map(|worker| worker.id).collect();
        for id in ids {
            if let Some(how) = self.worker(id).and_then(|worker| worker.ended()) {
                self.on_death(id, &how)?;
            }
        }
        self.on_successor_child();
        self.on_second_child();
        Ok(())
    }

    fn on_death(&mut self, id: u32, how: &str) -> Result<(), Error> {
        // What it handed over before its death is ours.
        self.read_messages(id, LAST_WORDS);
        let Some(at) = self.workers.iter().position(|worker| worker.id == id) else { return Ok(()) };
        let mut worker = self.workers.remove(at);
        worker.listen();
        self.handover.release(id);
        self.clients.on_death(id);
        self.handover.take_back(worker.take_orders());
        self.shared.bury(worker.socket.take());
        let why = worker.obituary(how);
        self.log(&format!(
            "worker {id} {}: {why}",
            if worker.phase == Phase::Leaving { "left" } else { "died" }
        ));
        if self.upgrade_died(id, &format!("worker {id}: {why}")) {
            return Ok(());
        }
        if self.serving == Some(id) {
            self.serving = None;
            return self.on_serving_death(&worker, why);
        }
        Ok(())
    }

    fn on_serving_death(&mut self, worker: &Worker, why: String) -> Result<(), Error> {
        if self.stopping != Stopping::No {
            return Ok(());
        }
        if !self.was_ready && worker.declined {
            return Err(Error::Worker(why));
        }
        self.counts.worker_deaths += 1;
        // One that was ready has served: a pause would only keep all clients from the next one.
        if matches!(worker.phase, Phase::Ready(_)) {
            self.failures = 0;
        }
        self.respawn_later();
        Ok(())
    }

    fn respawn_later(&mut self) {
        let pause = match self.failures.checked_sub(AT_ONCE) {
            Some(more) => PAUSES_MS[more.min(PAUSES_MS.len() - 1)],
            None => 0,
        };
        self.failures = self.failures.saturating_add(1);
        self.respawn_at = Some(Instant::now() + Duration::from_millis(pause));
    }

    /// Starts what is due, kills what is overdue.
    pub(super) fn check_deadlines(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        if self.respawn_at.is_some_and(|at| at <= now) {
            self.respawn_at = None;
            self.respawn();
        }
        self.check_successor(now);
        self.check_second(now);
        self.look_after_workers(now);
        for worker in self.workers.iter_mut().filter(|worker| worker.kill_at.is_some_and(|at| at <= now)) {
            worker.kill_at = None;
            if worker.phase == Phase::Starting && worker.refusal.is_none() && worker.socket.is_some() {
                worker.refusal =
                    Some(format!("was not ready within {:.1} s", worker.since.elapsed().as_secs_f64()));
            }
            // Its death arrives as SIGCHLD.
            child::kill(worker.pid);
        }
        Ok(())
    }

    /// Asks those that serve whether they are alive, and ends those that do not answer.
    fn look_after_workers(&mut self, now: Instant) {
        let limit = self.plan.worker_timeout;
        for at in 0..self.workers.len() {
            let worker = &mut self.workers[at];
            if worker.look_at().is_none_or(|due| due > now) {
                continue;
            }
            match worker.liveness.as_mut().map(|liveness| liveness.look(now, limit)) {
                Some(Look::Ask) => {
                    let ask = Outgoing { head: FromKeeper::Ask, bytes: Vec::new(), fds: Vec::new() };
                    // One whose queue is full does not read: that is seen by the answer that it owes.
                    worker.send(ask);
                }
                Some(Look::Hung) => {
                    let line = format!("worker {} has not answered for {limit:?}: killed", worker.id);
                    // Its death arrives as SIGCHLD.
                    worker.liveness = None;
                    child::kill(worker.pid);
                    self.log(&line);
                }
                Some(Look::Wait) | None => {}
            }
        }
    }

    fn respawn(&mut self) {
        let limit = self.plan.ready_timeout;
        let (last, planned) = (self.program.clone(), self.plan.worker.clone());
        // The last one that served; if its file is gone, the one we were started with.
        let started = self.start_worker(&last, limit).or_else(|_| self.start_worker(&planned, limit));
        match started {
            Ok(id) => self.serving = Some(id),
            Err(error) => {
                let program = planned;
                self.log(&format!("cannot start a worker from {}: {error}", program.exe.display()));
                self.respawn_later();
            }
        }
    }

    /// Tells all workers to leave.
    pub(super) fn stop_workers(&mut self, grace: Duration) {
        let kill_at = Some(Instant::now() + grace);
        for worker in &mut self.workers {
            worker.phase = Phase::Leaving;
            worker.kill_at = kill_at;
            let head = FromKeeper::Stop { grace_ms: grace.as_millis() as u64 };
            worker.send(Outgoing { head, bytes: Vec::new(), fds: Vec::new() });
        }
    }

    pub(super) fn kill_all(&mut self) {
        self.kill_successor();
        for worker in &self.workers {
            child::kill(worker.pid);
        }
        self.workers.clear();
    }
}
