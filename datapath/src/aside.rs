//! A container is about to be stopped: every other host is told by a letter, and answers when its own rules send the container
//! no new connections.
//!
//! The registry says the same, but not when each host has acted on it. Must never wait without a bound: a host may be dead,
//! hang, or be of a version that cannot be told.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use selvedge_cluster::view::PeerView;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout, timeout_at};

use crate::letter;

/// The first line of the letter and of its answer: what it is, and its version.
const HEAD: &str = "selvedge aside 1\n";
/// A stop waits no longer than this for any host's answer: as long as for a registry that does not write.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// A host whose kernel has not accepted a connection by then is also too slow for its containers' callers.
const CONNECT: Duration = Duration::from_millis(700);
/// How long to wait before a host is told again whose worker has ended in the middle.
const AGAIN: Duration = Duration::from_millis(20);
/// How many hosts are told at a time.
const AT_ONCE: usize = 256;
/// The digits of a container's id that other hosts know.
const SHORT_ID: usize = 12;

/// The letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Aside {
    /// The short id of a container of the host that says so.
    pub(crate) container: String,
    /// How long it holds; then it has ended, or takes connections again.
    pub(crate) for_long: Duration,
}

impl Aside {
    /// Of the container with this id.
    pub(crate) fn new(container: &str, for_long: Duration) -> Self {
        let container = container.get(..SHORT_ID).unwrap_or(container).to_owned();
        Self { container, for_long }
    }

    fn text(&self) -> String {
        format!("{HEAD}{} {}\n", self.container, self.for_long.as_secs().max(1))
    }

    /// Parses a letter, if it is one of these.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (container, seconds) = text.strip_prefix(HEAD)?.lines().next()?.split_once(' ')?;
        let is_id = container.len() <= SHORT_ID && container.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let seconds: u32 = seconds.parse().ok()?;
        is_id.then(|| Self { container: container.to_owned(), for_long: Duration::from_secs(seconds.into()) })
    }
}

/// Tells the sender of the letter that no new connections go to the container any more.
///
/// # Errors
/// The sender is gone.
pub(crate) async fn confirm(stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    letter::send(stream, HEAD).await
}

/// Which hosts to tell: those that are there, and can be told.
pub(crate) fn to_tell(peers: &[PeerView]) -> Vec<(String, SocketAddr)> {
    let address = |peer: &PeerView| {
        let info = peer.info.as_ref().filter(|info| peer.alive && info.heeds_stops)?;
        Some((peer.name.clone(), SocketAddr::new(info.address, info.port)))
    };
    peers.iter().filter_map(address).collect()
}

/// Tells these hosts, all at once; returns when each has confirmed or is not waited for any longer, with the latter and why.
pub(crate) async fn tell(
    aside: &Aside,
    own: IpAddr,
    hosts: Vec<(String, SocketAddr)>,
) -> Vec<(String, io::Error)> {
    let until = Instant::now() + PATIENCE;
    let text = aside.text();
    let one = |(host, to): (String, SocketAddr)| {
        let confirmed = confirmed(&text, until, move || letter::connect(own, to));
        async move { confirmed.await.err().map(|error| (host, error)) }
    };
    let told = stream::iter(hosts).map(one).buffer_unordered(AT_ONCE);
    told.filter_map(std::future::ready).collect().await
}

/// Returns when the host behind `connect` has confirmed.
async fn confirmed<S, C>(text: &str, until: Instant, connect: impl Fn() -> C) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
    C: Future<Output = io::Result<S>>,
{
    let told = async {
        while !once(text, connect()).await? {
            tokio::time::sleep(AGAIN).await;
        }
        Ok(())
    };
    timeout_at(until, told).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Whether the host has confirmed. If not, the worker that took the letter has ended: the next one is to be told. Where no
/// keeper listens it fails.
async fn once<S>(text: &str, connected: impl Future<Output = io::Result<S>>) -> io::Result<bool>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut stream = timeout(CONNECT, connected).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let answered = async {
        letter::send(&mut stream, text).await.ok()?;
        letter::read(&mut stream).await
    };
    Ok(answered.await.is_some_and(|answer| answer == HEAD))
}

#[cfg(test)]
mod tests;
