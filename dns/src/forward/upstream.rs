//! Asks name servers in the order of resolv.conf(5): an answer counts when all earlier servers have had their turn. It
//! must never take an answer from any other sender, or to another question (each server is asked from a separate port
//! with a separate id), and never let a "no" win over a server that is earlier in the list and has time left.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, sleep_until, timeout};

use crate::forward::message::{self, Shape};
use crate::forward::received::Received;
use crate::forward::tls::Tls;
use crate::forward::turns::{Next, Said, Table};
use crate::options::Why;
use crate::query::{HEADER, Query, Transport, flag, put_header, word};
use crate::resolv_conf::Turns;
use crate::tcp::framing::{read_message, write_message};

/// After so many silences in a row a server is dead: a "no" of the others waits no longer than [`LAST_CHANCE`].
const DEAD: u8 = 3;
/// How long a "no" waits for a dead server, so that one that is back counts from its first answer on.
const LAST_CHANCE: Duration = Duration::from_millis(300);
/// How many silent servers to remember.
const MOST_DOUBTFUL: usize = 1000;
/// More than we advertise, as some servers do not care.
const DATAGRAM: usize = 4096;

/// What is known about name servers, and how patient to be with them.
pub(crate) struct Upstreams {
    patience: Duration,
    limit: Duration,
    tls: Option<Tls>,
    doubtful: RefCell<HashMap<SocketAddr, Doubt>>,
}

/// What is known about a silent server. The others are asked along with it, and their addresses are taken at once.
#[derive(Debug, Clone, Copy)]
struct Doubt {
    /// How often it was silent, without an answer in between.
    silences: u8,
    /// When it is to be asked for a sign of life.
    again: Instant,
}

impl Upstreams {
    pub(crate) fn new(patience: Duration, limit: Duration, tls: Option<Tls>) -> Self {
        Self { patience, limit, tls, doubtful: RefCell::default() }
    }

    /// The answer that counts by the order of the servers. If none says yes or no within the limit: an unhelpful answer
    /// (SERVFAIL, REFUSED), or else none.
    pub(crate) async fn ask(
        self: &Rc<Self>,
        query: &Query,
        (servers, turns): (&[SocketAddr], Turns),
        transport: Transport,
    ) -> Result<Received, Why> {
        let now = Instant::now();
        let how = (transport, turns.timeout);
        let place = |(at, server): (usize, &SocketAddr)| {
            // A little less, so that an answer held up this long still reaches clients that wait as long as one turn.
            let (turn, doubt) = (turns.of(at, servers.len()) * 9 / 10, self.doubts(*server));
            let is_dead = doubt.is_some_and(|doubt| doubt.silences >= DEAD);
            (if is_dead { turn.min(LAST_CHANCE) } else { turn }, doubt.is_some())
        };
        let mut table = Table::new(servers.iter().enumerate().map(place));
        servers.iter().for_each(|server| self.look_for_life(*server, query, how));
        // As long as libc waits for us, minus a little, so that it receives the result.
        let deadline = now + self.limit.min(turns.timeout * turns.attempts) * 19 / 20;
        let ask_all_at = now + self.patience.min(turns.timeout / 2);
        let mut asked = FuturesUnordered::new();
        loop {
            let now = Instant::now();
            table.silent(now).into_iter().for_each(|at| self.doubt(servers[at], turns.timeout));
            for at in table.ask_now(now, now >= ask_all_at) {
                asked.push(self.ask_one((at, servers[at]), query, how));
            }
            let wake = match table.next(now) {
                Next::Take(at) => return table.take(at).ok_or(Why::NO_SERVER),
                Next::NobodyKnows => return table.unhelpful().ok_or(Why::NETWORK),
                Next::Wait(until) => until,
            };
            if now >= deadline {
                return table.last_resort().ok_or(Why::NO_SERVER);
            }
            let wake = if now < ask_all_at { wake.min(ask_all_at) } else { wake };
            tokio::select! {
                Some((at, said)) = asked.next() => {
                    self.doubtful.borrow_mut().remove(&servers[at]);
                    table.said(at, said);
                }
                () = sleep_until(wake.min(deadline)) => {}
            }
        }
    }

    fn doubts(&self, server: SocketAddr) -> Option<Doubt> {
        self.doubtful.borrow().get(&server).copied()
    }

    /// A server was silent; it is to be asked for a sign of life after so long.
    fn doubt(&self, server: SocketAddr, again: Duration) {
        let mut doubtful = self.doubtful.borrow_mut();
        if doubtful.len() >= MOST_DOUBTFUL {
            doubtful.clear();
        }
        let doubt = doubtful.entry(server).or_insert(Doubt { silences: 0, again: Instant::now() + again });
        doubt.silences = doubt.silences.saturating_add(1);
    }

