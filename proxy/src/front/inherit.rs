//! Clients as the keeper gives them to a worker, and what an earlier worker has left of their requests.
//!
//! What was left is put on our own record before the keeper forgets it, and nothing is done for a client before that. Must
//! never do again what the record says was done.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use selvedge_custody::{Closer, Entry, Incoming, Ledger, Phase};
use selvedge_engine::http::message::{Buffered, Record, linger};
use tokio::net::UnixStream;
use tracing::{debug, info, warn};

use super::connection;
use super::silent;
use crate::api::Api;
use crate::exchange::Exchange;
use crate::front::durable::Begun;
use crate::then::{Order, Then};

/// A client that the keeper gives to this worker.
#[derive(Debug)]
pub struct Arrival {
    /// The keeper's number for it.
    pub id: u64,
    /// The socket that it came by.
    pub listener: String,
    /// Its own.
    pub socket: OwnedFd,
    /// What was read from it and not served.
    pub read: Vec<u8>,
    /// The dead worker that served it.
    pub estate: Option<u32>,
}

/// A client, and how far its request has come.
#[derive(Debug)]
pub struct Client {
    socket: Buffered,
    listener: Arc<str>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// To be served from the first byte that is there.
    Request,
    /// Its answer is on record, and may have been sent in part.
    Answer { record: Arc<Entry>, keep: bool },
    /// Something was asked of the engine.
    Begun(Box<Begun>),
    /// Nothing can be done for it.
    Lost,
}

/// What dead workers have left, until their clients come.
#[derive(Debug, Default)]
pub struct Inheritance {
    connections: HashMap<(u32, u64), OwnedFd>,
    records: HashMap<(u32, u64), Entry>,
}

impl Inheritance {
    /// Connections of a dead worker.
    pub fn held(&mut self, worker: u32, connections: Vec<(u64, OwnedFd)>) {
        self.connections.extend(connections.into_iter().map(|(key, fd)| ((worker, key), fd)));
    }

    /// The records of a dead worker.
    pub fn estate(&mut self, worker: u32, memory: OwnedFd) {
        match Ledger::read(memory) {
            Ok(left) => {
                info!(worker, requests = left.len(), "an earlier worker has left requests");
                self.records.extend(left.into_iter().map(|entry| ((worker, entry.client()), entry)));
            }
            Err(error) => warn!(worker, %error, "what an earlier worker has left cannot be read"),
        }
    }

    /// Takes a client in, with what was left of its request. Nothing is done for it yet.
    pub async fn client(&mut self, api: &Api, arrival: Arrival) -> Option<Client> {
        let id = arrival.id;
        let is_told = arrival.estate.is_some() || !arrival.read.is_empty();
        let taken = self.take(api, arrival).await;
        if is_told {
            api.keeper.taken(id).await;
        }
        match taken {
            Ok(client) => Some(client),
            Err(error) => {
                warn!(%error, "a client cannot be served");
                None
            }
        }
    }

    async fn take(&mut self, api: &Api, arrival: Arrival) -> io::Result<Client> {
        let Arrival { id, listener, socket, read, estate } = arrival;
        let closer: Arc<dyn Closer> = Arc::clone(&api.keeper) as Arc<dyn Closer>;
        let mut incoming = Incoming::new(Arc::clone(&api.ledger), closer, id);
        let io = UnixStream::from_std(socket.into())?;
        let left = estate.and_then(|worker| Some((worker, self.records.remove(&(worker, id))?)));
        let (unread, stage) = match left {
            Some((worker, left)) => {
                let record = incoming.record()?;
                let stage = self.take_over(api, (worker, &left), &record).await?;
                (record.asked(), stage)
            }
            None => {
                if !read.is_empty() {
                    incoming.record()?.receive_before(&read)?;
                }
                (read, Stage::Request)
            }
        };
        let socket = Buffered { io, unread, record: Record::Client(incoming) };
        Ok(Client { socket, listener: listener.into(), stage })
    }

    async fn take_over(
        &mut self,
        api: &Api,
        (worker, left): (u32, &Entry),
        record: &Arc<Entry>,
    ) -> io::Result<Stage> {
        if left.phase() != Phase::Asking {
            record.take_over(left, 0)?;
            return Ok(match left.phase() {
                Phase::Answering { keep } => Stage::Answer { record: Arc::clone(record), keep },
                Phase::Loose => Stage::Lost,
                Phase::Free | Phase::Reading | Phase::Asking => Stage::Request,
            });
        }
        let connection = match self.connections.remove(&(worker, left.engine())) {
            Some(fd) => {
                let held = api.keeper.hold(fd.as_fd()).await;
                Some((fd, held))
            }
            None => None,
        };
        record.take_over(left, connection.as_ref().map_or(0, |(_, held)| held.key))?;
        if !record.is_told() {
            // The engine has heard nothing of it.
            record.take_back();
            return Ok(Stage::Request);
        }
        let Ok(order) = serde_json::from_slice::<Order>(&record.note()) else {
            warn!("an earlier worker's request cannot be read; its client is let go");
            return Ok(Stage::Lost);
        };
        if let Then::Started(id) = &order.then {
            api.containers.book.expect_resumed(id);
        }
        let exchange = Exchange::resume(record, connection)?;
        Ok(Stage::Begun(Box::new(Begun { order, exchange })))
    }
}

/// Serves a client in a task of its own. Where descriptors are few it comes back when another client has made room: the next one
/// comes with a descriptor, which the kernel drops if there is no room for it.
pub async fn serve(api: &Arc<Api>, client: Client) {
    let guard = api.counters.connection();
    if silent::is_crowded(api.counters.open_connections()) {
        // All other tasks run before this one does again: those of clients that have just come begin to wait, and the
        // one that is ended closes its socket.
        tokio::task::yield_now().await;
        api.silent.end_oldest();
        tokio::task::yield_now().await;
    }
    let api = Arc::clone(api);
    tokio::spawn(async move {
        go_on(&api, client).await;
        drop(guard);
    });
}

async fn go_on(api: &Arc<Api>, client: Client) {
    let Client { mut socket, listener, stage } = client;
    match stage {
        Stage::Request => {}
        Stage::Lost => return,
        Stage::Answer { record, keep } => {
            let sent = socket.send_answer(&record).await;
            debug!(keep, ?sent, "an earlier worker's answer is sent to its end");
            if sent.is_err() || !keep {
                return linger(&mut socket.io).await;
            }
            let idle = socket.unread.is_empty();
            drop(record);
            if let Some(client) = socket.client() {
                client.next(idle);
            }
        }
        Stage::Begun(begun) => match connection::resume(api, socket, *begun).await {
            Some(client) => socket = client,
            None => return,
        },
    }
    connection::serve(Arc::clone(api), socket, listener).await;
}
