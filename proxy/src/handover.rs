//! The worker's end of the link to the keeper, for tasks.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use selvedge_keeper::error::Error;
use selvedge_keeper::link::{Link, NotGiven, Order, Resume, Stream};
use selvedge_keeper::position::Position;
use selvedge_keeper::status::Snapshot;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::sync::oneshot;

/// A stream to be handed over.
#[derive(Debug)]
pub(crate) struct Pair {
    /// What people see in `selvedge status`.
    pub(crate) label: String,
    /// The client's socket.
    pub(crate) client: UnixStream,
    /// The engine's socket.
    pub(crate) engine: UnixStream,
    /// Bytes for the engine that come before what is read from the client.
    pub(crate) to_upstream: Vec<u8>,
    /// Bytes for the client that come before what is read from the engine.
    pub(crate) to_client: Vec<u8>,
    /// For a stream that can go on with another engine.
    pub(crate) resume: Option<Resumable>,
}

/// What makes a stream one that can go on with another engine.
#[derive(Debug)]
pub(crate) struct Resumable {
    /// For the worker that finds the rest of it.
    pub(crate) note: Vec<u8>,
    /// What the client has got so far.
    pub(crate) position: Position,
    /// The client's half-close is not passed on.
    pub(crate) hold_upstream: bool,
    /// The parked client that this is.
    pub(crate) replaces: Option<u64>,
}

/// The keeper, as the worker's tasks see it.
#[derive(Debug)]
pub(crate) struct Keeper {
    link: AsyncFd<Control>,
    asked: Mutex<HashMap<u64, oneshot::Sender<Box<Snapshot>>>>,
}

#[derive(Debug)]
struct Control(Link);

impl AsRawFd for Control {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

const STATUS_PATIENCE: Duration = Duration::from_secs(2);

impl Keeper {
    /// Introduces this worker to the keeper that started it, and takes the sockets.
    ///
    /// # Errors
    /// There is no keeper, or one of another protocol.
    pub(crate) fn join(link: Link, version: &str) -> Result<(Self, Vec<(String, OwnedFd)>), Error> {
        let welcome = link.hello(version)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        // SAFETY: the link owns its socket, gives no way to take it out, and is not changed while it is in here.
        let link = unsafe { AsyncFd::register_with_interest(Control(link), interest) }
            .map_err(|error| Error::NoKeeper(error.to_string()))?;
        Ok((Self { link, asked: Mutex::default() }, welcome.sockets))
    }

    fn control(&self) -> &Link {
        &self.link.get_ref().0
    }

    /// Says that this worker serves.
    ///
    /// # Errors
    /// The keeper is gone.
    pub(crate) fn ready(&self) -> Result<(), Error> {
        self.control().ready()
    }

    /// Says that no connection is left here.
    pub(crate) fn done(&self) {
        // A keeper that is gone needs not be told.
        let _ = self.control().release();
        let _ = self.control().done();
    }

    /// Hands a stream over.
    ///
    /// # Errors
    /// Gives the client back, to be told.
    pub(crate) async fn give(&self, pair: Pair) -> Result<(), (UnixStream, io::Error)> {
        let Pair { label, client, engine, to_upstream, to_client, resume } = pair;
        // What cannot be turned into a descriptor is closed, and the client sees that.
        let (Ok(mut client), Ok(mut upstream)) = (into_fd(client), into_fd(engine)) else { return Ok(()) };
        loop {
            let stream = Stream {
                label: &label,
                client,
                upstream,
                to_upstream: &to_upstream,
                to_client: &to_client,
                resume: resume.as_ref().map(|resume| Resume {
                    note: &resume.note,
                    position: resume.position,
                    hold_upstream: resume.hold_upstream,
                }),
                replaces: resume.as_ref().and_then(|resume| resume.replaces),
            };
            let Err(NotGiven { error, mut fds }) = self.control().give_stream(stream) else { return Ok(()) };
            let (Some(last), Some(first)) = (fds.pop(), fds.pop()) else { return Ok(()) };
            (client, upstream) = (first, last);
            if !matches!(error, Error::QueueFull) {
                let back = UnixStream::from_std(client.into());
                return back.map_or(Ok(()), |client| Err((client, io::Error::other(error.to_string()))));
            }
            self.writable().await;
        }
    }

    /// Gives an idle client to the worker that comes after this one.
    pub(crate) async fn give_client(&self, listener: &str, client: UnixStream, read: &[u8]) {
        let Ok(mut fd) = into_fd(client) else { return };
        loop {
            let Err(NotGiven { error, mut fds }) = self.control().give_conn(listener, fd, read) else {
                return;
            };
            let (Error::QueueFull, Some(again)) = (&error, fds.pop()) else {
                return tracing::warn!(%error, "an idle client could not be handed over");
            };
            fd = again;
            self.writable().await;
        }
    }

    /// Leaves a client with the keeper while we work for it; `None` when that cannot be.
    pub(crate) fn park(&self, client: BorrowedFd<'_>, note: &[u8]) -> Option<u64> {
        self.control().park(client, note).ok()
    }

    /// A parked client was served.
    pub(crate) async fn unpark(&self, id: u64) {
        while matches!(self.control().unpark(id), Err(Error::QueueFull)) {
            self.writable().await;
        }
    }

    /// No parked client is touched here any more.
    pub(crate) async fn release(&self) {
        while matches!(self.control().release(), Err(Error::QueueFull)) {
            self.writable().await;
        }
    }

    async fn writable(&self) {
        if let Ok(mut guard) = self.link.writable().await {
            guard.clear_ready();
        }
    }

    /// The keeper at this moment; `None` when it does not answer.
    pub(crate) async fn status(&self) -> Option<Box<Snapshot>> {
        let (told, answer) = oneshot::channel();
        let id = self.control().ask_status().ok()?;
        self.asked().insert(id, told);
        let answer = tokio::time::timeout(STATUS_PATIENCE, answer).await;
        self.asked().remove(&id);
        answer.ok()?.ok()
    }

    fn asked(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Box<Snapshot>>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next order that is for the worker itself.
    pub(crate) async fn order(&self) -> Order {
        loop {
            match self.control().try_recv() {
                Ok(Some(Order::Status { id, snapshot })) => self.answered(id, snapshot),
                Ok(Some(order)) => return order,
                Ok(None) => self.readable().await,
                Err(error) => {
                    tracing::error!(%error, "the link to the keeper is broken");
                    return Order::KeeperGone;
                }
            }
        }
    }

    fn answered(&self, id: u64, snapshot: Box<Snapshot>) {
        if let Some(told) = self.asked().remove(&id) {
            // Who asked may have gone.
            let _ = told.send(snapshot);
        }
    }

    async fn readable(&self) {
        if let Ok(mut guard) = self.link.readable().await {
            guard.clear_ready();
        }
    }
}

fn into_fd(stream: UnixStream) -> io::Result<OwnedFd> {
    stream.into_std().map(OwnedFd::from)
}
