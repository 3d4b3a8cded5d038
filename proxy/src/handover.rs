//! The worker's end of the link to the keeper, for tasks.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use selvedge_custody::{Closer, Entry};
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
pub struct Pair {
    /// What people see in `selvedge status`.
    pub label: String,
    /// The client's socket.
    pub client: UnixStream,
    /// The engine's socket.
    pub engine: UnixStream,
    /// Bytes for the engine that come before what is read from the client.
    pub to_upstream: Vec<u8>,
    /// Bytes for the client that come before what is read from the engine.
    pub to_client: Vec<u8>,
    /// For a stream that can go on with another engine.
    pub resume: Option<Resumable>,
    /// The client's number, if the keeper accepted it.
    pub held: Option<u64>,
    /// The parked client that this is.
    pub replaces: Option<u64>,
    /// Another socket of the engine's, to which the client's bytes go instead: see `Keeper::takes_inputs`.
    pub input: Option<UnixStream>,
}

/// What makes a stream one that can go on with another engine.
#[derive(Debug)]
pub struct Resumable {
    /// For the worker that finds the rest of it.
    pub note: Vec<u8>,
    /// What the client has got so far.
    pub position: Position,
    /// The client's half-close is not passed on.
    pub hold_upstream: bool,
}

/// The keeper, as the worker's tasks see it.
#[derive(Debug)]
pub struct Keeper {
    link: AsyncFd<Control>,
    asked: Mutex<HashMap<u64, oneshot::Sender<Box<Snapshot>>>>,
    /// What is to be said of clients and connections as soon as there is room in the queue.
    owed: Mutex<VecDeque<Owed>>,
    next: AtomicU64,
}

#[derive(Debug)]
enum Owed {
    /// A client is to be ended; its record stays until that is said.
    End { client: u64, _record: Option<Arc<Entry>> },
    /// A connection is needed no longer.
    Drop(u64),
}

/// A connection that the keeper holds as well, until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    keeper: Arc<Keeper>,
    /// Its number.
    pub(crate) key: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.keeper.owe(Owed::Drop(self.key));
    }
}

impl Closer for Keeper {
    fn end(&self, client: u64, record: Option<Arc<Entry>>) {
        self.owe(Owed::End { client, _record: record });
    }
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
    pub fn join(link: Link, version: &str) -> Result<(Self, Vec<(String, OwnedFd)>), Error> {
        let welcome = link.hello(version)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        // SAFETY: the link owns its socket, gives no way to take it out, and is not changed while it is in here.
        let link = unsafe { AsyncFd::register_with_interest(Control(link), interest) }
            .map_err(|error| Error::NoKeeper(error.to_string()))?;
        let (asked, owed, next) = (Mutex::default(), Mutex::default(), AtomicU64::new(1));
        Ok((Self { link, asked, owed, next }, welcome.sockets))
    }

    fn control(&self) -> &Link {
        &self.link.get_ref().0
    }

    /// Says that this worker serves.
    ///
    /// # Errors
    /// The keeper is gone.
    pub fn ready(&self) -> Result<(), Error> {
        self.control().ready()
    }

    /// Gives the keeper the memory of our records, for the next worker.
    ///
    /// # Errors
    /// The keeper is gone.
    pub fn remember(&self, memory: BorrowedFd<'_>) -> Result<(), Error> {
        self.control().memory(memory)
    }

    /// Has the keeper hold a connection as well.
    pub(crate) async fn hold(self: &Arc<Self>, connection: BorrowedFd<'_>) -> Held {
        let key = self.next.fetch_add(1, Relaxed);
        self.say(|link| link.hold(key, connection)).await;
        Held { keeper: Arc::clone(self), key }
    }

    /// What came along with a client is on our own record.
    pub(crate) async fn taken(&self, client: u64) {
        self.say(|link| link.taken(client)).await;
    }

    /// Gives a client to the worker that comes after this one.
    pub(crate) async fn give_back(&self, client: u64, read: &[u8]) {
        loop {
            match self.control().give_back(client, read) {
                Err(Error::QueueFull) => self.writable().await,
                Err(error) => {
                    tracing::warn!(%error, "an idle client could not be handed over");
                    return self.end(client, None);
                }
                Ok(()) => return,
            }
        }
    }

    /// Whether the keeper takes a stream whose client's bytes go to another socket than its engine's.
    pub(crate) fn takes_inputs(&self) -> bool {
        self.control().takes_inputs()
    }

    fn owed(&self) -> MutexGuard<'_, VecDeque<Owed>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn owe(&self, owed: Owed) {
        self.owed().push_back(owed);
        self.pay();
    }

    /// Says what is owed, as far as there is room. Whether all is said.
    fn pay(&self) -> bool {
        let mut owed = self.owed();
        while let Some(first) = owed.front() {
            let said = match first {
                Owed::End { client, .. } => self.control().end(*client),
                Owed::Drop(key) => self.control().drop_held(*key),
            };
            if matches!(said, Err(Error::QueueFull)) {
                return false;
            }
            owed.pop_front();
        }
        true
    }

    /// Says that no connection is left here.
    pub fn done(&self) {
        // A keeper that is gone needs not be told.
        let _ = self.control().release();
        let _ = self.control().done();
    }

    /// Hands a stream over.
    ///
    /// # Errors
    /// Gives the client back, to be told.
    pub async fn give(&self, pair: Pair) -> Result<(), (UnixStream, io::Error)> {
        let Pair { label, client, engine, to_upstream, to_client, resume, held, replaces, input } = pair;
        // What cannot be turned into a descriptor is closed, and the client sees that.
        let (Ok(mut client), Ok(mut upstream), Ok(mut input)) =
            (into_fd(client), into_fd(engine), input.map(into_fd).transpose())
        else {
            return Ok(());
        };
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
                replaces,
                held,
                input,
            };
            let Err(NotGiven { error, fds }) = self.control().give_stream(stream) else { return Ok(()) };
            let mut fds = fds.into_iter();
            let (Some(first), Some(second)) = (fds.next(), fds.next()) else { return Ok(()) };
            (client, upstream, input) = (first, second, fds.next());
            if !matches!(error, Error::QueueFull) {
                let back = UnixStream::from_std(client.into());
                return back.map_or(Ok(()), |client| Err((client, io::Error::other(error.to_string()))));
            }
            self.writable().await;
        }
    }

    /// A parked client was served.
    pub async fn unpark(&self, id: u64) {
        self.say(|link| link.unpark(id)).await;
    }

    /// No parked client is touched here any more.
    pub async fn release(&self) {
        self.say(|link| link.release()).await;
    }

    /// Says something as soon as there is room in the queue. A keeper that is gone needs not be told.
    async fn say(&self, what: impl Fn(&Link) -> Result<(), Error>) {
        while matches!(what(self.control()), Err(Error::QueueFull)) {
            self.writable().await;
        }
    }

    async fn writable(&self) {
        if let Ok(mut guard) = self.link.writable().await {
            guard.clear_ready();
        }
    }

    /// The keeper at this moment; `None` when it does not answer.
    pub async fn status(&self) -> Option<Box<Snapshot>> {
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
    pub async fn order(&self) -> Order {
        loop {
            match self.control().try_recv() {
                Ok(Some(Order::Status { id, snapshot })) => self.answered(id, snapshot),
                Ok(Some(order)) => return order,
                Ok(None) if self.pay() => self.readable().await,
                Ok(None) => tokio::select! { () = self.readable() => {}, () = self.writable() => {} },
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
