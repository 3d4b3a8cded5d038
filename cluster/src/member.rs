//! This host's part in the cluster: one task that keeps the registry true of this host, and this host's view true of
//! the registry.
//!
//! What this host has ([`Own`]) and what the registry holds of it are compared, and the difference is written: after
//! each look at all, whenever something of ours is missing, and whenever a write failed. Must never be waited for by
//! anything but a claim, which has a time limit.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use ipnet::Ipv4Net;
use selvedge_registry::table::SharedTable;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{debug, info, warn};

use crate::claim::{self, ClaimError};
use crate::handle::{Command, Owner, Reserve};
use crate::key::{Claim, HostInfo, Key, Settings};
use crate::probe;
use crate::recall::Recall;
use crate::store::{Lifetime, News, Reader, Store, StoreError, Writer};
use crate::view::{Registry, View};
use crate::world::World;

mod freeing;
mod own;
pub(crate) use own::Own;

/// How often doubts are looked at.
const TICK: Duration = Duration::from_millis(250);
/// The first pause, and the longest, between two tries to reach a registry.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Writes that are under way at once.
const AT_ONCE: usize = 128;

/// What a member is and may do.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The name of this host in the registry.
    pub host: String,
    /// Tells this worker from its predecessor and its successor.
    pub instance: String,
    /// What this host says of itself.
    pub info: HostInfo,
    /// All container addresses.
    pub pool: Ipv4Net,
    /// Prefix length of a block.
    pub block_size: u8,
    /// For how long a host must be away before its blocks are freed.
    pub free_after: Duration,
    /// Whether the first block is the pool's first: where there is nobody to compete with.
    pub alone: bool,
}

pub(crate) struct Member<S: Store> {
    /// Not here while it is being opened.
    store: Option<S>,
    opening: Option<LocalBoxFuture<'static, Opened<S>>>,
    pub(crate) identity: Identity,
    pub(crate) world: World,
    pub(crate) own: Own,
    owner: Owner,
    commands: mpsc::UnboundedReceiver<Command>,
    views: watch::Sender<Arc<View>>,
    link: Option<(S::Writer, S::Reader)>,
    state: Registry,
    /// When the registry is tried again.
    again: Instant,
    pause: Duration,
    /// Keys that are being written.
    busy: HashSet<String>,
    /// Something of ours may not be as it should in the registry.
    dirty: bool,
    waiting: Vec<Pending>,
    jobs: FuturesUnordered<LocalBoxFuture<'static, Done>>,
    /// When a host is to be asked next whether it lives.
    ask_at: HashMap<String, Instant>,
    recall: Option<Recall>,
    /// What is known is not yet written down.
    unsaved: bool,
    /// Before this it is not worth to be written down again.
    save_at: Instant,
    told: Option<Registry>,
}

/// A store, and what became of the try to reach it.
type Opened<S> = (S, Result<(<S as Store>::Writer, <S as Store>::Reader), StoreError>);

/// A claim that waits for the registry.
struct Pending {
    command: Command,
    until: Instant,
}

pub(crate) enum Done {
    Wrote { change: Change, result: Result<bool, StoreError> },
    Block { result: Result<Ipv4Net, ClaimError>, reply: oneshot::Sender<Result<Ipv4Net, ClaimError>> },
    Address { asked: Asked, result: Result<(), ClaimError> },
    Saw { key: Key, result: Result<Option<String>, StoreError> },
    Probed { host: String, answered: bool },
    Nothing,
}

/// An address that a container wants.
pub(crate) struct Asked {
    pub(crate) address: Ipv4Addr,
    pub(crate) container: String,
    pub(crate) reply: oneshot::Sender<Result<(), ClaimError>>,
}

/// One write that makes the registry true of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Create(Key, String, Lifetime),
    Replace(Key, String, String),
    Delete(Key, Option<String>),
}

impl Change {
    fn key(&self) -> &Key {
        match self {
            Self::Create(key, ..) | Self::Replace(key, ..) | Self::Delete(key, _) => key,
        }
    }
}

