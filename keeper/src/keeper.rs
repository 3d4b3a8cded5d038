//! The keeper: one thread, one epoll loop, and all state in one struct, so that it can be saved between two turns.
//!
//! It must never wait anywhere but in `Poller::wait`, and never exit because of what a worker, a client or an engine
//! does.

mod accepting;
mod answers;
mod clients;
mod handover;
mod lingering;
mod marks;
mod messages;
mod recording;
mod requests;
mod resume;
mod snapshot;
mod standby;
mod succession;
mod trial;
mod upgrade;
mod workers;

use crate::bind;
use crate::channel::PACKET_MAX;
use crate::control::CONTROL_SOCKET;
use crate::error::Error;
use crate::keeper::clients::Clients;
use crate::keeper::handover::Handover;
use crate::keeper::marks::Recorded;
use crate::keeper::requests::Requests;
use crate::keeper::trial::{Successor, Upgrade};
use crate::notify::notify;
use crate::plan::{Plan, Program};
use crate::poller::{Happening, Interest, Poller, Token};
use crate::pump::Pump;
use crate::saved::{Loaded, STATE_ENV, TRIAL_ENV, TRIAL_OK};
use crate::second::Seconds;
use crate::shared::Shared;
use crate::status::Counts;
use crate::takeover;
use crate::worker::Worker;
use nix::sys::signal::{SigHandler, SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Descriptors that streams must leave free: for sockets, workers, pipes, upgrades.
const RESERVED_FDS: usize = 512;
/// The keeper's own: epoll, signals, lock, control socket, standard streams.
const FEW_FDS: usize = 16;
/// What the descriptor limit is raised to where that is allowed.
const WANTED_FDS: u64 = 262_144;
/// Where the limit is higher than this, not all of it is used for streams.
const MOST_FDS: usize = 4 << 20;

/// Shutdown state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopping {
    No,
    /// Told to stop; everything is cut at that moment.
    Until(Instant),
    /// Told twice.
    Now,
}

/// All state.
struct Keeper {
    plan: Plan,
    poller: Poller,
    signals: SignalFd,
    lock: OwnedFd,
    listeners: Vec<(String, OwnedFd)>,
    /// What a successor finds after a kill.
    shared: Rc<Shared>,
    pump: Pump,
    workers: Vec<Worker>,
    next_worker: u32,
    /// The worker that serves, or that will serve once it is ready.
    serving: Option<u32>,
    /// The upgrade under way, if there is one.
    upgrade: Option<Upgrade>,
    /// The trial run of the keeper's next image, if one is under way.
    successor: Option<Successor>,
    /// The program that replaces a worker that died.
    program: Program,
    requests: Requests,
    /// How many workers in a row died before they were ready; decides the pause.
    failures: usize,
    respawn_at: Option<Instant>,
    /// True once any worker was ready.
    was_ready: bool,
    handover: Handover,
    clients: Clients,
    /// The listeners of accepted clients are watched.
    accepting: bool,
    recorded: Recorded,
    /// None where the kernel is too old.
    seconds: Option<Seconds>,
    /// When to start another second.
    second_at: Option<Instant>,
    second_since: Instant,
    /// The process for which the second's file is away, and until when at most.
    hidden_from: Option<(Pid, Instant)>,
    counts: Counts,
    since: Instant,
    stopping: Stopping,
    /// Streams outlive this process.
    lingers: bool,
    fd_limit: usize,
    buffer: Box<[u8]>,
}

