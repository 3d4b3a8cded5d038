//! What workers say, and how the keeper responds.
//!
//! It must never end the keeper: a message that makes no sense is counted, logged, and dropped.

use super::Keeper;
use super::handover::{Conn, Parked};
use crate::channel::{FDS_MAX, Packet, Received};
use crate::liveness::Liveness;
use crate::poller::Happening;
use crate::protocol::{FromKeeper, FromWorker, NOTE_MAX, PARKED_NOTE_MAX, PENDING_MAX, PROTOCOL, ResumeHead};
use crate::pump::stream::{Resume, Stream};
use crate::worker::{Outgoing, Phase};
use rustix::net::{RecvFlags, Shutdown, recv, shutdown};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Messages read from one worker in one turn: streams must have their turn too.
const TURN: usize = 32;
/// How long a worker that said `Done` has to exit.
const LEAVE: Duration = Duration::from_secs(5);

/// At most this many unread bytes are drained from a client before its connection is closed.
const UNREAD_MAX: usize = 1 << 20;

impl Keeper {
    /// Handles an event on a worker's control socket.
    pub(super) fn on_worker(&mut self, id: u32, happening: Happening) {
        let Some(at) = self.workers.iter().position(|worker| worker.id == id) else { return };
        if happening.writable {
            self.workers[at].flush(&self.poller);
        }
        if happening.readable && (!self.workers[at].paused || happening.hung_up) {
            self.read_messages(id, TURN);
        }
    }

    /// Reads up to this many messages. False if there is certainly no more.
    pub(super) fn read_messages(&mut self, id: u32, most: usize) -> bool {
        for _ in 0..most {
            let Some(at) = self.workers.iter().position(|worker| worker.id == id) else { return false };
            match self.workers[at].receive() {
                Ok(None) => return false,
                Ok(Some(Received::Packet(packet))) => self.on_message(id, packet),
                Ok(Some(Received::Garbage(reason))) => self.on_garbage(id, &reason),
                Ok(Some(Received::Cut(_))) => self.on_garbage(id, "there is no room for its descriptors"),
                Ok(Some(Received::Closed)) | Err(_) => {
                    self.on_closed(at);
                    return false;
                }
            }
            self.understood();
        }
        true
    }

    /// A worker that has closed its control socket is out of reach: it is about to exit, one way or another.
    fn on_closed(&mut self, at: usize) {
        let worker = &mut self.workers[at];
        self.shared.bury(worker.socket.take());
        let soon = Instant::now() + Duration::from_secs(1);
        worker.kill_at = Some(worker.kill_at.map_or(soon, |at| at.min(soon)));
    }

    pub(super) fn on_garbage(&mut self, id: u32, reason: &str) {
        self.counts.garbled += 1;
        // A flood of garbage must not become a flood of lines.
        if self.counts.garbled <= 10 || self.counts.garbled.is_power_of_two() {
            self.log(&format!(
                "worker {id} said something unintelligible ({}): {reason}",
                self.counts.garbled
            ));
        }
    }

    pub(super) fn on_message(&mut self, id: u32, packet: Packet<FromWorker>) {
        match packet.head {
            FromWorker::Hello { protocol, ref version, alive, .. } => {
                if let Some(worker) = self.worker(id).filter(|_| alive) {
                    worker.liveness = Some(Liveness::new(Instant::now()));
                }
                self.on_hello(id, protocol, version);
            }
            FromWorker::Ready => self.on_ready(id),
            FromWorker::Refuse { ref reason } => {
                if let Some(worker) = self.worker(id) {
                    worker.refusal = Some(one_line(reason));
                    worker.declined = true;
                }
            }
            FromWorker::Stream { .. } => self.on_stream(id, packet),
            FromWorker::Status { id: question } => self.on_status(id, question),
            FromWorker::Conn { listener } => self.on_conn(id, listener, packet.bytes, packet.fds),
            FromWorker::Park { id: number } => self.on_park(id, number, packet.bytes, packet.fds),
            FromWorker::Unpark { id: number } => {
                // Without `ended` it is a connection that its worker still serves.
                if let Some(parked) = self.handover.parked.remove(number) {
                    parked.ended.is_some().then(|| self.let_go(&parked.client));
                    self.shared.bury([parked.client]);
                }
            }
            FromWorker::Release => self.handover.release_ended(id),
            FromWorker::Memory => self.on_memory(id, packet.fds),
            FromWorker::Hold { key } => self.on_hold(id, key, packet.fds),
            FromWorker::Drop { key } => self.clients.drop_held(id, key),
            FromWorker::Taken { client } => self.clients.taken(client, id),
            FromWorker::GiveBack { client } => self.clients.give_back(client, id, packet.bytes),
            FromWorker::End { client } => self.end_client(client),
            FromWorker::Done => self.on_done(id),
            FromWorker::Alive => {
                if let Some(liveness) = self.worker(id).and_then(|worker| worker.liveness.as_mut()) {
                    liveness.answered();
                }
            }
        }
    }

