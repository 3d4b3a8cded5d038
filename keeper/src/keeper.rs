//! The keeper: one thread, one epoll loop, and all state in one struct, so that it can be listed between two turns.
//!
//! It must never wait anywhere but in `Poller::wait`, and never end because of what a worker, a client or an engine does.

mod handover;
mod lingering;
mod messages;
mod requests;
mod resume;
mod succession;
mod upgrade;
mod workers;

use crate::bind;
use crate::channel::PACKET_MAX;
use crate::control::CONTROL_SOCKET;
use crate::error::Error;
use crate::keeper::handover::Handover;
use crate::keeper::requests::Requests;
use crate::keeper::succession::Successor;
use crate::keeper::upgrade::Upgrade;
use crate::notify::notify;
use crate::plan::{Plan, Program};
use crate::poller::{Happening, Interest, Poller, Token};
use crate::pump::Pump;
use crate::saved::{Loaded, STATE_ENV, TRIAL_ENV, TRIAL_OK};
use crate::status::{Snapshot, StreamStatus, WorkerStatus};
use crate::worker::{Phase, Worker};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Descriptors that streams may not have: for sockets, workers, pipes, upgrades.
const RESERVED_FDS: usize = 512;
/// The keeper's own: epoll, signals, lock, control socket, standard streams.
const FEW_FDS: usize = 16;
/// What the limit of descriptors is raised to where that is allowed.
const WANTED_FDS: u64 = 262_144;

/// How the keeper stands towards its own end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopping {
    No,
    /// Told to stop; everything is cut at that moment.
    Until(Instant),
    /// Told twice.
    Now,
}

/// Counters for status.
#[derive(Debug, Default, Clone, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Counts {
    worker_deaths: u64,
    upgrades: u64,
    streams_refused: u64,
    garbled: u64,
    reexecs: u64,
}

/// All state.
struct Keeper {
    plan: Plan,
    poller: Poller,
    signals: SignalFd,
    lock: OwnedFd,
    listeners: Vec<(String, OwnedFd)>,
    pump: Pump,
    workers: Vec<Worker>,
    next_worker: u32,
    /// The worker that serves, or is to serve when it is ready.
    serving: Option<u32>,
    /// The upgrade under way, if there is one.
    upgrade: Option<Upgrade>,
    /// The trial of the keeper's next image, if there is one.
    successor: Option<Successor>,
    /// What a worker that died is started again from.
    program: Program,
    requests: Requests,
    /// How often in a row workers died soon; decides the pause.
    failures: usize,
    respawn_at: Option<Instant>,
    /// True once any worker was ready.
    was_ready: bool,
    handover: Handover,
    counts: Counts,
    since: Instant,
    stopping: Stopping,
    /// Streams shall outlive us.
    lingers: bool,
    fd_limit: usize,
    buffer: Box<[u8]>,
}

/// Binds the plan's sockets, starts a worker, and goes on until SIGTERM or SIGINT: a first one stops the workers and gives
/// streams the plan's grace; a second one ends at once. SIGQUIT stops the workers, and leaves the streams to a process
/// that ends with the last of them. Socket files are left: the next start replaces them.
///
/// Call it in a process that has no other threads. It blocks SIGCHLD, SIGTERM, SIGINT, SIGQUIT and SIGHUP.
///
/// # Errors
/// If a socket can't be made, another keeper has the runtime directory, or the very first worker can't be started or
/// refuses its configuration.
pub fn run(plan: Plan) -> Result<(), Error> {
    if let Ok(number) = std::env::var(TRIAL_ENV) {
        Loaded::read(&number)?;
        eprintln!("{TRIAL_OK}");
        return Ok(());
    }
    let mut keeper = match std::env::var(STATE_ENV) {
        Ok(number) => Keeper::resume(plan, Loaded::read(&number)?)?,
        Err(_) => Keeper::begin(plan)?,
    };
    keeper.turn_until_end()?;
    keeper.end()
}

impl Keeper {
    fn begin(mut plan: Plan) -> Result<Keeper, Error> {
        let lock = bind::lock(&plan.runtime_dir)?;
        let control = plan.runtime_dir.join(CONTROL_SOCKET);
        let owner = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let control = bind::unix("control", &control, 0o600, owner)?;
        let wanted = std::mem::take(&mut plan.listeners);
        let listeners = wanted.iter().map(bind::bind).collect::<Result<Vec<_>, Error>>()?;
        let mut keeper = Keeper::with(plan, lock, control)?;
        keeper.listeners = listeners;
        keeper.start_first()?;
        Ok(keeper)
    }

    /// A keeper that holds nothing yet.
    fn with(plan: Plan, lock: OwnedFd, control: OwnedFd) -> Result<Keeper, Error> {
        let signals = take_signals()?;
        let poller = Poller::new().map_err(Error::os("epoll"))?;
        poller.add(&signals, Token::Signals, Interest::Read).map_err(Error::os("signalfd"))?;
        Ok(Keeper {
            program: plan.worker.clone(),
            requests: Requests::new(control, &poller)?,
            plan,
            poller,
            signals,
            lock,
            listeners: Vec::new(),
            pump: Pump::new(),
            workers: Vec::new(),
            next_worker: 0,
            serving: None,
            upgrade: None,
            successor: None,
            failures: 0,
            respawn_at: None,
            was_ready: false,
            handover: Handover::new(),
            counts: Counts::default(),
            since: Instant::now(),
            stopping: Stopping::No,
            lingers: false,
            fd_limit: raise_fd_limit(),
            buffer: vec![0; PACKET_MAX].into_boxed_slice(),
        })
    }

    fn log(&self, line: &str) {
        (self.plan.log)(line);
    }

