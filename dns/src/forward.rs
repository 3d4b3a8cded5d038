//! Asks others what is not ours: the asker's own name servers or the host's. Equal questions are asked once, answers
//! are kept as long as their TTLs allow. It must never let one asker's questions keep out another's, and never pass on
//! an answer to another question.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use crate::forward::cache::{Cache, Key};
use crate::forward::host_servers::HostServers;
use crate::forward::message::Shape;
use crate::forward::upstream::Upstreams;
use crate::handler::Forward;
use crate::query::{Transport, rcode};
use crate::settings::Settings;
use crate::share::{Share, Shares};
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
    stats: Arc<Stats>,
    host: RefCell<HostServers>,
    cache: RefCell<Cache>,
    upstreams: Upstreams,
    under_way: RefCell<HashMap<Key, Waiting>>,
    /// Places for lookups that are under way, each its first asker's.
    lookups: Rc<Shares>,
    /// Places for all who wait for one.
    waiting: Rc<Shares>,
}

impl Forwarder {
    pub(crate) fn new(settings: &Settings, stats: Arc<Stats>) -> Rc<Self> {
        let limits = settings.limits;
        Rc::new(Self {
            stats,
            host: RefCell::new(HostServers::new(settings.resolv_conf.clone(), settings.listen)),
            cache: RefCell::new(Cache::new(limits.cache_entries, limits.cache_bytes)),
            upstreams: Upstreams::new(limits.upstream_patience, limits.lookup),
            under_way: RefCell::default(),
            lookups: Shares::new(limits.lookups),
            waiting: Shares::new(limits.waiting),
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
        let result = match self.waiting.take(forward.asker) {
            Some(_place) => match self.lookup(forward, transport) {
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
    fn lookup(self: &Rc<Self>, forward: &Forward, transport: Transport) -> Option<Waiting> {
        let (query, servers) = (forward.query, self.servers(forward));
        let key = Key::new(&query, servers.clone());
        let mut under_way = self.under_way.borrow_mut();
        if let Some(waiting) = under_way.get(&key) {
            self.stats.joined.one();
            return Some(waiting.clone());
        }
        let share = self.lookups.take(forward.asker)?;
        self.stats.forwarded.one();
        let (done, waiting) = watch::channel(None);
        under_way.insert(key.clone(), waiting.clone());
        let lookup = UnderWay { forwarder: self.clone(), key, _share: share };
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
    _share: Share,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.forwarder.under_way.borrow_mut().remove(&self.key);
    }
}