    fn on_hello(&mut self, id: u32, protocol: u32, version: &str) {
        let refused = protocol != PROTOCOL;
        let Some(worker) = self.workers.iter_mut().find(|worker| worker.id == id) else { return };
        worker.version = one_line(version);
        if refused {
            let reason = format!("it speaks protocol {protocol}, the keeper {PROTOCOL}");
            worker.refusal = Some(reason.clone());
            worker.declined = true;
            worker.kill_at = Some(Instant::now() + Duration::from_secs(1));
            let head = FromKeeper::Refused { reason, protocol: PROTOCOL };
            worker.send(Outgoing { head, bytes: Vec::new(), fds: Vec::new() });
            return;
        }
        self.upgrade_progress(id, &format!("worker {id} is version {}", one_line(version)));
        match self.welcome() {
            Ok(parts) => {
                let Some(worker) = self.workers.iter_mut().find(|worker| worker.id == id) else { return };
                for part in parts {
                    worker.send(part);
                }
            }
            Err(error) => self.log(&format!("worker {id} could not be given its sockets: {error}")),
        }
    }

    /// The sockets, in as many messages as they need, and our stderr.
    fn welcome(&self) -> std::io::Result<Vec<Outgoing>> {
        let chunks: Vec<_> = self.listeners.chunks(FDS_MAX).collect();
        let mut parts = Vec::new();
        for number in 0..chunks.len().max(1) {
            let chunk = chunks.get(number).copied().unwrap_or_default();
            let last = number + 1 >= chunks.len();
            let mut fds =
                chunk.iter().map(|(_, fd)| fd.try_clone()).collect::<std::io::Result<Vec<OwnedFd>>>()?;
            if last {
                fds.push(std::io::stderr().as_fd().try_clone_to_owned()?);
            }
            let head = FromKeeper::Welcome {
                protocol: PROTOCOL,
                version: self.plan.version.clone(),
                sockets: chunk.iter().map(|(name, _)| name.clone()).collect(),
                stderr: last,
                more: !last,
                note_max: PARKED_NOTE_MAX,
                inputs: true,
            };
            parts.push(Outgoing { head, bytes: Vec::new(), fds });
        }
        Ok(parts)
    }

    fn on_stream(&mut self, id: u32, mut packet: Packet<FromWorker>) {
        let FromWorker::Stream { label, to_upstream, resume, replaces, held, input } = packet.head else {
            return;
        };
        if let Some(held) = held {
            let former = self.clients.remove(held, &self.poller);
            self.shared.bury(former.map(|client| client.socket));
        }
        let mut unsent = Vec::new();
        if let Some(former) = replaces.and_then(|parked| self.handover.parked.remove(parked)) {
            self.shared.bury([former.client]);
            unsent = former.unsent;
        }
        let mut to_upstream_bytes = packet.bytes;
        let note = resume.map_or(0, |resume| resume.note);
        let fits = note <= NOTE_MAX
            && to_upstream <= PENDING_MAX
            && (to_upstream + note..=to_upstream + note + PENDING_MAX).contains(&to_upstream_bytes.len());
        let input = if input { packet.fds.pop() } else { None };
        let Ok([client, upstream]) = <[OwnedFd; 2]>::try_from(packet.fds) else {
            return self.refuse_stream(id, &label, "it came without its sockets");
        };
        if !fits {
            return self.refuse_stream(id, &label, "the lengths of its pending bytes are wrong");
        }
        if !self.has_room(2 + usize::from(input.is_some())) {
            return self.refuse_stream(id, &label, "no descriptors are left");
        }
        let to_client = to_upstream_bytes.split_off(to_upstream + note);
        let note = to_upstream_bytes.split_off(to_upstream);
        unsent.append(&mut to_upstream_bytes);
        unsent.shrink_to_fit();
        let pending = [unsent, to_client];
        let mut stream = Stream::new(&label, client, upstream, pending).with_input(input);
        if let Some(ResumeHead { position, hold_upstream, .. }) = resume {
            stream = stream.resumable(Resume { note, hold_upstream }, position);
        }
        if let Err(error) = self.pump.add(&self.poller, stream) {
            self.refuse_stream(id, &label, &error.to_string());
        }
    }

