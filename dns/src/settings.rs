//! The settings of the DNS server. It must never read a file or the environment by itself.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use selvedge_registry::shared::SharedTable;

use crate::resolv_conf::Turns;

/// The settings of the DNS server.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The names.
    pub table: SharedTable,
    /// Our own address: never used as an upstream, and the address of the domain itself.
    pub listen: SocketAddr,
    /// All container addresses: a PTR question for an unused one is answered at once, never forwarded.
    pub pool: Ipv4Net,
    /// Name servers for askers without their own; if empty: the engine's, else the host's.
    pub upstreams: Vec<SocketAddr>,
    /// Those of them that are asked by TLS (RFC 7858).
    pub secured: Vec<Secured>,
    /// The authorities that their certificates may be of, as PEM; else those of the host.
    pub authorities: Option<String>,
    /// The name servers that the engine is configured to give to its containers, queried again every second.
    pub engines: Option<Engines>,
    /// The file that lists the host's name servers and their options; read again when it changes.
    pub resolv_conf: PathBuf,
    /// How long others may cache an answer about our names. In whole seconds.
    pub ttl: Duration,
    /// How long others may cache that a name of ours does not exist (RFC 2308). In whole seconds.
    pub negative_ttl: Duration,
    /// What this server is called, to those that ask for its name (RFC 4892, RFC 5001): the host's name.
    pub server: String,
    /// Limits that keep a flood or a dead upstream from using up everything.
    pub limits: Limits,
}

impl Settings {
    /// The usual settings: `/etc/resolv.conf`, and one second for all answers about our own names, because containers
    /// come and go and asking us again costs microseconds.
    #[must_use]
    pub fn new(table: SharedTable, listen: SocketAddr, pool: Ipv4Net) -> Self {
        Self {
            table,
            listen,
            pool,
            upstreams: Vec::new(),
            secured: Vec::new(),
            authorities: None,
            engines: None,
            resolv_conf: PathBuf::from(crate::resolv_conf::PATH),
            ttl: Duration::from_secs(1),
            negative_ttl: Duration::from_secs(1),
            server: String::new(),
            limits: Limits::default(),
        }
    }
}

/// A name server that is asked by TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secured {
    /// Where it is.
    pub address: SocketAddr,
    /// The name, or the address, that its certificate must be for.
    pub name: String,
}

/// Returns the name servers that the engine is configured to give to its containers. Must answer at once.
#[derive(Clone)]
pub struct Engines(Arc<dyn Fn() -> Vec<IpAddr> + Send + Sync>);

impl Engines {
    /// Uses this function.
    pub fn new(ask: impl Fn() -> Vec<IpAddr> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }
}

impl Deref for Engines {
    type Target = dyn Fn() -> Vec<IpAddr> + Send + Sync;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl fmt::Debug for Engines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Engines")
    }
}

/// Limits on the resources of queries.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How many different questions may be under way to upstreams; one address may start a quarter of these. Each holds
    /// one socket, and up to three when upstreams do not answer: the process needs that many descriptors.
    pub lookups: usize,
    /// How many clients may wait for them; one address may have a quarter of these.
    pub waiting: usize,
    /// After this time without an answer the other upstreams are asked as well. Their answers count only when the turns
    /// of the earlier ones are over.
    pub upstream_patience: Duration,
    /// The client gets SERVFAIL after this time at the latest: as long as libc waits for its only server, us.
    pub lookup: Duration,
    /// How long each upstream has, if not as resolv.conf says.
    pub turns: Option<Turns>,
    /// How many upstream answers are cached.
    pub cache_entries: usize,
    /// Their maximum total size in bytes.
    pub cache_bytes: usize,
    /// How many TCP connections may be open; one address may have a quarter of these.
    pub connections: usize,
    /// How long a TCP client may take for the next whole query, or to read an answer.
    pub tcp_patience: Duration,
    /// How long `stop` waits for queries in hand.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            lookups: 1024,
            waiting: 4096,
            upstream_patience: Duration::from_millis(300),
            lookup: Duration::from_secs(10),
            turns: None,
            cache_entries: 10_000,
            cache_bytes: 16 << 20,
            connections: 256,
            tcp_patience: Duration::from_secs(10),
            drain: Duration::from_secs(5),
        }
    }
}
