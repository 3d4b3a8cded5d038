//! The keeper's side of the second: starts it, starts it again, and takes over from a keeper that was killed.
//!
//! It must never move a byte, send an order or close a descriptor of the former keeper's before that one's second is gone.

use super::{Keeper, Stopping};
use crate::channel::{self, Received};
use crate::notify::notify;
use crate::protocol::PARKED_NOTE_MAX;
use crate::saved::Loaded;
use crate::second::{self, Seconds};
use crate::shared::board::Board;
use crate::takeover::Killed;
use rustix::io::{FdFlags, fcntl_getfd};
use rustix::net::{SocketAddrAny, getsockname, sockopt};
use rustix::process::{Pid, test_kill_process};
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// systemd's `PIDFile=`: read again when the main process has died, it names the one that goes on.
const PID_FILE: &str = "second.pid";
/// The least time between two starts.
const PAUSE: Duration = Duration::from_millis(500);
/// How often to look whether a process was reaped, and for how long at most.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
const HIDDEN_AT_MOST: Duration = Duration::from_secs(5);

impl Keeper {
    /// Makes ready what seconds need, and starts the first. `before`: the board that counts until then, and the second
    /// that watches it.
    pub(super) fn stand_by(&mut self, before: Option<(Board, i32)>) {
        self.record();
        self.shared.commit();
        match Seconds::new(&self.plan.keeper, &self.shared) {
            Ok(seconds) => self.seconds = Some(seconds),
            Err(error) => self.log(&format!("no second watches this keeper: {error}")),
        }
        self.start_second(before.as_ref().map(|(board, _)| board));
        if let Some((board, watcher)) = before {
            board.set_over();
            if let Some(watcher) = Pid::from_raw(watcher).filter(|_| watcher > 0) {
                second::end(watcher);
            }
        }
    }

    fn start_second(&mut self, before: Option<&Board>) {
        let Some(seconds) = &mut self.seconds else { return };
        self.second_at = None;
        match seconds.start(self.shared.board(), before) {
            Ok(pid) => {
                self.second_since = Instant::now();
                self.name_second(pid);
            }
            Err(error) => {
                self.second_at = Some(Instant::now() + PAUSE);
                self.log(&format!("cannot start a second: {error}"));
            }
        }
    }

    /// systemd reads the file also when a process of `ExecReload=` has ended, and would take the second for the main process
    /// from then on. So there is no file from the last word to such a process until it was reaped.
    pub(super) fn hide_second(&mut self, requester: Option<u32>) {
        let peer = self.requests.fd(requester).and_then(|fd| sockopt::socket_peercred(fd).ok());
        let has_second = self.seconds.as_ref().is_some_and(|seconds| seconds.pid().is_some());
        if let Some(peer) = peer.filter(|_| has_second && std::env::var_os("NOTIFY_SOCKET").is_some()) {
            let _ = fs::remove_file(self.plan.runtime_dir.join(PID_FILE));
            self.hidden_from = Some((peer.pid, Instant::now() + HIDDEN_AT_MOST));
        }
    }

    /// When to look again whether that process was reaped.
    pub(super) fn show_second_at(&self) -> Option<Instant> {
        self.hidden_from.map(|_| Instant::now() + LOOK_AGAIN)
    }

    fn show_second(&mut self, now: Instant) {
        let Some((pid, until)) = self.hidden_from else { return };
        if now < until && test_kill_process(pid).is_ok() {
            return;
        }
        self.hidden_from = None;
        if let Some(pid) = self.seconds.as_ref().and_then(Seconds::pid) {
            self.name_second(pid);
        }
    }

    fn name_second(&mut self, pid: Pid) {
        if self.hidden_from.is_some() {
            return;
        }
        let (file, new) = (self.plan.runtime_dir.join(PID_FILE), self.plan.runtime_dir.join(".second.pid"));
        let written =
            fs::write(&new, format!("{}\n", pid.as_raw_nonzero())).and_then(|()| fs::rename(&new, &file));
        if let Err(error) = written {
            self.log(&format!("cannot write {}: {error}", file.display()));
        }
    }

    /// SIGCHLD: has the second died?
    pub(super) fn on_second_child(&mut self) {
        let has_died = self.seconds.as_mut().is_some_and(Seconds::has_died);
        if has_died && self.stopping == Stopping::No {
            self.log("the second was killed: starting another one");
            self.second_at = Some(Instant::now().max(self.second_since + PAUSE));
        }
    }

    pub(super) fn check_second(&mut self, now: Instant) {
        self.show_second(now);
        if self.second_at.is_some_and(|at| at <= now) {
            self.start_second(None);
        }
    }

    /// This keeper ends on purpose.
    pub(super) fn stand_down(&mut self) {
        self.shared.set_over();
        self.second_at = None;
        if let Some(mut seconds) = self.seconds.take() {
            let _ = fs::remove_file(self.plan.runtime_dir.join(PID_FILE));
            seconds.end();
        }
    }

