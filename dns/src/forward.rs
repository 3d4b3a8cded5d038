//! Asks upstreams about names that are not ours: the asker's own name servers or the host's. Equal questions are asked
//! once, and answers are cached as long as their TTLs allow. It must never let one asker's questions keep out
//! another's, and never pass on an answer to another question.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;

use crate::error::Error;
use crate::forward::cache::{Age, Cache, Key};
use crate::forward::host_servers::HostServers;
use crate::forward::received::Received;
use crate::forward::tls::Tls;
use crate::forward::upstream::Upstreams;
use crate::handler::Forward;
use crate::options::{Opt, Why};
use crate::query::{Query, Transport, rcode};
use crate::resolv_conf::Turns;
use crate::settings::Settings;
use crate::share::{Share, Shares};
use crate::stats::Stats;

mod cache;
mod host_servers;
mod message;
mod received;
mod tls;
mod turns;
mod upstream;

/// The result of a lookup: why there is none if no upstream gave an answer.
type Result = std::result::Result<Rc<Received>, Why>;
/// What the waiters for a lookup see: none yet, or its result.
type Waiting = watch::Receiver<Option<Result>>;

/// How long an asker waits for the servers where there is an answer past its time (RFC 8767 section 5, the client response
/// timer).
const STALE_AFTER: Duration = Duration::from_millis(1800);

/// The lookups under way, and the answers to earlier ones.
pub(crate) struct Forwarder {
    stats: Arc<Stats>,
    host: RefCell<HostServers>,
    cache: RefCell<Cache>,
    upstreams: Rc<Upstreams>,
    /// What this server is called.
    server: String,
    /// From the settings; otherwise as the host's resolv.conf says.
    turns: Option<Turns>,
    under_way: RefCell<HashMap<Key, Waiting>>,
    /// Slots for lookups under way, each charged to its first asker.
    lookups: Rc<Shares>,
    /// Slots for all who wait for a lookup.
    waiting: Rc<Shares>,
}

impl Forwarder {
    /// # Errors
    /// Name servers are to be asked by TLS, and cannot be.
    pub(crate) fn new(settings: &Settings, stats: Arc<Stats>) -> std::result::Result<Rc<Self>, Error> {
        let limits = settings.limits;
        let upstreams = Upstreams::new(limits.upstream_patience, limits.lookup, Tls::new(settings)?);
        Ok(Rc::new(Self {
            stats,
            host: RefCell::new(HostServers::new(settings)),
            cache: RefCell::new(Cache::new(limits.cache_entries, limits.cache_bytes)),
            upstreams: Rc::new(upstreams),
            server: settings.server.clone(),
            turns: limits.turns,
            under_way: RefCell::default(),
            lookups: Shares::new(limits.lookups),
            waiting: Shares::new(limits.waiting),
        }))
    }

    /// Writes the answer into `out`, which must be empty, if it is cached and good enough. One that will soon be missed is
    /// renewed meanwhile.
    pub(crate) fn recall(
        self: &Rc<Self>,
        forward: &Forward,
        transport: Transport,
        out: &mut Vec<u8>,
    ) -> bool {
        let key = Key::new(&forward.query, self.servers(forward));
        let Some(kept) = self.cache.borrow_mut().get(&key, Instant::now()) else { return false };
        match kept.age {
            Age::Stale { in_vain: false } => return false,
            Age::Stale { in_vain: true } => self.write_stale(&kept.received, forward, transport, out),
            Age::Fresh | Age::Due => {
                self.stats.cache_hits.one();
                self.write(&kept.received, (forward, None), transport, out);
                kept.received.shape.grow_old(&kept.received.bytes, kept.since, out);
            }
        }
        if kept.age == Age::Due {
            // Its result is for the cache.
            drop(self.lookup(forward, transport));
        }
        true
    }

    /// An upstream's answer; where there is none in time, what one said before, or SERVFAIL.
    pub(crate) async fn resolve(self: &Rc<Self>, forward: &Forward, transport: Transport) -> Vec<u8> {
        let mut out = Vec::new();
        let stale = self.stale(forward);
        let found = self.find(forward, transport);
        let found = match &stale {
            None => found.await,
            Some(_) => timeout(STALE_AFTER, found).await.unwrap_or(Err(Why::NO_SERVER)),
        };
        match (found, stale) {
            (Ok(received), None) => self.write(&received, (forward, None), transport, &mut out),
            (Ok(received), Some(_)) if !message::is_unhelpful(&received.bytes) => {
                self.write(&received, (forward, None), transport, &mut out);
            }
            (_, Some(stale)) => self.write_stale(&stale, forward, transport, &mut out),
            (Err(why), None) => self.write_failure(&forward.query, why, transport, &mut out),
        }
        out
    }

    async fn find(self: &Rc<Self>, forward: &Forward, transport: Transport) -> Result {
        let _place = self.waiting.take(forward.asker).ok_or(Why::TOO_MANY)?;
        let mut waiting = self.lookup(forward, transport).ok_or(Why::TOO_MANY)?;
        let seen = waiting.wait_for(Option::is_some).await;
        seen.ok().and_then(|seen| seen.clone()).unwrap_or(Err(Why::NO_SERVER))
    }

    fn stale(&self, forward: &Forward) -> Option<Rc<Received>> {
        let key = Key::new(&forward.query, self.servers(forward));
        let kept = self.cache.borrow_mut().get(&key, Instant::now())?;
        matches!(kept.age, Age::Stale { .. }).then_some(kept.received)
    }

    fn write(
        &self,
        received: &Received,
        (forward, why): (&Forward, Option<Why>),
        transport: Transport,
        out: &mut Vec<u8>,
    ) {
        let (query, limit) = (&forward.query, forward.query.limit(transport));
        received.shape.write(&received.bytes, query, limit, out);
        if let Some(opt) = received.shape.opt(out) {
            opt.complete(query, (&self.server, why), limit, out);
        }
    }

    fn write_stale(&self, received: &Received, forward: &Forward, transport: Transport, out: &mut Vec<u8>) {
        self.stats.stale.one();
        self.write(received, (forward, Some(Why::STALE)), transport, out);
        received.shape.make_stale(&received.bytes, out);
    }

    fn write_failure(&self, query: &Query, why: Why, transport: Transport, out: &mut Vec<u8>) {
        if why == Why::TOO_MANY { &self.stats.overload } else { &self.stats.servfail }.one();
        query.bare_reply(query.reply_flags(rcode::SERVFAIL), out);
        if let Some(opt) = query.edns.and_then(|_| Opt::bare(out)) {
            opt.complete(query, (&self.server, Some(why)), query.limit(transport), out);
        }
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
            lookup.keep(&received);
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

impl UnderWay {
    fn keep(&self, result: &Result) {
        let (mut cache, now) = (self.forwarder.cache.borrow_mut(), Instant::now());
        match result {
            Ok(received) if !message::is_unhelpful(&received.bytes) => {
                cache.put(self.key.clone(), received.clone(), now);
            }
            _ => cache.in_vain(&self.key, now),
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.forwarder.under_way.borrow_mut().remove(&self.key);
    }
}
