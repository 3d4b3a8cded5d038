//! Replaces the keeper itself: a trial child reads our state first; then execve in place, with all descriptors.
//!
//! It must never make an irreversible change before execve: if that fails, this image keeps running.

use super::Keeper;
use super::clients::Client;
use super::handover::Parked;
use super::recording::estate_record;
use super::trial::Successor;
use crate::child::{self, Capture};
use crate::control::UpgradeRequest;
use crate::error::Error;
use crate::image::Image;
use crate::plan::Program;
use crate::poller::{Interest, Token};
use crate::saved::{self, Saved, SavedClient, SavedConn, SavedParked, TRIAL_ENV, TRIAL_OK};
use crate::second::Seconds;
use rustix::fd::AsRawFd;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::Pid;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

/// The epoll number of the trial's stderr; workers never count this far.
const STDERR_ID: u32 = u32::MAX;

impl Keeper {
    pub(super) fn begin_succession(&mut self, request: &UpgradeRequest, requester: Option<u32>) {
        let exe = request.binary.clone().unwrap_or_else(|| self.plan.keeper.exe.clone());
        let program = Program { exe, args: self.plan.keeper.args.clone() };
        let limit = request.timeout_ms.map_or(self.plan.ready_timeout, Duration::from_millis);
        match self.try_out(&program) {
            Ok((pid, capture)) => {
                let kill_at = Some(Instant::now() + limit);
                self.successor =
                    Some(Successor { pid, capture, program, requester, kill_at, overdue: false });
                self.say(requester, "trying the new keeper on a copy of the state");
            }
            Err(error) => self.say_failed(requester, &format!("{}: {error}", program.exe.display())),
        }
    }

    fn try_out(&mut self, program: &Program) -> Result<(Pid, Capture), Error> {
        let memfd = self.save(None).0.into_memfd()?;
        let env = [(TRIAL_ENV, memfd.as_raw_fd().to_string())];
        let (pid, capture) =
            child::spawn(program, &env, memfd.as_fd()).map_err(Error::os("cannot start it"))?;
        if let Some(fd) = capture.fd() {
            self.poller.add(fd, Token::Stderr(STDERR_ID), Interest::Read).map_err(Error::os("epoll"))?;
        }
        Ok((pid, capture))
    }

    /// The trial printed something.
    pub(super) fn on_successor_stderr(&mut self, id: u32) {
        if let Some(successor) = self.successor.as_mut().filter(|_| id == STDERR_ID) {
            successor.capture.read();
        }
    }

    /// SIGCHLD: has the trial exited?
    pub(super) fn on_successor_child(&mut self) {
        let Some(how) = self.successor.as_ref().and_then(|successor| child::ended(successor.pid)) else {
            return;
        };
        let Some(mut successor) = self.successor.take() else { return };
        successor.capture.read();
        let last = successor.capture.last_line().to_owned();
        if last == TRIAL_OK {
            return self.succeed(&successor);
        }
        let reason = match (successor.overdue, last.is_empty()) {
            (true, _) => "the new keeper took too long to read the state".to_owned(),
            (_, true) => format!("the new keeper {how} without reporting that it can take over"),
            _ => format!("the new keeper {how}: {last}"),
        };
        self.say_failed(successor.requester, &reason);
    }

    pub(super) fn check_successor(&mut self, now: Instant) {
        let Some(successor) = &mut self.successor else { return };
        if successor.kill_at.is_some_and(|at| at <= now) {
            successor.kill_at = None;
            successor.overdue = true;
            child::kill(successor.pid);
        }
    }

    pub(super) fn kill_successor(&mut self) {
        if let Some(successor) = self.successor.take() {
            child::kill(successor.pid);
        }
    }

    /// Executes the new image. Returns only if that failed.
    fn succeed(&mut self, successor: &Successor) {
        self.say(successor.requester, "the new keeper can take over: replacing this one in place");
        let error = match self.execute(successor) {
            Ok(never) => match never {},
            Err(error) => error,
        };
        self.say_failed(successor.requester, &error.to_string());
    }