impl<S: Store + 'static> Member<S> {
    pub(crate) fn new(
        store: S,
        identity: Identity,
        table: SharedTable,
        owner: Owner,
        (commands, views): (mpsc::UnboundedReceiver<Command>, watch::Sender<Arc<View>>),
    ) -> Self {
        let world = World::new(&identity.host, table);
        Self {
            store: Some(store),
            opening: None,
            identity,
            world,
            own: Own::default(),
            owner,
            commands,
            views,
            link: None,
            state: Registry::Away("not tried yet".to_owned()),
            again: Instant::now(),
            pause: SHORTEST_PAUSE,
            busy: HashSet::new(),
            dirty: false,
            waiting: Vec::new(),
            jobs: FuturesUnordered::new(),
            ask_at: HashMap::new(),
            recall: None,
            unsaved: false,
            save_at: Instant::now(),
            told: None,
        }
    }

    /// Begins with what an earlier worker wrote down there, and writes down there what it learns.
    pub(crate) fn recalling(mut self, memory: Option<File>) -> Self {
        let Some(recall) = memory.map(Recall::new) else { return self };
        if let Some(all) = recall.load() {
            info!(keys = all.len(), "what the registry said last is known");
            self.world.take(News::All(all));
            self.own.yield_to(&self.world, &self.identity.host);
        }
        self.recall = Some(recall);
        self
    }

    /// Writes down what is known, but spends no more than a hundredth of the time on it.
    fn save(&mut self) {
        let Some(recall) = self.recall.as_ref().filter(|_| self.unsaved && Instant::now() >= self.save_at) else {
            return;
        };
        let began = Instant::now();
        if let Err(error) = recall.save(self.world.dump().into_iter()) {
            warn!(%error, "cannot write down what the registry said");
        }
        self.unsaved = false;
        self.save_at = Instant::now() + (began.elapsed() * 100).max(Duration::from_millis(500));
    }

    /// Runs until the handle is dropped.
    pub(crate) async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.tell();
            self.begin_to_open();
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => return,
                },
                opened = pending(&mut self.opening) => self.opened(opened),
                news = next(&mut self.link) => self.news(news),
                Some(done) = self.jobs.next(), if !self.jobs.is_empty() => self.done(done),
                _ = tick.tick() => self.look_around(),
            }
            self.assert();
        }
    }

    /// Tries to reach the registry, if there is none and it is time.
    fn begin_to_open(&mut self) {
        if self.link.is_some() || Instant::now() < self.again {
            return;
        }
        if let Some(mut store) = self.store.take() {
            self.opening = Some(Box::pin(async move {
                let opened = store.open().await;
                (store, opened)
            }));
        }
    }

    fn opened(&mut self, (store, opened): Opened<S>) {
        self.opening = None;
        self.store = Some(store);
        match opened {
            Ok(link) => {
                self.link = Some(link);
                self.pause = SHORTEST_PAUSE;
            }
            Err(error) => self.lost(error),
        }
    }

    fn lost(&mut self, error: StoreError) {
        let state = match error {
            StoreError::Lost(why) => Registry::Away(why),
            StoreError::Refused(why) => Registry::Refused(why),
        };
        match &state {
            _ if self.state == state => {}
            Registry::Away(why) if self.state == Registry::Connected => {
                warn!(why, "the registry is lost; what is known stays in use");
            }
            Registry::Refused(why) => warn!(why, "the registry refuses us"),
            _ => debug!(?state, "the registry cannot be reached"),
        }
        self.state = state;
        self.link = None;
        self.busy.clear();
        self.world.changed = true;
        self.again = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    fn news(&mut self, news: Result<News, StoreError>) {
        let news = match news {
            Ok(news) => news,
            Err(error) => return self.lost(error),
        };
        let all = matches!(news, News::All(_));
        if let News::Put(key, _) | News::Gone(key) = &news {
            self.dirty |= self.is_own(key);
        }
        let reserved = address_of(&news);
        self.world.take(news);
        self.unsaved = true;
        if all {
            self.read_all();
        } else if let Some(address) = reserved {
            self.heed(address);
        }
    }

    /// Whether others should leave this key alone: a change of it is looked into.
    fn is_own(&self, key: &str) -> bool {
        let host = &self.identity.host;
        match Key::parse(key) {
            Some(
                Key::Host(name)
                | Key::Gone(name)
                | Key::Live { host: name, .. }
                | Key::Record { host: name, .. },
            ) => name == *host,
            Some(Key::Block(block)) => self.own.blocks.contains(&block),
            Some(Key::Address(address)) => self.own.addresses.contains_key(&address),
            Some(Key::Settings) => true,
            None => false,
        }
    }

    fn read_all(&mut self) {
        if let Err(why) = self.agrees() {
            return self.lost(StoreError::Refused(why));
        }
        if self.state != Registry::Connected {
            info!(hosts = self.world.peers.len() + 1, "the registry is there");
        }
        self.state = Registry::Connected;
        self.own.yield_to(&self.world, &self.identity.host);
        self.dirty = true;
        self.heed_all();
    }

    fn heed_all(&mut self) {
        let claims: Vec<Ipv4Addr> = self.world.claims.keys().copied().collect();
        claims.into_iter().for_each(|address| self.heed(address));
    }

    fn agrees(&self) -> Result<(), String> {
        match &self.world.settings {
            Some(settings) if settings.pool != self.identity.pool => Err(format!(
                "this registry is for the pool {}, and this host has --pool {}",
                settings.pool, self.identity.pool
            )),
            Some(settings) if settings.block_size != self.identity.block_size => Err(format!(
                "this registry is for blocks of /{}, and this host has --block-size {}",
                settings.block_size, self.identity.block_size
            )),
            _ => Ok(()),
        }
    }

    /// Writes what is not yet so in the registry.
    fn assert(&mut self) {
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        let Some((writer, _)) = self.link.as_ref().filter(|_| self.state == Registry::Connected) else {
            return;
        };
        self.own.yield_to(&self.world, &self.identity.host);
        let mut changes = self.own.difference(&self.world, &self.identity);
        if changes.is_empty() && self.busy.is_empty() {
            // Last of all: who sees us alive may believe that what he reads of us is all.
            changes.extend(self.own.presence(&self.world, &self.identity));
        }
        for change in changes {
            let key = change.key().to_string();
            // The others come when some of these are done, each of which looks anew.
            if self.busy.len() >= AT_ONCE {
                break;
            }
            if self.busy.insert(key) {
                self.jobs.push(Box::pin(write(writer.clone(), change)));
            }
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Wrote { change, result } => self.wrote(&change, result),
            Done::Block { result, reply } => {
                if let Ok(block) = &result {
                    self.own.blocks.insert(*block);
                    self.world.put(&Key::Block(*block), &self.identity.host);
                }
                self.tell();
                let _ = reply.send(result);
            }
            Done::Address { asked, result } => {
                if result.is_ok() {
                    self.own.addresses.insert(asked.address, asked.container);
                }
                let _ = asked.reply.send(result);
            }
            Done::Saw { key, result } => self.saw(&key, result),
            Done::Probed { host, answered } => {
                let cut_off = !self.is_connected();
                if self.world.asked(&host, answered, cut_off) {
                    info!(host, answered, "asked a host that the registry tells nothing of");
                }
            }
            Done::Nothing => {}
        }
    }

    fn wrote(&mut self, change: &Change, result: Result<bool, StoreError>) {
        self.busy.remove(&change.key().to_string());
        self.dirty = true;
        match (change, result) {
            (Change::Create(key, value, _), Ok(true)) | (Change::Replace(key, _, value), Ok(true)) => {
                self.world.put(key, value);
            }
            (Change::Delete(key, _), Ok(_)) => self.world.remove(key),
            // The news of why it could not be is on its way, and may be late: then it is tried again.
            (Change::Create(..) | Change::Replace(..), Ok(false)) => self.look_again(change.key().clone()),
            (_, Err(error)) if self.link.is_some() => self.lost(error),
            (_, Err(_)) => {}
        }
    }

    /// Reads one key anew: somebody was there before us.
    fn look_again(&mut self, key: Key) {
        let Some((writer, _)) = &self.link else { return };
        let writer = writer.clone();
        self.busy.insert(key.to_string());
        self.jobs.push(Box::pin(async move {
            let result = writer.get(&key.to_string()).await;
            Done::Saw { key, result }
        }));
    }

    fn saw(&mut self, key: &Key, result: Result<Option<String>, StoreError>) {
        self.busy.remove(&key.to_string());
        self.dirty = true;
        match result {
            Ok(Some(value)) => self.world.put(key, &value),
            Ok(None) => self.world.remove(key),
            Err(error) if self.link.is_some() => self.lost(error),
            Err(_) => {}
        }
    }

    pub(crate) fn writer(&self) -> Option<S::Writer> {
        self.link.as_ref().map(|(writer, _)| writer.clone())
    }

    pub(crate) fn is_busy(&self, key: &str) -> bool {
        self.busy.contains(key)
    }

    /// Begins a job that ends with what is to be seen of this key.
    pub(crate) fn begin(&mut self, key: String, job: LocalBoxFuture<'static, Done>) {
        self.busy.insert(key);
        self.jobs.push(job);
    }

    fn is_connected(&self) -> bool {
        self.link.is_some() && self.state == Registry::Connected
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Publish { id, text } => {
                self.own.publish(&self.identity.host, id, text);
                self.dirty = true;
            }
            Command::Withdraw { id } => {
                self.own.withdraw(&self.identity.host, &id);
                self.dirty = true;
            }
            Command::Settled => {
                self.own.settled = true;
                self.dirty = true;
            }
            Command::Blocks(blocks) => {
                self.own.blocks.extend(blocks);
                self.dirty = true;
                self.world.changed = true;
                // Known before the registry is: what an earlier worker wrote down.
                self.heed_all();
            }
            Command::GiveBack(block) => {
                self.own.blocks.remove(&block);
                self.own.given_back.insert(block);
                self.dirty = true;
                self.world.changed = true;
            }
            Command::HasAddress { address, container } => {
                self.own.addresses.insert(address, container);
                self.dirty = true;
            }
            Command::ReleaseAddress { address, container } => {
                self.own.release_address(address, &container);
                self.dirty = true;
            }
            Command::Leave(reply) => self.leave(reply),
            command
            @ (Command::ClaimBlock { .. } | Command::ClaimAddress { .. } | Command::Forget { .. }) => {
                let until = Instant::now() + claim::PATIENCE;
                self.claim(Pending { command, until });
            }
        }
    }

    /// Begins a claim, or lets it wait for the registry for a while.
    fn claim(&mut self, pending: Pending) {
        let Some((writer, _)) = self.link.as_ref().filter(|_| self.state == Registry::Connected) else {
            return self.waiting.push(pending);
        };
        let writer = writer.clone();
        let host = self.identity.host.clone();
        self.jobs.push(match pending.command {
            Command::ClaimBlock { reply } => {
                let (pool, candidates) =
                    (self.identity.pool, claim::free_blocks(&self.identity, &self.world));
                Box::pin(async move {
                    Done::Block { result: claim::block(writer, &host, pool, candidates).await, reply }
                })
            }
            Command::ClaimAddress { address, container, reply } => {
                let block = claim::block_of(address, self.identity.block_size);
                let asked = Asked { address, container, reply };
                Box::pin(async move {
                    let result = claim::address(writer, host, block, &asked, pending.until).await;
                    Done::Address { asked, result }
                })
            }
            Command::Forget { host, reply } => self.forget(writer, host, reply),
            _ => return,
        });
    }

    fn leave(&mut self, reply: oneshot::Sender<()>) {
        let Some(writer) = self.writer() else {
            let _ = reply.send(());
            return;
        };
        let key = Key::Live { host: self.identity.host.clone(), instance: self.identity.instance.clone() };
        self.own.left = true;
        self.jobs.push(Box::pin(async move {
            let _ = writer.delete(&key.to_string(), None).await;
            let _ = reply.send(());
            Done::Nothing
        }));
    }

    /// A claim of another host in a block of ours: whether the address is free is ours to say.
    fn heed(&mut self, address: Ipv4Addr) {
        let ours = self.own.blocks.iter().any(|block| block.contains(&address));
        let claim = self.world.claims.get(&address).filter(|claim| ours && claim.host != self.identity.host);
        let Some(claim) = claim else {
            let _ = (self.owner)(address, Reserve::Free);
            return;
        };
        let answer = claim::verdict(claim, (self.owner)(address, Reserve::For(&claim.host)).is_ok());
        let Some((writer, _)) = self.link.as_ref().filter(|_| answer != claim.answer) else { return };
        let (old, new) = (claim::text(claim), claim::text(&Claim { answer, ..claim.clone() }));
        let writer = writer.clone();
        self.jobs.push(Box::pin(async move {
            let _ = writer.replace(&Key::Address(address).to_string(), &old, &new).await;
            Done::Nothing
        }));
    }

    /// What is to be done without news: hosts in doubt are asked, claims that waited too long are answered.
    fn look_around(&mut self) {
        let now = Instant::now();
        let connected = self.is_connected();
        for pending in std::mem::take(&mut self.waiting) {
            match connected {
                true => self.claim(pending),
                false if now >= pending.until => refuse(pending.command, &self.state),
                false => self.waiting.push(pending),
            }
        }
        self.ask_doubtful(now, !connected);
        self.save();
        if connected {
            self.look_for_the_gone(unix_time());
        }
    }

    fn ask_doubtful(&mut self, now: Instant, cut_off: bool) {
        let mut due = Vec::new();
        for (name, peer) in &self.world.peers {
            let Some(info) = peer.info.as_ref().filter(|_| peer.is_in_doubt(cut_off) || !peer.proved) else {
                continue;
            };
            if self.ask_at.get(name).is_none_or(|at| now >= *at) {
                due.push((name.clone(), std::net::SocketAddr::new(info.address, info.port), peer.is_alive()));
            }
        }
        self.ask_at.retain(|name, _| self.world.peers.contains_key(name));
        for (host, address, alive) in due.into_iter().take(probe::AT_ONCE) {
            self.ask_at.insert(host.clone(), now + probe::pause(alive, cut_off));
            self.jobs.push(Box::pin(async move {
                Done::Probed { answered: probe::answers(address).await, host }
            }));
        }
    }

    /// Lets the rest of Selvedge see what has changed.
    fn tell(&mut self) {
        let changed = std::mem::take(&mut self.world.changed);
        if !changed && self.told.as_ref() == Some(&self.state) {
            return;
        }
        self.told = Some(self.state.clone());
        let view = View {
            registry: self.state.clone(),
            read: self.world.read,
            own_blocks: self.own.blocks.iter().copied().collect(),
            ..self.world.view()
        };
        self.views.send_if_modified(|old| {
            let differs = **old != view;
            if differs {
                *old = Arc::new(view);
            }
            differs
        });
    }
}