    /// The stream's sockets are closed by now: its client sees the connection end.
    fn refuse_stream(&mut self, id: u32, label: &str, reason: &str) {
        self.counts.streams_refused += 1;
        let count = self.counts.streams_refused;
        if count <= 10 || count.is_power_of_two() {
            self.log(&format!("stream {label:?} of worker {id} refused ({count}): {reason}"));
        }
    }

    fn on_status(&mut self, id: u32, question: u64) {
        let bytes = serde_json::to_vec(&self.snapshot()).unwrap_or_default();
        let Some(worker) = self.workers.iter_mut().find(|worker| worker.id == id) else { return };
        let head = FromKeeper::Status { id: question };
        // A requester that does not read its answers loses them: the outbox is bounded.
        worker.send(Outgoing { head, bytes, fds: Vec::new() });
    }

    fn on_conn(&mut self, id: u32, listener: String, read: Vec<u8>, mut fds: Vec<OwnedFd>) {
        match fds.pop() {
            // From a worker of an earlier release, which accepted it itself.
            Some(client) if (self.plan.accepts)(&listener) => {
                self.clients.admit(client, listener.into(), read, &self.poller);
            }
            Some(client) if fds.is_empty() && read.len() <= PENDING_MAX && self.has_room(1) => {
                self.handover.push(Conn { listener, client, read });
            }
            _ => self.on_garbage(id, "a connection that cannot be handed over"),
        }
    }

    fn on_park(&mut self, id: u32, number: u64, note: Vec<u8>, mut fds: Vec<OwnedFd>) {
        match fds.pop() {
            // Its descriptor is here already: turning it away for want of room would drop a client that its worker
            // believes is kept.
            Some(client) if fds.is_empty() && note.len() <= PARKED_NOTE_MAX => {
                let (holder, unsent) = (Some(id), Vec::new());
                self.handover.parked.insert(number, Parked { client, note, unsent, holder, ended: None });
            }
            _ => self.on_garbage(id, "a client that cannot be parked"),
        }
    }

    fn on_done(&mut self, id: u32) {
        self.handover.release(id);
        if let Some(worker) = self.worker(id).filter(|worker| worker.phase == Phase::Leaving) {
            worker.kill_at = Some(Instant::now() + LEAVE);
        }
    }

    /// Gives the serving worker the clients that wait for it.
    pub(super) fn deliver(&mut self) {
        let Some(id) = self.serving else { return };
        let Some(worker) = self.workers.iter_mut().find(|worker| worker.id == id) else { return };
        if worker.socket.is_none() {
            return;
        }
        if !matches!(worker.phase, Phase::Ready(_)) {
            return self.deliver_clients(id);
        }
        while worker.outbox.is_empty() {
            let Some(order) = self.handover.next_for(id) else { break };
            worker.send(order);
        }
        self.deliver_clients(id);
        let crowded = self.handover.is_crowded();
        for leaving in self.workers.iter_mut().filter(|worker| worker.phase == Phase::Leaving) {
            leaving.paused = crowded;
            leaving.adjust(&self.poller);
        }
    }

    /// Ends a client's connection as the end of a stream does: closing a socket with unread bytes would send the client
    /// a reset, which discards what it has not read yet.
    pub(super) fn let_go(&mut self, client: &OwnedFd) {
        let _ = shutdown(client, Shutdown::Both);
        let mut left = UNREAD_MAX;
        while left > 0
            && let Ok((read @ 1.., _)) = recv(client, &mut self.buffer[..], RecvFlags::DONTWAIT)
        {
            left = left.saturating_sub(read);
        }
    }
}

/// Turns what a worker says into one line of our log.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(500).collect()
}
