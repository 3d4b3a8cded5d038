//! Reads queries from a UDP socket and answers them, many per system call. It must never block the thread, and never
//! change the socket: another process may read from the same one during an upgrade.

use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};

use crate::handler::{Forward, Outcome};
use crate::query::Transport;
use crate::shared::Shared;
use crate::udp::batch::{Batch, Received, Sent, send_one};

mod batch;

/// After this many full batches the other tasks get a turn: a flood of datagrams must not starve TCP and forwarding.
const BATCHES_PER_TURN: usize = 4;
/// How often, and after which pauses, to try again when the socket's send buffer is full. Not by epoll: waiting for
/// writability would wake us after each answer that leaves.
const SEND_TRIES: usize = 20;
const SEND_PAUSE: Duration = Duration::from_millis(2);

/// Answers until `stop` says so, whatever happens: a panic, which would be our bug, costs only the queries of one
/// batch.
pub(crate) async fn serve(
    shared: Rc<Shared>,
    socket: Rc<AsyncFd<UdpSocket>>,
    stop: watch::Receiver<bool>,
    in_hand: mpsc::Sender<()>,
) {
    loop {
        let reading = read_all(shared.clone(), socket.clone(), stop.clone(), in_hand.clone());
        match tokio::task::spawn_local(reading).await {
            Ok(()) => return,
            Err(error) => tracing::error!(%error, "reading DNS queries"),
        }
    }
}

/// Answers until `stop` says so. Unread queries stay in the socket, for its other readers.
async fn read_all(
    shared: Rc<Shared>,
    socket: Rc<AsyncFd<UdpSocket>>,
    mut stop: watch::Receiver<bool>,
    in_hand: mpsc::Sender<()>,
) {
    let mut batch = Batch::new();
    let mut turns = 0;
    loop {
        let mut guard = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            ready = socket.readable() => match ready {
                Ok(guard) => guard,
                Err(error) => {
                    tracing::error!(%error, "the DNS socket cannot be waited for");
                    return;
                }
            },
        };
        let Received { count, drained } = match batch.receive(socket.get_ref()) {
            Ok(received) => received,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                Received { count: 0, drained: true }
            }
            Err(error) => {
                // For instance the result of an ICMP message: reading the error clears it.
                tracing::debug!(%error, "reading a DNS query");
                continue;
            }
        };
        if drained {
            guard.clear_ready();
        }
        drop(guard);
        answer(&shared, &socket, &mut batch, count, &in_hand);
        send_all(&shared, &socket, &mut batch, count).await;
        turns = if drained { 0 } else { turns + 1 };
        if turns == BATCHES_PER_TURN {
            turns = 0;
            tokio::task::yield_now().await;
        }
    }
}

fn answer(
    shared: &Rc<Shared>,
    socket: &Rc<AsyncFd<UdpSocket>>,
    batch: &mut Batch,
    count: usize,
    in_hand: &mpsc::Sender<()>,
) {
    shared.stats.udp_queries.add(count as u64);
    // Once per batch; a panic under the lock does not leave the table unreadable.
    let table = shared.table.read();
    for place in 0..count {
        let Some((message, peer, out)) = batch.query(place) else { continue };
        let from = (peer.ip(), Transport::Udp);
        if let Outcome::Forward(forward) = shared.handler.handle(&table, message, from, out)
            && !shared.forwarder.recall(&forward, Transport::Udp, out)
        {
            let task = forward_one(shared.clone(), socket.clone(), *forward, peer, in_hand.clone());
            tokio::task::spawn_local(task);
        }
    }
}

async fn send_all(shared: &Shared, socket: &AsyncFd<UdpSocket>, batch: &mut Batch, count: usize) {
    let mut pending = batch.replies(count);
    let mut tries = 0;
    loop {
        match pending.send(socket.get_ref()) {
            Sent::All { lost } => {
                shared.stats.unsent.add(lost);
                return;
            }
            // A DNS client asks again; one answer is not worth holding up all others.
            Sent::Full { left } if tries == SEND_TRIES => {
                shared.stats.unsent.add(left);
                return;
            }
            Sent::Full { .. } => {
                tries += 1;
                tokio::time::sleep(SEND_PAUSE).await;
            }
        }
    }
}

async fn forward_one(
    shared: Rc<Shared>,
    socket: Rc<AsyncFd<UdpSocket>>,
    forward: Forward,
    peer: SocketAddr,
    in_hand: mpsc::Sender<()>,
) {
    let reply = shared.forwarder.resolve(&forward, Transport::Udp).await;
    if send_one(socket.get_ref(), &reply, peer).is_err() {
        shared.stats.unsent.one();
    }
    drop(in_hand);
}
