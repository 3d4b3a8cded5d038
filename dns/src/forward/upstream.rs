//! Asks name servers, one after the other and then all at once, until one gives an answer. It must never take an answer
//! from anybody else, or to another question: each server is asked from a port of its own with an id of its own.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{sleep_until, timeout};

use crate::forward::Received;
use crate::forward::message::{self, Shape};
use crate::query::{HEADER, Query, Transport, flag, put_header, word};
use crate::tcp::{read_message, write_message};

/// How long a server that did not answer in time is asked last.
const DOUBT: Duration = Duration::from_secs(10);
/// How many doubtful servers are kept in mind.
const MOST_DOUBTFUL: usize = 1000;
/// More than we ask for, as some servers do not care.
const DATAGRAM: usize = 4096;

/// What is known of name servers, and how patient to be with them.
pub(crate) struct Upstreams {
    patience: Duration,
    limit: Duration,
    doubtful: RefCell<HashMap<SocketAddr, Instant>>,
}

impl Upstreams {
    pub(crate) fn new(patience: Duration, limit: Duration) -> Self {
        Self { patience, limit, doubtful: RefCell::default() }
    }

    /// The first helpful answer. If there is none from any server until the limit, an unhelpful one (SERVFAIL, REFUSED),
    /// else nothing.
    pub(crate) async fn ask(
        &self,
        query: &Query,
        servers: &[SocketAddr],
        transport: Transport,
    ) -> Option<Received> {
        let deadline = tokio::time::Instant::now() + self.limit;
        let order = self.in_order(servers);
        let mut left = order.iter();
        let mut asked = FuturesUnordered::new();
        let mut unhelpful = None;
        let ask_next = |asked: &FuturesUnordered<_>, server: Option<&SocketAddr>| {
            server.inspect(|server| asked.push(self.ask_one(**server, query, transport))).is_some()
        };
        if !ask_next(&asked, left.next()) {
            return None;
        }
        let mut next = tokio::time::Instant::now() + self.patience;
        loop {
            tokio::select! {
                Some((server, result)) = asked.next() => {
                    match result {
                        Ok(received) if !message::is_unhelpful(&received.bytes) => {
                            self.doubtful.borrow_mut().remove(&server);
                            return Some(received);
                        }
                        Ok(received) => unhelpful = Some(received),
                        Err(error) => {
                            tracing::debug!(%server, %error, "asking a name server");
                            self.doubt(server);
                        }
                    }
                    if !ask_next(&asked, left.next()) && asked.is_empty() {
                        return unhelpful;
                    }
                    next = tokio::time::Instant::now() + self.patience;
                }
                () = sleep_until(next.min(deadline)) => {
                    if tokio::time::Instant::now() >= deadline || asked.is_empty() {
                        return unhelpful;
                    }
                    // Too slow: only to the credit of the next, if there is one.
                    if let Some(slow) = order.len().checked_sub(left.len() + 1).and_then(|at| order.get(at)) {
                        self.doubt(*slow);
                    }
                    let more = ask_next(&asked, left.next());
                    next = if more { tokio::time::Instant::now() + self.patience } else { deadline };
                }
            }
        }
    }

    /// The servers as listed, but those in doubt last.
    fn in_order(&self, servers: &[SocketAddr]) -> Vec<SocketAddr> {
        let now = Instant::now();
        let doubtful = self.doubtful.borrow();
        let mut order = servers.to_vec();
        order.sort_by_key(|server| doubtful.get(server).is_some_and(|until| *until > now));
        order
    }

    fn doubt(&self, server: SocketAddr) {
        let mut doubtful = self.doubtful.borrow_mut();
        if doubtful.len() >= MOST_DOUBTFUL {
            doubtful.clear();
        }
        doubtful.insert(server, Instant::now() + DOUBT);
    }

    async fn ask_one(
        &self,
        server: SocketAddr,
        query: &Query,
        transport: Transport,
    ) -> (SocketAddr, io::Result<Received>) {
        (server, self.exchange(server, query, transport).await)
    }