    /// What a killed keeper was doing is done, and its other descriptors are closed.
    pub(super) fn finish_for(&mut self, killed: Killed, loaded: &Loaded) {
        self.counts.takeovers += u64::from(killed.board.takeovers());
        name_process(&self.plan.keeper.exe);
        if let Some(worker) = killed.packet {
            self.understand_again(worker, &killed.board);
        }
        self.adopt(unknown(loaded));
        let (pid, count) = (std::process::id(), self.counts.takeovers);
        self.log(&format!("the keeper was killed: process {pid} goes on in its place (takeover {count})"));
        // Until systemd has heard of the death, the file names this process.
        let former =
            Pid::from_raw(killed.board.keeper()).filter(|_| std::env::var_os("NOTIFY_SOCKET").is_some());
        self.hidden_from = former.map(|pid| (pid, Instant::now() + HIDDEN_AT_MOST));
        let watcher = killed.board.watcher();
        self.stand_by(Some((killed.board, watcher)));
        notify(&format!("MAINPID={pid}"));
    }

    /// Clients that were accepted and not recorded are as good as any. All else goes: a pipe, an epoll, a connection that was
    /// about to be closed.
    fn adopt(&mut self, unknown: Vec<OwnedFd>) {
        let mut known = self.known_inodes();
        let accepts = self.plan.accepts;
        let listeners: Vec<(String, Option<SocketAddrAny>)> = self
            .listeners
            .iter()
            .filter(|(name, _)| accepts(name))
            .map(|(name, fd)| (name.clone(), address(fd)))
            .collect();
        for fd in unknown {
            let at = address(&fd).filter(|_| sockopt::socket_acceptconn(&fd) == Ok(false));
            let came_by = listeners.iter().find(|(_, address)| at.is_some() && *address == at);
            // One that was on its way to a worker has two descriptors.
            let Some((name, _)) = came_by else { continue };
            if inode(&fd).is_some_and(|inode| known.insert(inode)) {
                let _ = rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC);
                self.clients.admit(fd, name.as_str().into(), Vec::new(), &self.poller);
            }
        }
    }

    /// The sockets of all clients that have a record of any kind.
    fn known_inodes(&self) -> BTreeSet<u64> {
        let clients = self.clients.all.values().map(|client| client.socket.as_fd());
        let conns = self.handover.conns.values().map(|conn| conn.client.as_fd());
        let parked = self.handover.parked.values().map(|parked| parked.client.as_fd());
        let streams = self.pump.iter().map(|stream| stream.client());
        clients.chain(conns).chain(parked).chain(streams).filter_map(inode).collect()
    }

    fn understand_again(&mut self, id: u32, board: &Board) {
        let Some(socket) = self.worker(id).and_then(|worker| worker.socket.as_ref()) else { return };
        // SAFETY: the keeper that received it is gone, and this is done once, before anything else is opened.
        let raw = unsafe { board.packet() };
        if let Received::Packet(packet) = channel::understand(socket.as_fd(), raw, PARKED_NOTE_MAX) {
            self.on_message(id, packet);
        }
    }
}

/// What the second left open for this image and no record names.
fn unknown(loaded: &Loaded) -> Vec<OwnedFd> {
    let Ok(listing) = fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let names = listing.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<RawFd>().ok());
    let numbers: Vec<RawFd> = names.filter(|number| *number > 2 && !loaded.has_taken(*number)).collect();
    let is_inherited = |number: &RawFd| {
        // SAFETY: only borrowed for one call, which is safe for any number.
        let flags = fcntl_getfd(unsafe { BorrowedFd::borrow_raw(*number) });
        // What this image opened itself is close-on-exec.
        flags.is_ok_and(|flags| !flags.contains(FdFlags::CLOEXEC))
    };
    let inherited = numbers.into_iter().filter(is_inherited);
    // SAFETY: open, inherited, and without an owner: all that have one are close-on-exec by now.
    inherited.map(|number| unsafe { OwnedFd::from_raw_fd(number) }).collect()
}

fn inode(fd: impl AsFd) -> Option<u64> {
    rustix::fs::fstat(fd).ok().map(|stat| stat.st_ino)
}

/// The address to which a socket is bound, and so are those that it accepts.
fn address(fd: impl AsFd) -> Option<SocketAddrAny> {
    getsockname(fd).ok()
}

/// The kernel names a process that was executed by a descriptor after that.
fn name_process(exe: &std::path::Path) {
    use std::os::unix::ffi::OsStrExt;
    let name = exe.file_name().and_then(|name| std::ffi::CString::new(name.as_bytes()).ok());
    if let Some(name) = name {
        let _ = nix::sys::prctl::set_name(&name);
    }
}
