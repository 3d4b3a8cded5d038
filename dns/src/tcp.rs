//! Answers queries over TCP (RFC 7766): several on one connection, each answered when it is ready. It must never make
//! one client wait for another, nor keep an idle connection.

use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::handler::{Forward, Outcome};
use crate::query::{HEADER, Transport};
use crate::share::{Share, Shares};
use crate::shared::Shared;
use crate::tcp::framing::{read_message, write_message};

pub(crate) mod framing;

/// How many queries of one connection may be under way; then no more are read until one is answered.
const PIPELINED: usize = 32;
/// A pause after a failed accept, which is mostly due to a lack of descriptors: it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until `stop` says so. Connections not accepted by then stay in the listen queue, for other holders of the
/// socket.
pub(crate) async fn serve(
    shared: Rc<Shared>,
    listener: TcpListener,
    mut stop: watch::Receiver<bool>,
    in_hand: mpsc::Sender<()>,
) {
    let places = Shares::new(shared.limits.connections);
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match places.take(peer.ip()) {
                Some(place) => {
                    let task =
                        converse(shared.clone(), (stream, peer.ip()), place, stop.clone(), in_hand.clone());
                    tokio::task::spawn_local(task);
                }
                None => shared.stats.overload.one(),
            },
            Err(error) => {
                tracing::warn!(%error, "accepting a DNS connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection, from accept to the last answer.
async fn converse(
    shared: Rc<Shared>,
    (stream, asker): (TcpStream, IpAddr),
    place: Share,
    stop: watch::Receiver<bool>,
    in_hand: mpsc::Sender<()>,
) {
    // Answers are whole messages: waiting for more data would only delay them. It works without the option too.
    let _ = stream.set_nodelay(true);
    let (reader, writer) = stream.into_split();
    let (replies, to_write) = mpsc::channel(PIPELINED);
    let writing = tokio::task::spawn_local(write_all(writer, to_write, shared.limits.tcp_patience));
    // An error is the client's: it left or was too slow, and knows.
    let _ = read_all(&shared, reader, asker, &replies, stop).await;
    drop(replies);
    // Ends once the queries in hand are answered too, as each holds a sender.
    let _ = writing.await;
    drop((place, in_hand));
}

async fn read_all(
    shared: &Rc<Shared>,
    mut reader: OwnedReadHalf,
    asker: IpAddr,
    replies: &mpsc::Sender<Vec<u8>>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let under_way = Arc::new(Semaphore::new(PIPELINED));
    let mut message = Vec::new();
    loop {
        let patience = shared.limits.tcp_patience;
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
            // For the whole message, so that a byte now and then does not keep a connection open.
            read = tokio::time::timeout(patience, read_message(&mut reader, &mut message)) => read??,
        }
        // An unanswerable message ends the connection too: after it, the position of the next message cannot be
        // trusted.
        let Some(permit) = under_way.clone().acquire_owned().await.ok().filter(|_| message.len() >= HEADER)
        else {
            return Ok(());
        };
        shared.stats.tcp_queries.one();
        match handle(shared, &message, asker) {
            Handled::Reply(reply) => {
                if replies.send(reply).await.is_err() {
                    return Ok(());
                }
            }
            Handled::Nothing => return Ok(()),
            Handled::Forward(forward) => {
                let (shared, replies) = (shared.clone(), replies.clone());
                tokio::task::spawn_local(async move {
                    let reply = shared.forwarder.resolve(&forward, Transport::Tcp).await;
                    // The client may be gone.
                    let _ = replies.send(reply).await;
                    drop(permit);
                });
            }
        }
    }
}

enum Handled {
    Reply(Vec<u8>),
    Nothing,
    Forward(Box<Forward>),
}

fn handle(shared: &Shared, message: &[u8], asker: IpAddr) -> Handled {
    let mut reply = Vec::new();
    let table = shared.table.read();
    match shared.handler.handle(&table, message, (asker, Transport::Tcp), &mut reply) {
        Outcome::Reply => Handled::Reply(reply),
        Outcome::Nothing => Handled::Nothing,
        Outcome::Forward(forward) if shared.forwarder.recall(&forward, Transport::Tcp, &mut reply) => {
            Handled::Reply(reply)
        }
        Outcome::Forward(forward) => Handled::Forward(forward),
    }
}

async fn write_all(mut writer: OwnedWriteHalf, mut replies: mpsc::Receiver<Vec<u8>>, patience: Duration) {
    while let Some(reply) = replies.recv().await {
        match tokio::time::timeout(patience, write_message(&mut writer, &reply)).await {
            Ok(Ok(())) => {}
            // Returning drops this end of the channel, and with it the reader and everything under way.
            Ok(Err(_)) | Err(_) => return,
        }
    }
}