/// Binds the plan's sockets, starts a worker, and runs until SIGTERM or SIGINT: the first one stops the workers and
/// gives streams the plan's grace; a second one exits at once. SIGQUIT stops the workers, and leaves the streams to a
/// process that exits with the last of them. Socket files stay: the next start replaces them.
///
/// Call it in a process with no other threads. It blocks SIGCHLD, SIGTERM, SIGINT, SIGQUIT and SIGHUP.
///
/// # Errors
/// If a socket cannot be created, another keeper holds the runtime directory, or the very first worker cannot be
/// started or refuses its configuration.
pub fn run(plan: Plan) -> Result<(), Error> {
    if let Ok(number) = std::env::var(TRIAL_ENV) {
        Loaded::read(&number)?;
        eprintln!("{TRIAL_OK}");
        return Ok(());
    }
    let mut keeper = match std::env::var(STATE_ENV) {
        Ok(number) => Keeper::resume(plan, takeover::load(&number)?)?,
        Err(_) => Keeper::begin(plan)?,
    };
    let result = keeper.turn_until_end();
    keeper.stand_down();
    result.and_then(|()| keeper.end())
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
        keeper.stand_by(None);
        Ok(keeper)
    }

    /// A keeper that holds nothing yet.
    fn with(plan: Plan, lock: OwnedFd, control: OwnedFd) -> Result<Keeper, Error> {
        let signals = take_signals()?;
        let poller = Poller::new().map_err(Error::os("epoll"))?;
        let fd_limit = raise_fd_limit();
        let shared = Rc::new(Shared::new(fd_limit.min(MOST_FDS) / 2).map_err(Error::os("shared memory"))?);
        poller.add(&signals, Token::Signals, Interest::Read).map_err(Error::os("signalfd"))?;
        Ok(Keeper {
            program: plan.worker.clone(),
            requests: Requests::new(control, &poller)?,
            plan,
            poller,
            signals,
            lock,
            listeners: Vec::new(),
            pump: Pump::new(Rc::clone(&shared)),
            shared,
            workers: Vec::new(),
            next_worker: 0,
            serving: None,
            upgrade: None,
            successor: None,
            failures: 0,
            respawn_at: None,
            was_ready: false,
            clients: Clients::default(),
            accepting: false,
            handover: Handover::default(),
            recorded: Recorded::default(),
            seconds: None,
            second_at: None,
            second_since: Instant::now(),
            hidden_from: None,
            counts: Counts::default(),
            since: Instant::now(),
            stopping: Stopping::No,
            lingers: false,
            fd_limit,
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
        self.check_deadlines()?;
        self.mind_listeners();
        self.deliver_all();
        Ok(())
    }

    /// Gives the worker what waits for it, until there is no more, or no room.
    fn deliver_all(&mut self) {
        self.settle();
        loop {
            self.deliver();
            if !self.settle() {
                return;
            }
        }
    }

    fn handle(&mut self, happening: Happening) -> Result<(), Error> {
        match happening.token {
            Token::Client(_) | Token::Upstream(_) | Token::Input(_) => {
                self.pump.note(happening);
                return Ok(());
            }
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
            Token::Accept(at) => self.accept(at),
            Token::Held(id) => self.on_client(id, happening),
            Token::Process(_) => self.on_child()?,
        }
        self.settle();
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
            self.log("told to stop again: exiting now");
            self.stopping = Stopping::Now;
            return;
        }
        let grace = self.plan.stop_grace;
        self.log(&format!("told to stop: {} streams have {grace:?} to finish", self.pump.len()));
        notify("STOPPING=1");
        self.stopping = Stopping::Until(Instant::now() + grace);
        self.stand_down();
        self.stop_accepting();
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

    /// The time until the next deadline.
    fn time_left(&self) -> Option<Duration> {
        let stop = match self.stopping {
            Stopping::Until(end) => Some(end),
            _ => None,
        };
        let kills = self.workers.iter().filter_map(|worker| worker.kill_at);
        let looks = self.workers.iter().filter_map(Worker::look_at);
        let trial = self.successor.as_ref().and_then(|successor| successor.kill_at);
        let due = kills
            .chain(looks)
            .chain(trial)
            .chain(self.respawn_at)
            .chain(self.second_at)
            .chain(self.show_second_at())
            .chain(stop)
            .min()?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    fn worker(&mut self, id: u32) -> Option<&mut Worker> {
        self.workers.iter_mut().find(|worker| worker.id == id)
    }

    /// Whether that many more descriptors are available.
    fn has_room(&self, more: usize) -> bool {
        more <= self.room()
    }

    /// Descriptors that are available for clients.
    fn room(&self) -> usize {
        let reserved = RESERVED_FDS.min(self.fd_limit / 4) + FEW_FDS + self.listeners.len();
        let used = self.pump.descriptors() + self.handover.len() + self.clients.descriptors();
        self.fd_limit.saturating_sub(reserved + used)
    }
}

fn take_signals() -> Result<SignalFd, Error> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().map_err(Error::os("blocking signals"))?;
    // A shell without job control has its background jobs ignore SIGQUIT, and no signalfd hears of an ignored signal.
    // SAFETY: the default action is no function of ours.
    unsafe { nix::sys::signal::signal(Signal::SIGQUIT, SigHandler::SigDfl) }.map_err(Error::os("SIGQUIT"))?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(Error::os("signalfd"))
}

/// Raises the limit of open descriptors as far as allowed, and returns it.
fn raise_fd_limit() -> usize {
    let now = getrlimit(Resource::Nofile);
    let hard = now.maximum.unwrap_or(WANTED_FDS);
    let most = hard.max(WANTED_FDS);
    // Above the hard limit only with CAP_SYS_RESOURCE, and only up to /proc/sys/fs/nr_open.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(hard), maximum: now.maximum });
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: Some(most) });
    usize::try_from(getrlimit(Resource::Nofile).current.unwrap_or(most)).unwrap_or(usize::MAX)
}
