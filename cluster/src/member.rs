//! This host's part in the cluster: one task that keeps the registry true of this host, and this host's view true of
//! the registry.
//!
//! What this host has ([`Own`]) and what the registry holds of it are compared, and the difference is written: after
//! each look at all, whenever something of ours is missing, and whenever a write failed. Must never be waited for by
//! anything but a claim, which has a time limit.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use ipnet::Ipv4Net;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::info;

use crate::claim::{self, ClaimError};
use crate::handle::{Command, Owner};
use crate::key::{HostInfo, Key, Settings};
use crate::names::Others;
use crate::recall::Recall;
use crate::store::{Lifetime, News, Reader, Store, StoreError, Writer};
use crate::view::{Registry, View};
use crate::world::World;

mod claims;
mod doubts;
mod freeing;
mod link;
mod news;
mod own;
mod recalling;
mod writes;
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
    /// The part of the pool that virtual addresses are taken from; no blocks lie in it.
    pub vips: Option<Ipv4Net>,
    /// Whether each tenant has names of its own for virtual addresses.
    pub by_tenant: bool,
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
    /// When what could not be written is tried again.
    retry_at: Option<Instant>,
    waiting: Vec<Pending>,
    /// Who waits until the registry has a container's record, by the container's id.
    telling: Vec<(String, oneshot::Sender<()>)>,
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
        others: Box<dyn Others>,
        owner: Owner,
        (commands, views): (mpsc::UnboundedReceiver<Command>, watch::Sender<Arc<View>>),
    ) -> Self {
        let world = World::new(&identity.host, others);
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
            retry_at: None,
            waiting: Vec::new(),
            telling: Vec::new(),
            jobs: FuturesUnordered::new(),
            ask_at: HashMap::new(),
            recall: None,
            unsaved: false,
            save_at: Instant::now(),
            told: None,
        }
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
            self.answer_those_who_wait();
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
            Command::Publish { id, text, vips } => {
                self.own.stand_behind(&id, vips);
                self.own.publish(&self.identity.host, id, text);
                self.dirty = true;
            }
            Command::Withdraw { id } => {
                self.own.withdraw(&self.identity.host, &id);
                self.dirty = true;
            }
            Command::Told { id, reply } => self.telling.push((id, reply)),
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

    /// Those whose record the registry has, or that there is nobody to tell of.
    fn answer_those_who_wait(&mut self) {
        let connected = self.is_connected();
        let is_unwritten =
            |id: &String| self.own.records.get(id).is_some_and(|text| !self.world.own.records.contains(text));
        let done = self.telling.extract_if(.., |(id, _)| !(connected && is_unwritten(id)));
        done.for_each(|(_, reply)| _ = reply.send(()));
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

/// Seconds since 1970.
fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// A new content of the registry.
pub(crate) fn settings(identity: &Identity) -> Settings {
    Settings {
        pool: identity.pool,
        block_size: identity.block_size,
        vips: identity.vips,
        epoch: format!("{:016x}", rand::random::<u64>()),
    }
}