    fn turn_until_end(&mut self) -> Result<(), Error> {
        while !self.is_over() {
            self.turn()?;
        }
        Ok(())
    }

    /// One turn of the loop.
    fn turn(&mut self) -> Result<(), Error> {
        let timeout = if self.pump.has_work() { Some(Duration::ZERO) } else { self.time_left() };
        let count = self.poller.wait(timeout).map_err(Error::os("epoll"))?;
        for number in 0..count {
            if let Some(happening) = self.poller.event(number) {
                self.handle(happening)?;
            }
        }
        self.pump.run(&self.poller);
        for stream in self.pump.take_ended() {
            self.handover.park_ended(stream);
        }
        self.deliver();
        self.check_deadlines()
    }

    fn handle(&mut self, happening: Happening) -> Result<(), Error> {
        match happening.token {
            Token::Client(_) | Token::Upstream(_) => self.pump.note(happening),
            Token::Signals => self.on_signals()?,
            Token::Worker(id) => self.on_worker(id, happening),
            Token::Stderr(id) => {
                self.on_successor_stderr(id);
                if let Some(worker) = self.worker(id) {
                    worker.listen();
                }
            }
            Token::Control => self.requests.accept(&self.poller),
            Token::Requester(id) => self.on_request(id, happening),
        }
        Ok(())
    }

    fn on_signals(&mut self) -> Result<(), Error> {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            match Signal::try_from(signal.ssi_signo as i32) {
                Ok(Signal::SIGCHLD) => self.on_child()?,
                Ok(Signal::SIGTERM | Signal::SIGINT) => self.on_stop(),
                Ok(Signal::SIGQUIT) => self.on_quit(),
                Ok(Signal::SIGHUP) => self.on_reload(),
                _ => {}
            }
        }
        Ok(())
    }

    fn on_stop(&mut self) {
        if self.stopping != Stopping::No {
            self.log("told to stop again: ending now");
            self.stopping = Stopping::Now;
            return;
        }
        let grace = self.plan.stop_grace;
        self.log(&format!("told to stop: {} streams have {grace:?} left", self.pump.len()));
        notify("STOPPING=1");
        self.stopping = Stopping::Until(Instant::now() + grace);
        self.respawn_at = None;
        self.kill_successor();
        self.stop_workers(grace);
    }

    fn on_quit(&mut self) {
        self.lingers = true;
        if self.stopping == Stopping::No {
            self.on_stop();
        }
    }

    fn is_over(&self) -> bool {
        match self.stopping {
            Stopping::No => false,
            Stopping::Until(end) => {
                let is_empty = self.lingers || self.pump.len() == 0;
                (self.workers.is_empty() && is_empty) || Instant::now() >= end
            }
            Stopping::Now => true,
        }
    }

    fn end(mut self) -> Result<(), Error> {
        self.kill_all();
        if self.lingers && self.stopping != Stopping::Now && self.pump.len() > 0 {
            return self.into_lingering().go_on();
        }
        let cut = self.pump.len();
        self.pump.cut_all();
        self.log(&format!("stopped; {cut} streams were cut"));
        Ok(())
    }

    /// The time until something is due.
    fn time_left(&self) -> Option<Duration> {
        let stop = match self.stopping {
            Stopping::Until(end) => Some(end),
            _ => None,
        };
        let kills = self.workers.iter().filter_map(|worker| worker.kill_at);
        let trial = self.successor.as_ref().and_then(|successor| successor.kill_at);
        let due = kills.chain(trial).chain(self.respawn_at).chain(stop).min()?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    fn worker(&mut self, id: u32) -> Option<&mut Worker> {
        self.workers.iter_mut().find(|worker| worker.id == id)
    }

    /// Whether there are descriptors left for so many more.
    fn has_room(&self, more: usize) -> bool {
        let reserved = RESERVED_FDS.min(self.fd_limit / 4) + FEW_FDS + self.listeners.len();
        2 * self.pump.len() + self.handover.len() + more + reserved <= self.fd_limit
    }

    fn snapshot(&self) -> Snapshot {
        let ms = |since: Instant| since.elapsed().as_millis() as u64;
        let mut workers: Vec<&Worker> = self.workers.iter().collect();
        workers.sort_by_key(|worker| Some(worker.id) != self.serving);
        Snapshot {
            pid: std::process::id(),
            version: self.plan.version.clone(),
            protocol: crate::protocol::PROTOCOL,
            up_ms: ms(self.since),
            reexecs: self.counts.reexecs,
            listeners: self.listeners.iter().map(|(name, _)| name.clone()).collect(),
            workers: workers.into_iter().map(|worker| self.describe(worker)).collect(),
            worker_deaths: self.counts.worker_deaths,
            upgrades: self.counts.upgrades,
            streams_finished: self.pump.finished(),
            streams_refused: self.counts.streams_refused,
            garbled: self.counts.garbled,
            parked: self.handover.parked_len() as u64,
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

fn take_signals() -> Result<SignalFd, Error> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().map_err(Error::os("blocking signals"))?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(Error::os("signalfd"))
}

/// Raises the limit of open descriptors as far as we may, and returns it.
fn raise_fd_limit() -> usize {
    let now = getrlimit(Resource::Nofile);
    let hard = now.maximum.unwrap_or(WANTED_FDS);
    let most = hard.max(WANTED_FDS);
    // Above the hard limit only with CAP_SYS_RESOURCE, and only up to /proc/sys/fs/nr_open.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(hard), maximum: now.maximum });
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: Some(most) });
    usize::try_from(getrlimit(Resource::Nofile).current.unwrap_or(most)).unwrap_or(usize::MAX)
}
