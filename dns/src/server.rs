//! The server: a thread of its own with its own runtime, so that no flood of queries can slow anything else down. It
//! must never outlive `stop` by more than its limit, and never do anything with the sockets but read, accept and
//! answer.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::rc::Rc;
use std::sync::mpsc as thread_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::LocalSet;

use crate::error::Error;
use crate::forward::Forwarder;
use crate::handler::Handler;
use crate::settings::{Limits, Settings};
use crate::shared::Shared;
use crate::stats::{Counts, Stats};
use crate::{tcp, udp};

/// A running DNS server. If dropped without [`Server::stop`], it stops in its own time.
#[derive(Debug)]
pub struct Server {
    stats: Arc<Stats>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
    pings: mpsc::UnboundedSender<oneshot::Sender<()>>,
    /// Signals the thread's end. In a mutex only so that the handle can be shared.
    ended: Mutex<thread_channel::Receiver<()>>,
    limits: Limits,
}

impl Server {
    /// Starts answering on the given sockets, each of which must be bound to one address.
    ///
    /// UDP sockets are left as they are. TCP listeners are made non-blocking, for all processes that hold the same
    /// listener.
    ///
    /// # Errors
    /// [`Error`] when a socket cannot be used or the thread cannot start; nothing was answered then.
    pub fn spawn(settings: Settings, udp: Vec<UdpSocket>, tcp: Vec<TcpListener>) -> Result<Self, Error> {
        for socket in &udp {
            check_address(socket.local_addr())?;
        }
        for listener in &tcp {
            let address = check_address(listener.local_addr())?;
            listener.set_nonblocking(true).map_err(|source| Error::Socket { address, source })?;
        }
        let stats = Arc::new(Stats::default());
        let limits = settings.limits;
        let (stop, stopped) = watch::channel(false);
        let (ready, started) = thread_channel::channel();
        let (end, ended) = thread_channel::channel();
        let (pings, pinged) = mpsc::unbounded_channel();
        let counted = stats.clone();
        let body = move || {
            run(settings, (udp, tcp), counted, (stopped, pinged), &ready);
            // The receiver may be gone.
            let _ = end.send(());
        };
        let thread = std::thread::Builder::new().name("dns".to_owned()).spawn(body).map_err(Error::Thread)?;
        let gone = |_| Error::Thread(std::io::Error::other("it ended before it began"));
        started.recv().map_err(gone)??;
        Ok(Self { stats, stop, thread: Some(thread), pings, ended: Mutex::new(ended), limits })
    }

    /// Counts of questions and answers so far.
    #[must_use]
    pub fn stats(&self) -> Counts {
        self.stats.counts()
    }

    /// Whether the thread runs. It ends by itself only if no socket can be read any more.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Asks the thread for a sign of life, which comes as soon as it turns to its tasks. An error instead of one: it has ended.
    pub fn ping(&self) -> oneshot::Receiver<()> {
        let (pong, answer) = oneshot::channel();
        // Of a thread that has ended, the receiver tells.
        let _ = self.pings.send(pong);
        answer
    }