fn refuse(command: Command, state: &Registry) {
    let error = ClaimError::Unreachable(match state {
        Registry::Away(why) | Registry::Refused(why) => why.clone(),
        Registry::Connected => String::new(),
    });
    match command {
        Command::ClaimBlock { reply } => drop(reply.send(Err(error))),
        Command::ClaimAddress { reply, .. } => drop(reply.send(Err(error))),
        Command::Forget { reply, .. } => drop(reply.send(Err(error.to_string()))),
        _ => {}
    }
}

fn address_of(news: &News) -> Option<Ipv4Addr> {
    let (News::Put(key, _) | News::Gone(key)) = news else { return None };
    match Key::parse(key) {
        Some(Key::Address(address)) => Some(address),
        _ => None,
    }
}

async fn next<W, R: Reader>(link: &mut Option<(W, R)>) -> Result<News, StoreError> {
    match link {
        Some((_, reader)) => reader.next().await,
        None => std::future::pending().await,
    }
}

async fn pending<T>(opening: &mut Option<LocalBoxFuture<'static, T>>) -> T {
    match opening {
        Some(opening) => opening.await,
        None => std::future::pending().await,
    }
}

async fn write<W: Writer>(writer: W, change: Change) -> Done {
    let key = change.key().to_string();
    let result = match &change {
        Change::Create(_, value, lifetime) => writer.create(&key, value, *lifetime).await,
        Change::Replace(_, old, new) => writer.replace(&key, old, new).await,
        Change::Delete(_, value) => writer.delete(&key, value.as_deref()).await,
    };
    Done::Wrote { change, result }
}

/// Seconds since 1970.
fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// A new content of the registry.
pub(crate) fn settings(identity: &Identity) -> Settings {
    Settings {
        pool: identity.pool,
        block_size: identity.block_size,
        epoch: format!("{:016x}", rand::random::<u64>()),
    }
}
