//! This host's part in the cluster: one task that keeps the registry up to date about this host, and this host's view
//! up to date with the registry.
//!
//! Compares what this host has ([`Own`]) with what the registry holds of it, and writes the difference: after each full
//! read, whenever something of ours is missing, and whenever a write failed. Nothing must ever wait for it but a claim,
//! which has a time limit.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use ipnet::Ipv4Net;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::info;

use crate::change::Change;
use crate::claim::{self, Asked, ClaimError};
use crate::command::{Command, Owner};
use crate::identity::Identity;
use crate::key::Key;
use crate::names::Others;
use crate::recall::Recall;
use crate::store::{News, Reader, Store, StoreError, Writer};
use crate::view::{Registry, View};
use crate::world::World;

mod claims;
mod freeing;
mod link;
mod news;
mod own;
mod recalling;
mod suspects;
mod writes;

pub(crate) use own::Own;

/// How often to check suspect hosts.
const TICK: Duration = Duration::from_millis(250);
/// The shortest and the longest pause between two attempts to reach a registry.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How many writes may be in flight at once.
const AT_ONCE: usize = 128;

pub(crate) struct Member<S: Store> {
    /// None while it is being opened.
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
    /// When to try the registry again.
    again: Instant,
    pause: Duration,
    /// Keys whose writes are in flight.
    busy: HashSet<String>,
    /// The registry may differ from what this host has.
    dirty: bool,
    /// When to retry failed writes.
    retry_at: Option<Instant>,
    waiting: Vec<Pending>,
    /// Callers waiting until the registry has a container's record, by the container's id.
    telling: Vec<(String, oneshot::Sender<()>)>,
    jobs: FuturesUnordered<LocalBoxFuture<'static, Done>>,
    /// When to probe a host next.
    ask_at: HashMap<String, Instant>,
    recall: Option<Recall>,
    /// Our knowledge has changed since it was last saved.
    unsaved: bool,
    /// Saving again before this time is not worth it.
    save_at: Instant,
    told: Option<Registry>,
}

/// A store, and the result of the attempt to reach it.
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
                    info!(host, answered, "probed a host that is missing from the registry");
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

    /// Starts a job that ends by reporting this key's state.
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
                // Known before the registry answers: what an earlier worker saved.
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

    /// Answers the callers whose record the registry has, or for which there is no registry to tell.
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

    /// Publishes the new view to the rest of Selvedge, if it changed.
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
