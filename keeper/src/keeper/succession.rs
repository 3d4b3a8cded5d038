//! Replacing the keeper itself: a trial child reads our state first; then execve in place, with all descriptors.
//!
//! It must never change anything before execve that can't be taken back: if that fails, this image goes on.

use super::Keeper;
use crate::child::{self, Capture};
use crate::control::UpgradeRequest;
use crate::error::Error;
use crate::plan::Program;
use crate::poller::{Interest, Token};
use crate::saved::{self, STATE_ENV, Saved, TRIAL_ENV, TRIAL_OK};
use rustix::fd::AsRawFd;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::Pid;
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

/// The number under which epoll tells of the trial's stderr; workers do not count so far.
const STDERR_ID: u32 = u32::MAX;

/// A trial of the next image, under way.
pub(super) struct Successor {
    pid: Pid,
    capture: Capture,
    program: Program,
    requester: Option<u32>,
    pub(super) kill_at: Option<Instant>,
    overdue: bool,
}

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
                self.say(requester, "the new keeper is tried on a copy of the state");
            }
            Err(error) => self.say_failed(requester, &format!("{}: {error}", program.exe.display())),
        }
    }

    fn try_out(&mut self, program: &Program) -> Result<(Pid, Capture), Error> {
        let memfd = self.save(None).0.into_memfd()?;
        let env = [(TRIAL_ENV, memfd.as_raw_fd().to_string())];
        let (pid, capture) =
            child::spawn(program, &env, memfd.as_fd()).map_err(Error::os("it can't be started"))?;
        if let Some(fd) = capture.fd() {
            self.poller.add(fd, Token::Stderr(STDERR_ID), Interest::Read).map_err(Error::os("epoll"))?;
        }
        Ok((pid, capture))
    }

    /// The trial said something.
    pub(super) fn on_successor_stderr(&mut self, id: u32) {
        if let Some(successor) = self.successor.as_mut().filter(|_| id == STDERR_ID) {
            successor.capture.read();
        }
    }

    /// SIGCHLD: has the trial ended?
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
            (_, true) => format!("the new keeper {how}, and did not say that it can take over"),
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

    /// Executes the new image. Comes back only if that failed.
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
        let path = c_string(successor.program.exe.as_os_str())?;
        let mut args = vec![path.clone()];
        for arg in &successor.program.args {
            args.push(c_string(arg)?);
        }
        let env = environment(&memfd)?;
        inherit(&kept, FdFlags::empty());
        let error = nix::unistd::execve(&path, &args, &env);
        inherit(&kept, FdFlags::CLOEXEC);
        error.map_err(Error::os("the new keeper can't be executed"))
    }

    /// All state as it is now, and the descriptors that belong to it.
    fn save(&self, requester: Option<u32>) -> (Saved, Vec<RawFd>) {
        let mut saved = Saved::new(&self.plan.version);
        saved.lock = saved.keep(&self.lock);
        saved.control = saved.keep(&self.requests.listener);
        saved.requester = self.requests.fd(requester).map(|fd| saved.keep(fd));
        for (name, fd) in &self.listeners {
            let number = saved.keep(fd);
            saved.listeners.push((name.clone(), number));
        }
        self.pump.iter().for_each(|stream| saved.add_stream(stream));
        self.workers.iter().for_each(|worker| saved.add_worker(worker));
        saved.serving = self.serving;
        saved.next_worker = self.next_worker;
        saved.failures = self.failures;
        saved.was_ready = self.was_ready;
        saved.worker_exe = Some(self.program.exe.clone());
        saved.respawn_in_ms = self.respawn_at.map(saved::until);
        saved.up_ms = saved::since(self.since);
        saved.finished = self.pump.finished();
        saved.counts = self.counts.clone();
        self.save_handover(&mut saved);
        let kept = saved.kept();
        (saved, kept)
    }
}

/// Our own environment, with the state's number.
fn environment(memfd: &OwnedFd) -> Result<Vec<CString>, Error> {
    let mut env = Vec::new();
    for (name, value) in std::env::vars_os() {
        // systemd's sockets are in the state; taking them twice would close them once too often.
        let ours = name == STATE_ENV || name == TRIAL_ENV || name.as_bytes().starts_with(b"LISTEN_");
        if !ours {
            let mut pair = name;
            pair.push("=");
            pair.push(value);
            env.push(c_string(&pair)?);
        }
    }
    env.push(c_string(OsStr::new(&format!("{STATE_ENV}={}", memfd.as_raw_fd())))?);
    Ok(env)
}

fn c_string(text: &OsStr) -> Result<CString, Error> {
    CString::new(text.as_bytes()).map_err(|_| Error::State("a zero byte in the command line".to_owned()))
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
