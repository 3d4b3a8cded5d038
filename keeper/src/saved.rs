//! The keeper's whole state as bytes, for its next image: written to a memfd before execve, read after it.
//!
//! The memfd holds the length of a JSON text (u64, little endian), that text, and then the bytes of all streams and
//! connections in the order in which the text names their lengths.
//!
//! It must never change so that an older image's state becomes unreadable: new fields have defaults, a new meaning has
//! a new `FORMAT`.

mod clients;
mod recorded;

pub(crate) use self::clients::{SavedClient, SavedConn, SavedEstate, SavedParked};

use crate::error::Error;
use crate::liveness::Liveness;
use crate::plan::Program;
use crate::position::Position;
use crate::protocol::{FromKeeper, PROTOCOL};
use crate::pump::flow::{Flow, Phase as FlowPhase};
use crate::pump::pipes::Pipe;
use crate::pump::stream::{Resume, Stream};
use crate::shared::Shared;
use crate::status::Counts;
use crate::worker::{Outgoing, Phase, Worker};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Holds the memfd's number, for an image that takes over.
pub(crate) const STATE_ENV: &str = "SELVEDGE_KEEPER_STATE";
/// Holds the memfd's number, for a child that only checks whether it could take over.
pub(crate) const TRIAL_ENV: &str = "SELVEDGE_KEEPER_TRIAL";
/// What such a child prints if it could.
pub(crate) const TRIAL_OK: &str = "selvedge keeper trial: the state can be taken over";

const FORMAT: u32 = 1;

/// The state.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Saved {
    format: u32,
    pub(crate) version: String,
    /// The protocol that the workers speak.
    pub(crate) protocol: u32,
    pub(crate) lock: RawFd,
    pub(crate) control: RawFd,
    pub(crate) requester: Option<RawFd>,
    pub(crate) listeners: Vec<(String, RawFd)>,
    pub(crate) streams: Vec<SavedStream>,
    pub(crate) workers: Vec<SavedWorker>,
    pub(crate) conns: Vec<SavedConn>,
    pub(crate) parked: Vec<SavedParked>,
    pub(crate) clients: Vec<SavedClient>,
    pub(crate) estates: Vec<SavedEstate>,
    pub(crate) next_client: u64,
    pub(crate) serving: Option<u32>,
    pub(crate) next_worker: u32,
    pub(crate) worker_exe: Option<PathBuf>,
    pub(crate) respawn_in_ms: Option<u64>,
    pub(crate) failures: usize,
    pub(crate) was_ready: bool,
    pub(crate) up_ms: u64,
    pub(crate) finished: u64,
    pub(crate) counts: Counts,
    /// The worker on trial, of a keeper that was killed.
    pub(crate) upgrade: Option<u32>,
    /// The keeper that was killed tried its next image.
    pub(crate) tries_image: bool,
    /// The second of the former image.
    pub(crate) second: Option<(i32, RawFd)>,
    #[serde(skip)]
    bytes: Vec<u8>,
    #[serde(skip)]
    kept: Vec<RawFd>,
}

/// A stream; its pending bytes are in the byte part.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedStream {
    pub(crate) label: String,
    pub(crate) age_ms: u64,
    pub(crate) ends: [RawFd; 2],
    pub(crate) flows: [SavedFlow; 2],
    #[serde(default)]
    pub(crate) resume: Option<SavedResume>,
    /// An older image ignores it and goes on with the output alone; `hold_upstream` is what keeps the upstream open there.
    #[serde(default)]
    pub(crate) input: Option<RawFd>,
}

/// How to resume a stream; the note is in the byte part.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedResume {
    pub(crate) note: usize,
    pub(crate) position: Position,
    pub(crate) hold_upstream: bool,
    #[serde(default)]
    pub(crate) upstream_gone_at: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedFlow {
    pub(crate) pending: usize,
    /// Read end, write end, bytes in it.
    pub(crate) pipe: Option<(RawFd, RawFd, usize)>,
    pub(crate) phase: FlowPhase,
    pub(crate) moved: u64,
}

/// A worker; the bytes of its orders are in the byte part.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedWorker {
    id: u32,
    pid: i32,
    exe: PathBuf,
    args: Vec<OsString>,
    socket: Option<RawFd>,
    stderr: Option<RawFd>,
    leaving: bool,
    ready_ms: Option<u64>,
    age_ms: u64,
    version: String,
    refusal: Option<String>,
    declined: bool,
    kill_in_ms: Option<u64>,
    #[serde(default)]
    alive: bool,
    #[serde(default)]
    has_memory: bool,
    #[serde(default)]
    settled: bool,
    outbox: Vec<(FromKeeper, usize, Vec<RawFd>)>,
}

/// Milliseconds since then.
pub(crate) fn since(then: Instant) -> u64 {
    then.elapsed().as_millis() as u64
}

/// Milliseconds until then.
pub(crate) fn until(then: Instant) -> u64 {
    then.saturating_duration_since(Instant::now()).as_millis() as u64
}

/// The instant that many milliseconds ago.
pub(crate) fn ago(ms: u64) -> Instant {
    let now = Instant::now();
    now.checked_sub(Duration::from_millis(ms)).unwrap_or(now)
}

