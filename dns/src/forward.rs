//! Asks upstreams about names that are not ours: the asker's own name servers or the host's. Equal questions are asked
//! once, and answers are cached as long as their TTLs allow. It must never let one asker's questions keep out
//! another's, and never pass on an answer to another question.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use crate::forward::cache::{Cache, Key};
use crate::forward::host_servers::HostServers;
use crate::forward::received::Received;
use crate::forward::upstream::Upstreams;
use crate::handler::Forward;
use crate::query::{Transport, rcode};
use crate::resolv_conf::Turns;
use crate::settings::Settings;
use crate::share::{Share, Shares};
use crate::stats::Stats;

mod cache;
mod host_servers;
mod message;
mod received;
mod turns;
mod upstream;

/// The result of a lookup: none if no upstream gave an answer.
type Result = Option<Rc<Received>>;
/// What the waiters for a lookup see: none yet, or its result.
type Waiting = watch::Receiver<Option<Result>>;

/// The lookups under way, and the answers to earlier ones.
pub(crate) struct Forwarder {
    stats: Arc<Stats>,
    host: RefCell<HostServers>,
    cache: RefCell<Cache>,
    upstreams: Upstreams,
    /// From the settings; otherwise as the host's resolv.conf says.
    turns: Option<Turns>,
    under_way: RefCell<HashMap<Key, Waiting>>,
    /// Slots for lookups under way, each charged to its first asker.
    lookups: Rc<Shares>,
    /// Slots for all who wait for a lookup.
    waiting: Rc<Shares>,
}

impl Forwarder {
    pub(crate) fn new(settings: &Settings, stats: Arc<Stats>) -> Rc<Self> {
        let limits = settings.limits;
        Rc::new(Self {
            stats,
            host: RefCell::new(HostServers::new(settings)),
            cache: RefCell::new(Cache::new(limits.cache_entries, limits.cache_bytes)),
            upstreams: Upstreams::new(limits.upstream_patience, limits.lookup),
            turns: limits.turns,
            under_way: RefCell::default(),
            lookups: Shares::new(limits.lookups),
            waiting: Shares::new(limits.waiting),
        })
    }

    /// Writes the answer into `out`, which must be empty, if it is cached.
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

    /// An upstream's answer; SERVFAIL when there is none.
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

    /// Joins the lookup of the same question, or starts one; none if there are too many.
    fn lookup(self: &Rc<Self>, forward: &Forward, transport: Transport) -> Option<Waiting> {
        let (query, servers) = (forward.query, self.servers(forward));
        let turns = self.turns.unwrap_or_else(|| self.host.borrow_mut().turns(Instant::now()));
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
        // A task of its own: the first asker may go away while others wait.
        tokio::task::spawn_local(async move {
            let received = lookup.forwarder.upstreams.ask(&query, (&servers, turns), transport).await;
            let received = received.map(Rc::new);
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

/// Marks a lookup as under way for as long as it exists, even if its task panics.
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
