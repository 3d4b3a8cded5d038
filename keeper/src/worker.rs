//! One worker process as the keeper sees it.
//!
//! It must never decide anything: what a worker's death or readiness means is the keeper's business.

use crate::channel::{self, Received};
use crate::child::{self, Capture};
use crate::plan::Program;
use crate::poller::{Interest, Poller, Token};
use crate::protocol::{CONTROL_FD_ENV, FromKeeper, FromWorker, PENDING_MAX};
use rustix::process::Pid;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Orders that wait for room in the control socket: beyond that the worker is not reading any more.
const OUTBOX_MAX: usize = 64;

/// Where a worker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Started; not ready yet.
    Starting,
    /// It serves since then.
    Ready(Instant),
    /// It was told to leave.
    Leaving,
}

/// An order with what belongs to it.
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
    /// Why it can't serve, as far as somebody said so.
    pub(crate) refusal: Option<String>,
    /// It said itself that it can't serve: trying it again is of no use before something changes.
    pub(crate) declined: bool,
    /// When it is killed.
    pub(crate) kill_at: Option<Instant>,
    /// Its messages are not read for now: what it hands over can't be passed on that fast.
    pub(crate) paused: bool,
    pub(crate) outbox: VecDeque<Outgoing>,
    pub(crate) interest: Interest,
}

impl Worker {
    /// Starts a worker process.
    ///
    /// # Errors
    /// What the kernel said, for instance to the exec.
    pub(crate) fn start(id: u32, program: &Program, limit: Duration, poller: &Poller) -> io::Result<Worker> {
        let (ours, theirs) = channel::pair()?;
        let env = [(CONTROL_FD_ENV, theirs.as_raw_fd().to_string())];
        let (pid, capture) = child::spawn(program, &env, theirs.as_fd())?;
        let mut worker = Worker::resume((id, pid), program.clone(), Some(ours), None);
        worker.capture = Some(capture);
        worker.kill_at = Some(worker.since + limit);
        if let Err(error) = worker.watch(poller) {
            child::kill(pid);
            return Err(error);
        }
        Ok(worker)
    }

    /// A worker process that runs already, with the descriptors that lead to it.
    pub(crate) fn resume(
        (id, pid): (u32, Pid),
        program: Program,
        socket: Option<OwnedFd>,
        stderr: Option<OwnedFd>,
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
            paused: false,
            outbox: VecDeque::new(),
            interest: Interest::Read,
        }
    }

    /// Has epoll watch its descriptors.
    pub(crate) fn watch(&self, poller: &Poller) -> io::Result<()> {
        if let Some(socket) = &self.socket {
            poller.add(socket, Token::Worker(self.id), self.interest)?;
        }
        if let Some(capture) = self.capture.as_ref().and_then(Capture::fd) {
            poller.add(capture, Token::Stderr(self.id), Interest::Read)?;
        }
        Ok(())
    }

    /// The next message, if there is one.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Received<FromWorker>>> {
        match &self.socket {
            Some(socket) => channel::receive(socket.as_fd(), buffer, 2 * PENDING_MAX),
            None => Ok(None),
        }
    }

    /// Sends an order now, or as soon as there is room. False if this worker can't be reached.
    pub(crate) fn send(&mut self, order: Outgoing, poller: &Poller) -> bool {
        if self.socket.is_none() || self.outbox.len() >= OUTBOX_MAX {
            return false;
        }
        self.outbox.push_back(order);
        self.flush(poller);
        true
    }

    /// Sends what waits for room.
    pub(crate) fn flush(&mut self, poller: &Poller) {
        while let (Some(order), Some(socket)) = (self.outbox.front(), &self.socket) {
            let fds: Vec<_> = order.fds.iter().map(AsFd::as_fd).collect();
            match channel::send(socket.as_fd(), &order.head, &[&order.bytes], &fds) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // An order that can't be sent at all would stop all others.
                _ => drop(self.outbox.pop_front()),
            }
        }
        self.adjust(poller);
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

    /// Reads what it says on stderr.
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
