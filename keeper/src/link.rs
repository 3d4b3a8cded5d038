//! The worker's end of the control socket.
//!
//! It must never close a descriptor that could not be handed over. No call but `hello` and the short sends of `ready`,
//! `refuse` and `done` may block: wait for `as_fd` to become readable or writable instead.

mod held;
mod order;
mod stream;

pub use self::order::Order;
pub use self::stream::{NotGiven, Resume, Stream};
pub use crate::protocol::Ended;

use self::order::understand;
use crate::channel::{self, PACKET_MAX, Packet, Received};
use crate::error::Error;
use crate::protocol::{CONTROL_FD_ENV, FromKeeper, FromWorker, NOTE_MAX, PENDING_MAX, PROTOCOL, ResumeHead};
use rustix::event::{PollFd, PollFlags, Timespec};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// How long the keeper may take to answer at the start, or to make room in its queue.
const PATIENCE: Duration = Duration::from_secs(10);
/// A status can be long; nothing else that the keeper sends is.
const BYTES_MAX: usize = 64 << 20;

/// The control socket. Can be shared freely: each call is one message.
#[derive(Debug)]
pub struct Link {
    socket: OwnedFd,
    /// The stderr to use once we are ready; until then the keeper captures ours.
    stderr: Mutex<Option<OwnedFd>>,
    next_id: AtomicU64,
    /// The longest note that the keeper takes beside a parked client.
    note_max: AtomicUsize,
    /// Whether it takes a stream with an input.
    inputs: AtomicBool,
}

/// The keeper's answer to `hello`.
#[derive(Debug)]
pub struct Welcome {
    /// The keeper's version.
    pub version: String,
    /// The listening sockets by name; non-blocking, close-on-exec.
    pub sockets: Vec<(String, OwnedFd)>,
}