    fn execute(&mut self, successor: &Successor) -> Result<std::convert::Infallible, Error> {
        let (saved, mut kept) = self.save(successor.requester);
        let memfd = saved.into_memfd()?;
        kept.push(memfd.as_raw_fd());
        let image = Image::new(&successor.program, memfd.as_raw_fd())?;
        inherit(&kept, FdFlags::empty());
        let error = nix::unistd::execve(&image.path, &image.args, &image.env);
        inherit(&kept, FdFlags::CLOEXEC);
        error.map_err(Error::os("cannot execute the new keeper"))
    }

    /// All state as it is now, and the descriptors that belong to it.
    fn save(&self, requester: Option<u32>) -> (Saved, Vec<RawFd>) {
        let mut saved = self.base(requester);
        if let Some(second) = self.seconds.as_ref().and_then(Seconds::pid) {
            let board = saved.keep(&self.shared.board().fd());
            saved.second = Some((second.as_raw_nonzero().get(), board));
        }
        for (name, fd) in &self.listeners {
            let number = saved.keep(fd);
            saved.listeners.push((name.clone(), number));
        }
        self.pump.iter().for_each(|stream| saved.add_stream(stream));
        self.workers.iter().for_each(|worker| saved.add_worker(worker));
        self.save_handover(&mut saved);
        self.save_clients(&mut saved);
        let kept = saved.kept();
        (saved, kept)
    }

    /// What is there once.
    pub(super) fn base(&self, requester: Option<u32>) -> Saved {
        let mut saved = Saved::new(&self.plan.version);
        saved.lock = saved.keep(&self.lock);
        saved.control = saved.keep(&self.requests.listener);
        saved.requester = self.requests.fd(requester).map(|fd| saved.keep(fd));
        saved.serving = self.serving;
        saved.next_worker = self.next_worker;
        saved.failures = self.failures;
        saved.was_ready = self.was_ready;
        saved.worker_exe = Some(self.program.exe.clone());
        saved.respawn_in_ms = self.respawn_at.map(saved::until);
        saved.up_ms = saved::since(self.since);
        saved.finished = self.pump.finished();
        saved.counts = self.counts;
        saved
    }

    /// Saves all waiting clients for the next image.
    fn save_handover(&self, saved: &mut Saved) {
        for conn in self.handover.conns.values() {
            let (client, read) = (saved.keep(&conn.client), saved.add_bytes(&conn.read));
            saved.conns.push(SavedConn { listener: conn.listener.clone(), client, read });
        }
        for (&id, parked) in self.handover.parked.iter() {
            let (client, note) = (saved.keep(&parked.client), saved.add_bytes(&parked.note));
            let Parked { holder, ended, .. } = *parked;
            let unsent = parked.unsent.clone();
            saved.parked.push(SavedParked { id, client, note, unsent, holder, ended });
        }
    }

    /// Saves all clients that workers serve, and what dead ones have left, for the next image.
    fn save_clients(&self, saved: &mut Saved) {
        saved.next_client = self.clients.next;
        for (&id, client) in self.clients.all.iter() {
            let (socket, read) = (saved.keep(&client.socket), saved.add_bytes(&client.read));
            let Client { ref listener, holder, estate, .. } = *client;
            let listener = listener.to_string();
            saved.clients.push(SavedClient { id, socket, listener, holder, estate, read });
        }
        for (&worker, estate) in self.clients.estates.iter() {
            let record = estate_record(worker, estate);
            record.fds().for_each(|fd| _ = saved.keep(&fd));
            saved.estates.push(record);
        }
    }
}

/// Sets the descriptor flags of all of them.
fn inherit(fds: &[RawFd], flags: FdFlags) {
    for &fd in fds {
        // SAFETY: the numbers come from descriptors that this keeper owns and does not close before execve, or
        // before this is undone.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let _ = fcntl_setfd(fd, flags);
    }
}