    async fn exchange(
        &self,
        server: SocketAddr,
        query: &Query,
        transport: Transport,
    ) -> io::Result<Received> {
        // Half of the time, so that there is an answer of some kind when a firewall lets only the other way through.
        let by_tcp = async { timeout(self.limit / 2, by_tcp(server, query)).await? };
        let bytes = match transport {
            Transport::Tcp => match by_tcp.await {
                Ok(bytes) => bytes,
                Err(_) => self.by_udp(server, query).await?,
            },
            Transport::Udp => {
                let bytes = self.by_udp(server, query).await?;
                if message::is_truncated(&bytes) { by_tcp.await.unwrap_or(bytes) } else { bytes }
            }
        };
        received(bytes, query)
    }

    /// Asks by datagrams, again and again: they get lost.
    async fn by_udp(&self, server: SocketAddr, query: &Query) -> io::Result<Vec<u8>> {
        let any = match server {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        // The kernel chooses a random port; a connected socket takes datagrams from this server only, and hears of
        // "port unreachable".
        let socket = UdpSocket::bind(any).await?;
        socket.connect(server).await?;
        let (id, request) = request(query);
        let mut bytes = vec![0; DATAGRAM];
        let mut wait = self.patience;
        loop {
            socket.send(&request).await?;
            match timeout(wait, receive(&socket, id, query, &mut bytes)).await {
                Ok(length) => {
                    bytes.truncate(length?);
                    return Ok(bytes);
                }
                Err(_) => wait *= 2,
            }
        }
    }
}

/// Waits for the answer with this id; its length.
async fn receive(socket: &UdpSocket, id: u16, query: &Query, bytes: &mut [u8]) -> io::Result<usize> {
    loop {
        let length = socket.recv(bytes).await?;
        let message = bytes.get(..length).unwrap_or_default();
        if word(message, 0) == Some(id) && check(message, query)? {
            return Ok(length);
        }
    }
}

/// Whether the message is the answer; an error if it says only that there is none. Anything else is somebody's who
/// tries ids, or late: the answer may still come.
fn check(message: &[u8], query: &Query) -> io::Result<bool> {
    let response = word(message, 2).is_some_and(|flags| flags & flag::RESPONSE != 0);
    if response && message.len() == HEADER && word(message, 4) == Some(0) && message::is_unhelpful(message) {
        return Err(io::Error::other("the name server answered with an error only"));
    }
    Ok(message::answers(message, query))
}

async fn by_tcp(server: SocketAddr, query: &Query) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let (id, request) = request(query);
    write_message(&mut stream, &request).await?;
    let mut bytes = Vec::new();
    read_message(&mut stream, &mut bytes).await?;
    if word(&bytes, 0) == Some(id) && check(&bytes, query)? {
        return Ok(bytes);
    }
    Err(io::Error::other("the name server answered another question"))
}

/// The query as we ask it: a new id, an OPT of our own (RFC 6891 section 6.1.1: it is never passed on) if there was one.
fn request(query: &Query) -> (u16, Vec<u8>) {
    let id = rand::random();
    let kept = flag::RECURSION_DESIRED | flag::AUTHENTIC | flag::CHECKING_DISABLED;
    let mut bytes = Vec::with_capacity(512);
    put_header(&mut bytes, id, query.flags & kept, [1, 0, 0, u16::from(query.edns.is_some())]);
    query.put_question(&mut bytes);
    query.put_opt(&mut bytes);
    (id, bytes)
}

fn received(mut bytes: Vec<u8>, query: &Query) -> io::Result<Received> {
    match Shape::read(&mut bytes, query) {
        Some(shape) => Ok(Received { bytes, shape }),
        None if message::is_truncated(&bytes) => {
            // Cut off in the middle of a record: the client only has to know that it is cut.
            let flags = word(&bytes, 2).unwrap_or(0);
            let mut bare = Vec::new();
            query.bare_reply(flags, &mut bare);
            let shape = Shape::default();
            Ok(Received { bytes: bare, shape })
        }
        None => Err(io::Error::other("the name server's answer is malformed")),
    }
}