    /// Asks a silent server the same, now and then, and waits a whole turn for it: a lookup ends with the answer of another
    /// server, and would never hear that it is back.
    fn look_for_life(self: &Rc<Self>, server: SocketAddr, query: &Query, how: (Transport, Duration)) {
        let now = Instant::now();
        match self.doubtful.borrow_mut().get_mut(&server) {
            Some(doubt) if doubt.again <= now => doubt.again = now + how.1,
            _ => return,
        }
        let (upstreams, query) = (Rc::clone(self), *query);
        tokio::task::spawn_local(async move {
            match timeout(how.1, upstreams.exchange(server, &query, how)).await {
                Ok(_) => drop(upstreams.doubtful.borrow_mut().remove(&server)),
                // Unless it has answered another question meanwhile.
                Err(_) if upstreams.doubts(server).is_some() => upstreams.doubt(server, how.1),
                Err(_) => {}
            }
        });
    }

    async fn ask_one(
        &self,
        (at, server): (usize, SocketAddr),
        query: &Query,
        how: (Transport, Duration),
    ) -> (usize, Said) {
        let said = match self.exchange(server, query, how).await {
            Ok(received) => Said::of(received),
            Err(error) => {
                tracing::debug!(%server, %error, "asking a name server");
                Said::Useless(None)
            }
        };
        (at, said)
    }

    async fn exchange(
        &self,
        server: SocketAddr,
        query: &Query,
        (transport, turn): (Transport, Duration),
    ) -> io::Result<Received> {
        if let Some(tls) = self.tls.as_ref().filter(|tls| tls.is_for(server)) {
            return received(by_tls(tls, server, query).await?, query);
        }
        let bytes = match transport {
            Transport::Tcp => self.by_tcp_first(server, query, turn / 2).await?,
            Transport::Udp => {
                let bytes = self.by_udp(server, query).await?;
                // A firewall may block TCP: a truncated answer is better than none.
                let whole = async { timeout(turn / 2, by_tcp(server, query)).await? };
                if message::is_truncated(&bytes) { whole.await.unwrap_or(bytes) } else { bytes }
            }
        };
        received(bytes, query)
    }

    /// Tries TCP, and if that fails or takes too long, datagrams as well: a firewall may let only these through.
    async fn by_tcp_first(
        &self,
        server: SocketAddr,
        query: &Query,
        patience: Duration,
    ) -> io::Result<Vec<u8>> {
        let mut tcp = std::pin::pin!(by_tcp(server, query));
        match timeout(patience, &mut tcp).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(_)) => self.by_udp(server, query).await,
            Err(_) => tokio::select! {
                Ok(bytes) = tcp => Ok(bytes),
                bytes = self.by_udp(server, query) => bytes,
            },
        }
    }

    /// Asks by datagram, repeatedly, as datagrams get lost.
    async fn by_udp(&self, server: SocketAddr, query: &Query) -> io::Result<Vec<u8>> {
        let any = match server {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        // The kernel chooses a random port; a connected socket takes datagrams from this server only, and reports "port
        // unreachable".
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

/// Waits for the answer with this id; returns its length.
async fn receive(socket: &UdpSocket, id: u16, query: &Query, bytes: &mut [u8]) -> io::Result<usize> {
    loop {
        let length = socket.recv(bytes).await?;
        let message = bytes.get(..length).unwrap_or_default();
        if word(message, 0) == Some(id) && check(message, query)? {
            return Ok(length);
        }
    }
}

/// Whether the message is the answer; an error if it is a bare error header. Anything else is late, or from a sender
/// guessing ids: the answer may still come.
fn check(message: &[u8], query: &Query) -> io::Result<bool> {
    let response = word(message, 2).is_some_and(|flags| flags & flag::RESPONSE != 0);
    if response && message.len() == HEADER && word(message, 4) == Some(0) && message::is_unhelpful(message) {
        return Err(io::Error::other("the name server answered with a bare error"));
    }
    Ok(message::answers(message, query))
}

async fn by_tcp(server: SocketAddr, query: &Query) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let (id, request) = request(query);
    write_message(&mut stream, &request).await?;
    let mut bytes = Vec::new();
    read_message(&mut stream, &mut bytes).await?;
    the_answer(bytes, id, query)
}

async fn by_tls(tls: &Tls, server: SocketAddr, query: &Query) -> io::Result<Vec<u8>> {
    let (id, request) = request(query);
    the_answer(tls.exchange(server, &request).await?, id, query)
}

/// The message, if it is the answer.
fn the_answer(bytes: Vec<u8>, id: u16, query: &Query) -> io::Result<Vec<u8>> {
    if word(&bytes, 0) == Some(id) && check(&bytes, query)? {
        return Ok(bytes);
    }
    Err(io::Error::other("the name server answered another question"))
}

/// The query as we send it: a new id, and an OPT record of our own if there was one (RFC 6891 section 6.1.1: it is
/// never passed on).
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
            // Cut off in the middle of a record: the client only needs to know that it is truncated.
            let flags = word(&bytes, 2).unwrap_or(0);
            let mut bare = Vec::new();
            query.bare_reply(flags, &mut bare);
            let shape = Shape::default();
            Ok(Received { bytes: bare, shape })
        }
        None => Err(io::Error::other("the name server's answer is malformed")),
    }
}