/// The instant in that many milliseconds.
pub(crate) fn ahead(ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(ms)
}

impl Saved {
    pub(crate) fn new(version: &str) -> Saved {
        Saved { format: FORMAT, version: version.to_owned(), protocol: PROTOCOL, ..Saved::default() }
    }

    /// Marks a descriptor for the next image to inherit.
    pub(crate) fn keep(&mut self, fd: &impl AsRawFd) -> RawFd {
        self.kept.push(fd.as_raw_fd());
        fd.as_raw_fd()
    }

    /// All marked descriptors.
    pub(crate) fn kept(&self) -> Vec<RawFd> {
        self.kept.clone()
    }

    /// Adds bytes, and returns their length.
    pub(crate) fn add_bytes(&mut self, bytes: &[u8]) -> usize {
        self.bytes.extend_from_slice(bytes);
        bytes.len()
    }

    pub(crate) fn add_stream(&mut self, stream: &Stream) {
        let ends = [self.keep(&stream.ends[0].fd), self.keep(&stream.ends[1].fd)];
        let flows = [self.save_flow(&stream.flows[0]), self.save_flow(&stream.flows[1])];
        let (label, age_ms) = (stream.label.to_string(), since(stream.since));
        let resume = stream.resume.as_ref().map(|resume| SavedResume {
            note: self.add_bytes(&resume.note),
            position: stream.flows[1].position(),
            hold_upstream: resume.hold_upstream,
            upstream_gone_at: stream.ends[1].gone_at,
        });
        let input = stream.input.as_ref().map(|input| self.keep(&input.fd));
        self.streams.push(SavedStream { label, age_ms, ends, flows, resume, input });
    }

    fn save_flow(&mut self, flow: &Flow) -> SavedFlow {
        let pipe = flow.pipe().map(|pipe| (self.keep(&pipe.reader), self.keep(&pipe.writer), pipe.held));
        let pending = self.add_bytes(flow.pending());
        SavedFlow { pending, pipe, phase: flow.phase(), moved: flow.moved() }
    }

    pub(crate) fn add_worker(&mut self, worker: &Worker) {
        let mut outbox = Vec::new();
        // A question is asked afresh, and a keeper of before would not know it.
        for order in worker.outbox.iter().filter(|order| !matches!(order.head, FromKeeper::Ask)) {
            let fds = order.fds.iter().map(|fd| self.keep(fd)).collect();
            outbox.push((order.head.clone(), self.add_bytes(&order.bytes), fds));
        }
        let saved = SavedWorker { outbox, ..SavedWorker::of(worker) };
        self.kept.extend(saved.socket.iter().chain(&saved.stderr));
        self.workers.push(saved);
    }

    /// Writes everything into a memfd (close-on-exec, like all our descriptors).
    ///
    /// # Errors
    /// If the kernel has no room for it.
    pub(crate) fn into_memfd(self) -> Result<OwnedFd, Error> {
        let text = serde_json::to_vec(&self).map_err(|error| Error::State(error.to_string()))?;
        let fd =
            memfd_create("selvedge-keeper-state", MemfdFlags::CLOEXEC).map_err(Error::os("memfd_create"))?;
        let mut file = File::from(fd);
        for part in [&(text.len() as u64).to_le_bytes()[..], &text, &self.bytes] {
            file.write_all(part).map_err(Error::os("writing the state"))?;
        }
        Ok(file.into())
    }
}

/// A state that was read.
pub(crate) struct Loaded {
    pub(crate) saved: Saved,
    bytes: VecDeque<u8>,
    taken: BTreeSet<RawFd>,
}

