//! What the DNS server has to be told. It must never read a file or the environment by itself.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::Ipv4Net;
use selvedge_registry::table::SharedTable;

/// What the DNS server has to be told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The names.
    pub table: SharedTable,
    /// Our own address: never used as an upstream, and the address of the domain itself.
    pub listen: SocketAddr,
    /// All container addresses: a PTR question for one that nobody has is answered at once, never forwarded.
    pub pool: Ipv4Net,
    /// Where the host's name servers are listed; read again when it changes.
    pub resolv_conf: PathBuf,
    /// How long others may keep an answer about a name of ours. In whole seconds.
    pub ttl: Duration,
    /// How long others may keep it in mind that there is no such name of ours (RFC 2308). In whole seconds.
    pub negative_ttl: Duration,
    /// What keeps a flood or a dead upstream from taking everything.
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
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            ttl: Duration::from_secs(1),
            negative_ttl: Duration::from_secs(1),
            limits: Limits::default(),
        }
    }
}

/// Bounds on what queries can take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How many different questions may be under way to upstreams; one address may have begun a quarter of these. Each
    /// holds a socket, and up to three when upstreams do not answer: the process needs as many descriptors.
    pub lookups: usize,
    /// How many clients may wait for them; one address may be a quarter of these.
    pub waiting: usize,
    /// After this time without an answer the next upstream is asked as well.
    pub upstream_patience: Duration,
    /// After this time the client gets SERVFAIL. Below the 5 s after which libc asks again by itself.
    pub lookup: Duration,
    /// How many answers of upstreams are kept.
    pub cache_entries: usize,
    /// How many bytes they may have together.
    pub cache_bytes: usize,
    /// How many TCP connections may be open; one address may have a quarter of these.
    pub connections: usize,
    /// How long a TCP client may take for the next whole query, or to take an answer.
    pub tcp_patience: Duration,
    /// How long `stop` waits for queries in hand.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            lookups: 1024,
            waiting: 4096,
            upstream_patience: Duration::from_millis(800),
            lookup: Duration::from_millis(4500),
            cache_entries: 10_000,
            cache_bytes: 16 << 20,
            connections: 256,
            tcp_patience: Duration::from_secs(10),
            drain: Duration::from_secs(5),
        }
    }
}