impl Link {
    /// Takes the control socket that the keeper put into the environment. Call it once, before any other thread runs.
    ///
    /// # Errors
    /// `NoKeeper` if this process was not started by a keeper.
    pub fn from_env() -> Result<Link, Error> {
        let value = std::env::var(CONTROL_FD_ENV)
            .map_err(|_| Error::NoKeeper(format!("{CONTROL_FD_ENV} is not set")))?;
        let number: RawFd = value
            .parse()
            .ok()
            .filter(|number| *number > 2)
            .ok_or_else(|| Error::NoKeeper(format!("{CONTROL_FD_ENV}={value} is not a descriptor")))?;
        // SAFETY: the keeper opened this descriptor for us alone; nothing else in this process knows of it. Whether it
        // is open, and a socket of the right kind, is checked below before it is used.
        let socket = unsafe { OwnedFd::from_raw_fd(number) };
        let kind = rustix::net::sockopt::socket_type(&socket);
        if kind != Ok(rustix::net::SocketType::SEQPACKET) {
            // Not ours: closing it would close another owner's descriptor.
            std::mem::forget(socket);
            return Err(Error::NoKeeper(format!("{CONTROL_FD_ENV}={value} is not a control socket")));
        }
        rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)
            .map_err(Error::os("control socket"))?;
        Ok(Link::new(socket))
    }

    /// A link over a SEQPACKET socket.
    pub fn new(socket: OwnedFd) -> Link {
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // Numbers of different workers must differ, as parked clients outlive their worker.
        let first = (time.as_micros() as u64) << 12;
        Link {
            socket,
            stderr: Mutex::new(None),
            next_id: AtomicU64::new(first),
            note_max: AtomicUsize::new(NOTE_MAX),
            inputs: AtomicBool::new(false),
        }
    }

    /// Introduces this worker, and receives the sockets. Blocks until the keeper answers.
    ///
    /// # Errors
    /// `Protocol` if the keeper speaks another protocol; `NoKeeper` if it does not answer.
    pub fn hello(&self, version: &str) -> Result<Welcome, Error> {
        self.send_patiently(&FromWorker::Hello {
            protocol: PROTOCOL,
            version: version.to_owned(),
            pid: std::process::id(),
            alive: true,
        })?;
        let mut welcome = Welcome { version: String::new(), sockets: Vec::new() };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let packet = match self.receive()? {
                None => {
                    self.wait(PollFlags::IN, deadline)?;
                    continue;
                }
                Some(Received::Packet(packet)) => packet,
                Some(Received::Garbage(reason)) => return Err(Error::Garbled(reason)),
                Some(Received::Cut(_)) => {
                    return Err(Error::Garbled("no room for its descriptors".to_owned()));
                }
                Some(Received::Closed) => return Err(Error::NoKeeper("it closed the connection".to_owned())),
            };
            if !self.welcomed(packet, &mut welcome)? {
                return Ok(welcome);
            }
        }
    }

    /// Takes one part of the welcome. True if there is more to come.
    fn welcomed(&self, packet: channel::Packet<FromKeeper>, welcome: &mut Welcome) -> Result<bool, Error> {
        match packet.head {
            FromKeeper::Welcome { protocol, .. } | FromKeeper::Refused { protocol, .. }
                if protocol != PROTOCOL =>
            {
                Err(Error::Protocol { theirs: protocol, ours: PROTOCOL })
            }
            FromKeeper::Welcome { version, sockets, stderr, more, note_max, inputs, .. } => {
                self.note_max.store(note_max, Ordering::Relaxed);
                self.inputs.store(inputs, Ordering::Relaxed);
                let mut fds = packet.fds;
                if fds.len() != sockets.len() + usize::from(stderr) {
                    return Err(Error::Garbled("the numbers of sockets and names differ".to_owned()));
                }
                if stderr {
                    *self.stderr.lock().unwrap_or_else(PoisonError::into_inner) = fds.pop();
                }
                welcome.version = version;
                welcome.sockets.extend(sockets.into_iter().zip(fds));
                Ok(more)
            }
            FromKeeper::Refused { reason, .. } => Err(Error::NoKeeper(reason)),
            FromKeeper::Stop { .. } | FromKeeper::Drain { .. } => {
                Err(Error::NoKeeper("told to leave".to_owned()))
            }
            _ => Ok(true),
        }
    }

    /// Reports that this worker serves from now on. From here on its stderr is the keeper's.
    ///
    /// # Errors
    /// `NoKeeper`, `Os`.
    pub fn ready(&self) -> Result<(), Error> {
        if let Some(stderr) = self.stderr.lock().unwrap_or_else(PoisonError::into_inner).take() {
            rustix::stdio::dup2_stderr(&stderr).map_err(Error::os("stderr"))?;
        }
        self.send_patiently(&FromWorker::Ready)
    }

    /// Reports in one line why this worker cannot serve. The worker must exit next.
    ///
    /// # Errors
    /// `NoKeeper`, `Os`.
    pub fn refuse(&self, reason: &str) -> Result<(), Error> {
        self.send_patiently(&FromWorker::Refuse { reason: reason.to_owned() })
    }

    /// Reports that a drain is complete. The worker must exit next.
    ///
    /// # Errors
    /// `NoKeeper`, `Os`.
    pub fn done(&self) -> Result<(), Error> {
        self.send_patiently(&FromWorker::Done)
    }

    /// Whether the keeper takes a stream whose client's bytes go to another socket than its upstream; those of earlier
    /// releases do not.
    pub fn takes_inputs(&self) -> bool {
        self.inputs.load(Ordering::Relaxed)
    }

    /// Gives a stream to the keeper, which pumps it to its end. On success its sockets are closed here.
    ///
    /// # Errors
    /// Returns the sockets: client, upstream, input. `QueueFull`: try again when `as_fd` is writable.
    pub fn give_stream(&self, stream: Stream<'_>) -> Result<(), NotGiven> {
        let note = stream.resume.map_or(&[][..], |resume| resume.note);
        let head = FromWorker::Stream {
            label: shorten(stream.label),
            to_upstream: stream.to_upstream.len(),
            resume: stream.resume.map(|Resume { note, position, hold_upstream }| ResumeHead {
                note: note.len(),
                position,
                hold_upstream,
            }),
            replaces: stream.replaces,
            held: stream.held,
            input: stream.input.is_some(),
        };
        let long = [(stream.to_upstream, PENDING_MAX), (stream.to_client, PENDING_MAX), (note, NOTE_MAX)]
            .into_iter()
            .find(|(bytes, most)| bytes.len() > *most);
        let fds: Vec<OwnedFd> = [stream.client, stream.upstream].into_iter().chain(stream.input).collect();
        if let Some((bytes, most)) = long {
            let error = Error::TooLong { what: "what was read of a stream", bytes: bytes.len(), most };
            return Err(NotGiven { error, fds });
        }
        self.give(&head, &[stream.to_upstream, note, stream.to_client], fds)
    }

    /// Gives an idle client connection, with what was already read from it, to this worker's successor.
    ///
    /// # Errors
    /// Returns the socket. `QueueFull`: try again when `as_fd` is writable.
    pub fn give_conn(&self, listener: &str, client: OwnedFd, read: &[u8]) -> Result<(), NotGiven> {
        self.give(&FromWorker::Conn { listener: listener.to_owned() }, &[read], vec![client])
    }

    fn give(&self, head: &FromWorker, bytes: &[&[u8]], fds: Vec<OwnedFd>) -> Result<(), NotGiven> {
        let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        channel::send(self.socket.as_fd(), head, bytes, &borrowed)
            .map_err(sending)
            .map_err(|error| NotGiven { error, fds })
    }

    /// Leaves a client and a note with the keeper, so that the next worker can serve it if this one is gone before
    /// `unpark`. The client stays open here.
    ///
    /// # Errors
    /// `QueueFull`, `TooLong`.
    pub fn park(&self, client: BorrowedFd<'_>, note: &[u8]) -> Result<u64, Error> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.park_again(id, client, note)?;
        Ok(id)
    }

    /// Replaces the note of a client that is already parked.
    ///
    /// # Errors
    /// `QueueFull`, `TooLong`.
    pub fn park_again(&self, id: u64, client: BorrowedFd<'_>, note: &[u8]) -> Result<(), Error> {
        let most = self.note_max.load(Ordering::Relaxed);
        if note.len() > most {
            return Err(Error::TooLong { what: "the note of a parked client", bytes: note.len(), most });
        }
        channel::send(self.socket.as_fd(), &FromWorker::Park { id }, &[note], &[client]).map_err(sending)
    }

    /// Reports that a parked client was served.
    ///
    /// # Errors
    /// `QueueFull`.
    pub fn unpark(&self, id: u64) -> Result<(), Error> {
        self.send(&FromWorker::Unpark { id })
    }

    /// Reports that this worker no longer touches clients of ended streams: the next worker may have them now. Clients
    /// that it parked itself go to the next worker once it is `done`, or gone.
    ///
    /// # Errors
    /// `QueueFull`.
    pub fn release(&self) -> Result<(), Error> {
        self.send(&FromWorker::Release)
    }

    /// Asks the keeper for its status; the answer arrives as `Order::Status` with this number.
    ///
    /// # Errors
    /// `QueueFull`.
    pub fn ask_status(&self) -> Result<u64, Error> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.send(&FromWorker::Status { id })?;
        Ok(id)
    }

    /// The next order, if one is waiting. Orders that it does not understand are skipped.
    ///
    /// # Errors
    /// `Os`.
    pub fn try_recv(&self) -> Result<Option<Order>, Error> {
        while let Some(received) = self.receive()? {
            let order = match received {
                Received::Closed => Some(Order::KeeperGone),
                Received::Garbage(_) => None,
                Received::Cut(FromKeeper::Client { id, .. }) => Some(Order::NoRoom { id }),
                Received::Cut(_) => None,
                // Who asks for orders is alive. An answer for which there is no room is one that the keeper has not read.
                Received::Packet(Packet { head: FromKeeper::Ask, .. }) => {
                    let _ = self.send(&FromWorker::Alive);
                    None
                }
                Received::Packet(packet) => understand(packet),
            };
            if order.is_some() {
                return Ok(order);
            }
        }
        Ok(None)
    }

    fn receive(&self) -> Result<Option<Received<FromKeeper>>, Error> {
        let mut buffer = vec![0; PACKET_MAX];
        channel::receive(self.socket.as_fd(), &mut buffer, BYTES_MAX).map_err(Error::os("control socket"))
    }

    fn send(&self, head: &FromWorker) -> Result<(), Error> {
        channel::send(self.socket.as_fd(), head, &[], &[]).map_err(sending)
    }

    fn send_patiently(&self, head: &FromWorker) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.send(head) {
                Err(Error::QueueFull) => self.wait(PollFlags::OUT, deadline)?,
                other => return other,
            }
        }
    }

    fn wait(&self, what: PollFlags, deadline: Instant) -> Result<(), Error> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::NoKeeper("it does not answer".to_owned()));
        }
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match rustix::event::poll(&mut [PollFd::new(&self.socket, what)], Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(Error::os("control socket")(error)),
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// For tokio's `AsyncFd`.
impl AsRawFd for Link {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn sending(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => Error::QueueFull,
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
            Error::NoKeeper("it is gone".to_owned())
        }
        _ => Error::os("sending to the keeper")(error),
    }
}

/// A label is for a table, which would cut longer ones.
fn shorten(label: &str) -> String {
    label.chars().filter(|letter| !letter.is_control()).take(200).collect()
}