impl Loaded {
    /// Reads the state from the memfd whose number is given, as the environment variable holds it.
    ///
    /// # Errors
    /// `State` if it cannot be understood.
    pub(crate) fn read(number: &str) -> Result<Loaded, Error> {
        let bad = |what: &str| Error::State(what.to_owned());
        let number: RawFd = number.parse().map_err(|_| bad("not a descriptor"))?;
        let file = File::from(take(number)?);
        let size = file.metadata().map_err(Error::os("the state"))?.len();
        let mut all = vec![0; usize::try_from(size).map_err(|_| bad("too large"))?];
        file.read_exact_at(&mut all, 0).map_err(Error::os("reading the state"))?;
        let (length, rest) = all.split_first_chunk::<8>().ok_or_else(|| bad("cut off"))?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| bad("too large"))?;
        let (text, bytes) = rest.split_at_checked(length).ok_or_else(|| bad("cut off"))?;
        let saved: Saved = serde_json::from_slice(text).map_err(|error| Error::State(error.to_string()))?;
        Loaded::new(saved, bytes.to_vec())
    }

    /// A state with the bytes that it names.
    ///
    /// # Errors
    /// `State` if the two do not fit, or this binary cannot understand it.
    pub(crate) fn new(saved: Saved, bytes: Vec<u8>) -> Result<Loaded, Error> {
        if saved.format != FORMAT {
            return Err(Error::State(format!("it has format {}, this binary {FORMAT}", saved.format)));
        }
        if saved.bytes_named() != bytes.len() {
            return Err(Error::State("its lengths do not match its size".to_owned()));
        }
        Ok(Loaded { saved, bytes: VecDeque::from(bytes), taken: BTreeSet::new() })
    }

    /// Whether that descriptor has an owner by now.
    pub(crate) fn has_taken(&self, number: RawFd) -> bool {
        self.taken.contains(&number)
    }

    /// Takes ownership of a descriptor; each only once.
    ///
    /// # Errors
    /// `State` if it is not open, or already taken.
    pub(crate) fn own(&mut self, number: RawFd) -> Result<OwnedFd, Error> {
        if !self.taken.insert(number) {
            return Err(Error::State(format!("descriptor {number} appears twice")));
        }
        take(number)
    }

    /// The next bytes.
    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        self.bytes.drain(..length.min(self.bytes.len())).collect()
    }

    pub(crate) fn stream(&mut self, saved: SavedStream) -> Result<Stream, Error> {
        let [first, second] = saved.flows;
        let flows = [self.flow(first)?, self.flow(second)?];
        let ends = [self.own(saved.ends[0])?, self.own(saved.ends[1])?];
        let input = saved.input.map(|number| self.own(number)).transpose()?;
        let mut stream = Stream::resume(&saved.label, ago(saved.age_ms), ends, flows).with_input(input);
        Ok(match saved.resume {
            None => stream,
            Some(SavedResume { note, position, hold_upstream, upstream_gone_at }) => {
                stream.ends[1].gone_at = upstream_gone_at;
                stream.resumable(Resume { note: self.bytes(note), hold_upstream }, position)
            }
        })
    }

    fn flow(&mut self, saved: SavedFlow) -> Result<Flow, Error> {
        let pending = self.bytes(saved.pending);
        let pipe = match saved.pipe {
            Some((reader, writer, held)) => {
                Some(Pipe { reader: self.own(reader)?, writer: self.own(writer)?, held })
            }
            None => None,
        };
        Ok(Flow::resume(pending, pipe, saved.phase, Position { moved: saved.moved, ..Position::default() }))
    }

    pub(crate) fn worker(&mut self, saved: SavedWorker, shared: &Rc<Shared>) -> Result<Worker, Error> {
        let pid = Pid::from_raw(saved.pid).filter(|_| saved.pid > 0);
        let pid = pid.ok_or_else(|| Error::State("a worker without a pid".to_owned()))?;
        let program = Program { exe: saved.exe, args: saved.args };
        let socket = saved.socket.map(|number| self.own(number)).transpose()?;
        let stderr = saved.stderr.map(|number| self.own(number)).transpose()?;
        let mut worker = Worker::resume((saved.id, pid), program, (socket, stderr), shared);
        for (head, length, fds) in saved.outbox {
            let bytes = self.bytes(length);
            let fds = fds.into_iter().map(|number| self.own(number)).collect::<Result<_, Error>>()?;
            worker.outbox.push_back(Outgoing { head, bytes, fds });
        }
        worker.phase = match saved.ready_ms {
            _ if saved.leaving => Phase::Leaving,
            Some(ms) => Phase::Ready(ago(ms)),
            None => Phase::Starting,
        };
        worker.since = ago(saved.age_ms);
        worker.version = saved.version;
        worker.refusal = saved.refusal;
        worker.declined = saved.declined;
        worker.kill_at = saved.kill_in_ms.map(ahead);
        (worker.has_memory, worker.settled) = (saved.has_memory, saved.settled);
        worker.liveness = saved.alive.then(|| Liveness::new(Instant::now()));
        Ok(worker)
    }
}

impl Saved {
    /// How many bytes all parts have together.
    fn bytes_named(&self) -> usize {
        let flows = self.streams.iter().flat_map(|stream| &stream.flows).map(|flow| flow.pending);
        let orders = self.workers.iter().flat_map(|worker| &worker.outbox).map(|(_, length, _)| *length);
        let notes = self.streams.iter().filter_map(|stream| stream.resume.as_ref()).map(|resume| resume.note);
        let conns = self.conns.iter().map(|conn| conn.read);
        let parked = self.parked.iter().map(|parked| parked.note);
        let clients = self.clients.iter().map(|client| client.read);
        flows
            .chain(notes)
            .chain(orders)
            .chain(conns)
            .chain(parked)
            .chain(clients)
            .fold(0, usize::saturating_add)
    }
}

/// A descriptor that this process inherited, made close-on-exec again.
pub(crate) fn take(number: RawFd) -> Result<OwnedFd, Error> {
    if number < 3 {
        return Err(Error::State(format!("descriptor {number} is not ours")));
    }
    // SAFETY: only borrowed to check that it is open, which is safe for any number.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl_getfd(borrowed).map_err(|_| Error::State(format!("descriptor {number} is not open")))?;
    // SAFETY: it is open, the former image left it for us, and `Loaded::own` takes each number only once.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl_setfd(fd.as_fd(), FdFlags::CLOEXEC).map_err(Error::os("close-on-exec"))?;
    Ok(fd)
}
