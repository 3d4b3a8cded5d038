//! One worker process as the keeper sees it.
//!
//! It must never decide anything: what a worker's death or readiness means is the keeper's business.

use crate::channel::{self, Received};
use crate::child::{self, Capture};
use crate::liveness::Liveness;
use crate::plan::Program;
use crate::poller::{Interest, Poller, Token};
use crate::protocol::{CONTROL_FD_ENV, FromKeeper, FromWorker, PARKED_NOTE_MAX};
use crate::records::{self, ORDER};
use crate::shared::Shared;
use crate::shared::board::Doing;
use crate::shared::log::Key;
use rustix::io::Errno;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Orders that may wait for room in the control socket: beyond that the worker has stopped reading.
const OUTBOX_MAX: usize = 64;

/// The state of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Started; not ready yet.
    Starting,
    /// Serves since then.
    Ready(Instant),
    /// Told to leave.
    Leaving,
}

/// An order with its bytes and descriptors.
pub(crate) struct Outgoing {
    pub(crate) head: FromKeeper,
    pub(crate) bytes: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

/// One worker process.
pub(crate) struct Worker {
    pub(crate) id: u32,
    pub(crate) pid: Pid,
    pub(crate) program: Program,
    /// The control socket, until the worker has closed its end.
    pub(crate) socket: Option<OwnedFd>,
    pub(crate) capture: Option<Capture>,
    pub(crate) phase: Phase,
    pub(crate) since: Instant,
    pub(crate) version: String,
    /// Why it cannot serve, if a reason is known.
    pub(crate) refusal: Option<String>,
    /// It said itself that it cannot serve: starting it again is useless until something changes.
    pub(crate) declined: bool,
    /// When to kill it.
    pub(crate) kill_at: Option<Instant>,
    /// The questions that show whether it is alive; none for a worker of a release that does not answer them.
    pub(crate) liveness: Option<Liveness>,
    /// Its messages are not read for now: it hands over faster than we can pass on.
    pub(crate) paused: bool,
    /// It has a memory of its own, by which another one can go on with its clients.
    pub(crate) has_memory: bool,
    /// It has been told all that dead workers have left.
    pub(crate) settled: bool,
    pub(crate) outbox: VecDeque<Outgoing>,
    /// The numbers under which the first of these are recorded; 0 for one that is not.
    pub(crate) numbers: VecDeque<u64>,
    pub(crate) interest: Interest,
    /// Readable once the process has ended.
    pub(crate) process: Option<OwnedFd>,
    shared: Rc<Shared>,
}

impl Worker {
    /// Starts a worker process.
    ///
    /// # Errors
    /// The kernel's error, for instance from exec.
    pub(crate) fn start(
        id: u32,
        program: &Program,
        limit: Duration,
        (poller, shared): (&Poller, &Rc<Shared>),
    ) -> io::Result<Worker> {
        let (ours, theirs) = channel::pair()?;
        let env = [(CONTROL_FD_ENV, theirs.as_raw_fd().to_string())];
        let (pid, capture) = child::spawn(program, &env, theirs.as_fd())?;
        let mut worker = Worker::resume((id, pid), program.clone(), (Some(ours), None), shared);
        worker.capture = Some(capture);
        worker.kill_at = Some(worker.since + limit);
        if let Err(error) = worker.watch(poller) {
            child::kill(pid);
            return Err(error);
        }
        Ok(worker)
    }

    /// A worker process that already runs, with the descriptors that lead to it.
    pub(crate) fn resume(
        (id, pid): (u32, Pid),
        program: Program,
        (socket, stderr): (Option<OwnedFd>, Option<OwnedFd>),
        shared: &Rc<Shared>,
    ) -> Worker {
        Worker {
            id,
            pid,
            program,
            socket,
            capture: stderr.map(Capture::new),
            phase: Phase::Starting,
            since: Instant::now(),
            version: String::new(),
            refusal: None,
            declined: false,
            kill_at: None,
            liveness: None,
            paused: false,
            has_memory: false,
            settled: false,
            outbox: VecDeque::new(),
            numbers: VecDeque::new(),
            interest: Interest::Read,
            process: child::process(pid),
            shared: Rc::clone(shared),
        }
    }

    /// Adds its descriptors to epoll.
    pub(crate) fn watch(&self, poller: &Poller) -> io::Result<()> {
        if let Some(socket) = &self.socket {
            poller.add(socket, Token::Worker(self.id), self.interest)?;
        }
        if let Some(capture) = self.capture.as_ref().and_then(Capture::fd) {
            poller.add(capture, Token::Stderr(self.id), Interest::Read)?;
        }
        if let Some(process) = &self.process {
            // Not every worker is a child of this process, and then no SIGCHLD tells of its end.
            poller.add(process, Token::Process(self.id), Interest::ReadEdge)?;
        }
        Ok(())
    }

    /// The next message, if one is waiting. Until it is understood a successor would find it again.
    pub(crate) fn receive(&self) -> io::Result<Option<Received<FromWorker>>> {
        let Some(socket) = &self.socket else { return Ok(None) };
        self.shared.arm(Doing::Packet(self.id));
        match self.shared.board().receive_packet(socket.as_fd()) {
            Ok(raw) => Ok(Some(channel::understand(socket.as_fd(), raw, PARKED_NOTE_MAX))),
            Err(Errno::AGAIN) => Ok(None),
            Err(Errno::CONNRESET) => Ok(Some(Received::Closed)),
            Err(error) => Err(error.into()),
        }
    }

