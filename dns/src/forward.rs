//! Asks others what is not ours: the asker's own name servers or the host's. Equal questions are asked once, answers
//! are kept as long as their TTLs allow. It must never let one asker's questions keep out another's, and never pass on
//! an answer to another question.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use crate::forward::cache::{Cache, Key};
use crate::forward::host_servers::HostServers;
use crate::forward::message::Shape;
use crate::forward::upstream::Upstreams;
use crate::handler::Forward;
use crate::query::{Query, Transport, rcode};
use crate::settings::{Limits, Settings};
use crate::stats::Stats;

mod cache;
mod host_servers;
mod message;
mod upstream;

/// An answer of an upstream, shared by all who asked the same.
#[derive(Debug)]
pub(crate) struct Received {
    bytes: Vec<u8>,
    shape: Shape,
}

/// What a lookup came to: nothing if no upstream gave an answer.
type Result = Option<Rc<Received>>;
/// What those who wait for a lookup see: nothing yet, or its result.
type Waiting = watch::Receiver<Option<Result>>;

/// The questions that are under way, and what is known of earlier ones.
pub(crate) struct Forwarder {
    limits: Limits,
    stats: Arc<Stats>,
    host: RefCell<HostServers>,
    cache: RefCell<Cache>,
    upstreams: Upstreams,
    under_way: RefCell<HashMap<Key, Waiting>>,
    waiting: Cell<usize>,
    waiting_by_asker: RefCell<HashMap<IpAddr, usize>>,
}

impl Forwarder {
    pub(crate) fn new(settings: &Settings, stats: Arc<Stats>) -> Rc<Self> {
        let limits = settings.limits;
        Rc::new(Self {
            limits,
            stats,
            host: RefCell::new(HostServers::new(settings.resolv_conf.clone(), settings.listen)),
            cache: RefCell::new(Cache::new(limits.cache_entries, limits.cache_bytes)),
            upstreams: Upstreams::new(limits.upstream_patience, limits.lookup),
            under_way: RefCell::default(),
            waiting: Cell::new(0),
            waiting_by_asker: RefCell::default(),
        })
    }

    /// Writes the answer into `out`, which must be empty, if it is known from before.
    pub(crate) fn recall(&self, forward: &Forward, transport: Transport, out: &mut Vec<u8>) -> bool {
        let now = Instant::now();
        let key = Key::new(&forward.query, self.servers(forward));
        let mut cache = self.cache.borrow_mut();
        let Some((received, age)) = cache.get(&key, now) else { return false };
        self.stats.cache_hits.one();
        let query = &forward.query;
        received.shape.write(&received.bytes, query, query.limit(transport), out);
        received.shape.grow_old(&received.bytes, age, out);
        true
    }

    /// The answer of an upstream; SERVFAIL when there is none.
    pub(crate) async fn resolve(self: &Rc<Self>, forward: &Forward, transport: Transport) -> Vec<u8> {
        let query = &forward.query;
        let result = match Place::take(self, forward.asker) {
            Some(_place) => match self.lookup(query, self.servers(forward), transport) {
                Some(mut waiting) => {
                    waiting.wait_for(Option::is_some).await.ok().and_then(|seen| seen.clone())
                }
                None => None,
            },
            None => None,
        };
        let mut out = Vec::new();
        match result {
            Some(Some(received)) => {
                received.shape.write(&received.bytes, query, query.limit(transport), &mut out);
            }
            not_answered => {
                let counter =
                    if not_answered.is_some() { &self.stats.servfail } else { &self.stats.overload };
                counter.one();
                query.bare_reply(query.reply_flags(rcode::SERVFAIL), &mut out);
            }
        }
        out
    }

    fn servers(&self, forward: &Forward) -> Arc<[SocketAddr]> {
        match &forward.upstreams {
            Some(upstreams) => upstreams.clone(),
            None => self.host.borrow_mut().servers(Instant::now()),
        }
    }

    /// Joins the lookup of the same question, or begins one; nothing if there are too many.
    fn lookup(
        self: &Rc<Self>,
        query: &Query,
        servers: Arc<[SocketAddr]>,
        transport: Transport,
    ) -> Option<Waiting> {
        let key = Key::new(query, servers.clone());
        let mut under_way = self.under_way.borrow_mut();
        if let Some(waiting) = under_way.get(&key) {
            self.stats.joined.one();
            return Some(waiting.clone());
        }
        if under_way.len() >= self.limits.lookups {
            return None;
        }
        self.stats.forwarded.one();
        let (done, waiting) = watch::channel(None);
        under_way.insert(key.clone(), waiting.clone());
        let lookup = UnderWay { forwarder: self.clone(), key };
        let query = *query;
        // A task of its own: whoever asked first may go away, others wait too.
        tokio::task::spawn_local(async move {
            let received = lookup.forwarder.upstreams.ask(&query, &servers, transport).await.map(Rc::new);
            if let Some(received) = &received {
                let mut cache = lookup.forwarder.cache.borrow_mut();
                cache.put(lookup.key.clone(), received.clone(), Instant::now());
            }
            drop(lookup);
            done.send_replace(Some(received));
        });
        Some(waiting)
    }
}

/// A lookup that is under way as long as this is there, even if its task ends by a panic.
struct UnderWay {
    forwarder: Rc<Forwarder>,
    key: Key,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.forwarder.under_way.borrow_mut().remove(&self.key);
    }
}

/// A client's place among those that wait.
struct Place {
    forwarder: Rc<Forwarder>,
    asker: IpAddr,
}

impl Place {
    /// A place, unless all are taken, or too many by this asker.
    fn take(forwarder: &Rc<Forwarder>, asker: IpAddr) -> Option<Self> {
        let limit = forwarder.limits.waiting;
        let mut by_asker = forwarder.waiting_by_asker.borrow_mut();
        let own = by_asker.get(&asker).copied().unwrap_or(0);
        if forwarder.waiting.get() >= limit || own >= limit.div_ceil(4) {
            return None;
        }
        by_asker.insert(asker, own + 1);
        forwarder.waiting.set(forwarder.waiting.get() + 1);
        Some(Self { forwarder: forwarder.clone(), asker })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.forwarder.waiting.set(self.forwarder.waiting.get().saturating_sub(1));
        let mut by_asker = self.forwarder.waiting_by_asker.borrow_mut();
        match by_asker.get_mut(&self.asker) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                by_asker.remove(&self.asker);
            }
        }
    }
}