    /// Stops reading, finishes the queries in hand, and returns; after [`Limits::drain`] it returns even if queries are
    /// unanswered. Unread queries stay in the sockets, for another process that holds them. Blocks the calling thread.
    pub fn stop(mut self) {
        self.stop.send_replace(true);
        // A little more than the thread itself may take; if it hangs, leave it behind.
        let patience = self.limits.drain + std::time::Duration::from_secs(1);
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        let ended = ended.recv_timeout(patience) != Err(thread_channel::RecvTimeoutError::Timeout);
        match self.thread.take() {
            Some(thread) if ended => {
                if thread.join().is_err() {
                    tracing::error!("the DNS thread panicked");
                }
            }
            _ => tracing::error!("the DNS thread did not end in time"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

fn check_address(address: std::io::Result<SocketAddr>) -> Result<SocketAddr, Error> {
    match address {
        Ok(address) if address.ip().is_unspecified() => Err(Error::Unspecified(address)),
        Ok(address) => Ok(address),
        Err(error) => Err(Error::Address(error)),
    }
}

type Started = thread_channel::Sender<Result<(), Error>>;
type Pinged = mpsc::UnboundedReceiver<oneshot::Sender<()>>;

/// The thread's body.
fn run(
    settings: Settings,
    sockets: (Vec<UdpSocket>, Vec<TcpListener>),
    stats: Arc<Stats>,
    told: (watch::Receiver<bool>, Pinged),
    ready: &Started,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            // The receiver waits for exactly one message; if it is gone, the result has no reader.
            let _ = ready.send(Err(Error::Thread(error)));
            return;
        }
    };
    let local = LocalSet::new();
    local.block_on(&runtime, serve(settings, sockets, stats, told, ready));
}

async fn serve(
    settings: Settings,
    (udp, tcp): (Vec<UdpSocket>, Vec<TcpListener>),
    stats: Arc<Stats>,
    (mut stopped, pinged): (watch::Receiver<bool>, Pinged),
    ready: &Started,
) {
    let sockets = match adopt(udp, tcp) {
        Ok(sockets) => sockets,
        Err(error) => {
            // As above.
            let _ = ready.send(Err(error));
            return;
        }
    };
    let limits = settings.limits;
    let forwarder = match Forwarder::new(&settings, stats.clone()) {
        Ok(forwarder) => forwarder,
        Err(error) => {
            // As above.
            let _ = ready.send(Err(error));
            return;
        }
    };
    let shared = Rc::new(Shared {
        handler: Handler::new(&settings, stats.clone()),
        forwarder,
        table: settings.table,
        stats,
        limits,
    });
    // Each task with a query in hand holds a sender: when all are gone, everything is answered.
    let (in_hand, mut all_answered) = mpsc::channel(1);
    for socket in sockets.0 {
        let task = udp::serve(shared.clone(), Rc::new(socket), stopped.clone(), in_hand.clone());
        tokio::task::spawn_local(task);
    }
    for listener in sockets.1 {
        tokio::task::spawn_local(tcp::serve(shared.clone(), listener, stopped.clone(), in_hand.clone()));
    }
    drop(in_hand);
    tokio::task::spawn_local(answer(pinged));
    let _ = ready.send(Ok(()));
    // An error means that the handle was dropped: stop as well.
    let _ = stopped.wait_for(|stopped| *stopped).await;
    let drained = tokio::time::timeout(limits.drain, all_answered.recv()).await;
    if drained.is_err() {
        tracing::warn!("DNS queries were left unanswered");
    }
}

async fn answer(mut pinged: Pinged) {
    while let Some(pong) = pinged.recv().await {
        // Whose patience was over does not listen any more.
        let _ = pong.send(());
    }
}

type Adopted = (Vec<AsyncFd<UdpSocket>>, Vec<tokio::net::TcpListener>);

/// Registers the sockets with this thread's epoll. tokio deregisters them when they are dropped; the kernel would not
/// do that by itself while another process holds the same sockets.
fn adopt(udp: Vec<UdpSocket>, tcp: Vec<TcpListener>) -> Result<Adopted, Error> {
    let mut adopted: Adopted = (vec![], vec![]);
    for socket in udp {
        let address = check_address(socket.local_addr())?;
        // SAFETY: a UdpSocket owns its descriptor, which stays open, and the same, until the socket is dropped; only
        // the AsyncFd can do that.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        adopted.0.push(socket.map_err(|error| Error::Socket { address, source: error.into() })?);
    }
    for listener in tcp {
        let address = check_address(listener.local_addr())?;
        let listener = tokio::net::TcpListener::from_std(listener);
        adopted.1.push(listener.map_err(|source| Error::Socket { address, source })?);
    }
    Ok(adopted)
}