    /// How it ended, in words; none while it runs.
    pub(crate) fn ended(&self) -> Option<String> {
        match &self.process {
            Some(process) => child::ended_by(self.pid, process.as_fd()),
            None => child::ended(self.pid),
        }
    }

    /// Queues an order, which `flush` sends once it is recorded. False if this worker cannot be reached.
    pub(crate) fn send(&mut self, order: Outgoing) -> bool {
        if self.socket.is_none() || self.outbox.len() >= OUTBOX_MAX {
            return false;
        }
        self.outbox.push_back(order);
        true
    }

    /// Records the orders that were queued since the last call.
    pub(crate) fn record_orders(&mut self) {
        for order in self.outbox.iter().skip(self.numbers.len()) {
            // Questions are asked afresh, and who waits for a status asks again.
            let is_news = matches!(order.head, FromKeeper::Ask | FromKeeper::Status { .. });
            let number = if is_news { 0 } else { self.shared.next() };
            if number > 0 {
                let fds = order.fds.iter().map(AsRawFd::as_raw_fd).collect();
                let record = OrderRecord { worker: self.id, head: order.head.clone(), fds };
                let key = Key { kind: ORDER, number };
                records::put(&self.shared, key, &record, &order.bytes);
            }
            self.numbers.push_back(number);
        }
    }

    /// Sends recorded orders that wait for room. True if one was sent.
    pub(crate) fn flush(&mut self, poller: &Poller) -> bool {
        let mut has_sent = false;
        while let (Some(order), Some(socket), Some(&number)) =
            (self.outbox.front(), &self.socket, self.numbers.front())
        {
            self.shared.arm(Doing::Order(number));
            match send_counted(&self.shared, socket, order) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // An order that cannot be sent at all would block all others.
                _ => self.forget_first(),
            }
            has_sent = true;
        }
        self.adjust(poller);
        has_sent
    }

    fn forget_first(&mut self) {
        let (order, number) = (self.outbox.pop_front(), self.numbers.pop_front().unwrap_or(0));
        if number > 0 {
            self.shared.remove(Key { kind: ORDER, number });
            self.shared.bury(order.into_iter().flat_map(|order| order.fds));
            self.shared.commit();
        }
    }

    /// Takes the orders that were never sent, and drops their records.
    pub(crate) fn take_orders(&mut self) -> VecDeque<Outgoing> {
        for number in self.numbers.drain(..).filter(|number| *number > 0) {
            self.shared.remove(Key { kind: ORDER, number });
        }
        std::mem::take(&mut self.outbox)
    }

    /// Tells epoll what to watch for now.
    pub(crate) fn adjust(&mut self, poller: &Poller) {
        let wanted = match (self.paused, self.outbox.is_empty()) {
            (false, true) => Interest::Read,
            (false, false) => Interest::Both,
            (true, true) => Interest::Nothing,
            (true, false) => Interest::Write,
        };
        let Some(socket) = self.socket.as_ref().filter(|_| wanted != self.interest) else { return };
        if poller.modify(socket, Token::Worker(self.id), wanted).is_ok() {
            self.interest = wanted;
        }
    }

    /// When to check that it is alive: once it serves, and not while its messages are left unread.
    pub(crate) fn look_at(&self) -> Option<Instant> {
        let asked = self.phase != Phase::Starting && !self.paused && self.socket.is_some();
        self.liveness.filter(|_| asked).map(|liveness| liveness.due())
    }

    /// Reads its stderr.
    pub(crate) fn listen(&mut self) {
        if let Some(capture) = &mut self.capture {
            capture.read();
        }
    }

    /// Why it ended, in one line.
    pub(crate) fn obituary(&mut self, how: &str) -> String {
        if let Some(refusal) = &self.refusal {
            return refusal.clone();
        }
        let last = match (&mut self.capture, self.phase) {
            (Some(capture), Phase::Starting) => capture.last_line(),
            _ => "",
        };
        let when = if self.phase == Phase::Starting { " before it was ready" } else { "" };
        if last.is_empty() { format!("{how}{when}") } else { format!("{how}{when}: {last}") }
    }
}

/// An order that waits for room; its bytes follow it.
#[derive(Serialize, Deserialize)]
pub(crate) struct OrderRecord {
    pub(crate) worker: u32,
    pub(crate) head: FromKeeper,
    pub(crate) fds: Vec<RawFd>,
}

/// Sends an order so that a successor knows whether it was sent.
fn send_counted(shared: &Shared, socket: &OwnedFd, order: &Outgoing) -> io::Result<()> {
    let (packet, memfd) = channel::encode(&order.head, &[&order.bytes])?;
    let fds: Vec<BorrowedFd<'_>> = order.fds.iter().chain(&memfd).map(AsFd::as_fd).collect();
    shared.board().send(socket.as_fd(), &packet, &fds)?;
    Ok(())
}
