//! This host's side of the network as one: put together once, and kept in step with the cluster's news.
//!
//! Nothing here is on the path of an API call, but for a create that finds every block full.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use selvedge_cluster::claim::ClaimError;
use selvedge_cluster::handle::{self, Cluster, Member};
use selvedge_cluster::view::View;
use selvedge_netsetup::Network;
use selvedge_registry::error::Error;
use selvedge_registry::record::Record;
use selvedge_registry::table::Table;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::MissedTickBehavior;
use tracing::warn;

use crate::addresses::Addresses;
use crate::aside::{self, Aside};
use crate::blocks::{Blocks, Empty};
use crate::directory::Directory;
use crate::host::{JoinError, join, own_address};
use crate::kernel::Kernel;
use crate::letter;
use crate::routes::Routes;
use crate::settings::Settings;
use crate::synced::Synced;
use crate::vip::{self, Draining, Vips};

/// How often to check the kernel without news: a table may have been flushed from outside.
const LOOK: Duration = Duration::from_millis(1500);

/// How long clients of a killed worker wait for the next one to read the registry.
const CLIENTS_WAIT: Duration = Duration::from_millis(100);

/// How many letters of other hosts are read at a time.
const READERS: usize = 64;
/// Pause after a failed accept: the host is out of descriptors.
const BUSY: Duration = Duration::from_millis(20);

/// This host's side of the network.
#[derive(Debug)]
pub struct Datapath {
    settings: Arc<Settings>,
    /// The other hosts.
    pub cluster: Arc<Cluster>,
    /// Who has which address.
    pub addresses: Arc<Addresses>,
    /// The blocks that they are of.
    pub blocks: Blocks,
    /// The routes to the other hosts.
    pub routes: Arc<Routes>,
    /// The names, and the rules between tenants.
    pub directory: Arc<Directory>,
    /// What leads connections to virtual addresses.
    pub vips: Vips,
    /// Whether all containers have been seen.
    pub synced: Arc<Synced>,
}

/// Why there is no such side.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The rules of an earlier worker cannot be read, or nft refuses ours.
    #[error("cannot put --policy tenant in force")]
    Policy(#[source] selvedge_netsetup::Error),
    /// It is no member.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// No thread, or no runtime.
    #[error("cannot start the registry's thread")]
    Thread(#[source] std::io::Error),
}

impl Datapath {
    /// Goes on where an earlier worker stopped. `memory` is where the registry's last words stand; `draining` says which
    /// addresses get no new connections.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(
        settings: Settings,
        (table, network): (Table, &Arc<Network>),
        addresses: Arc<Addresses>,
        memory: Option<OwnedFd>,
        draining: Draining,
    ) -> Result<Self, StartError> {
        let kernel = Kernel::of(&settings, network);
        let (datapath, member) = Self::over(kernel, (settings, draining), table, addresses, memory).await?;
        handle::run(member).map_err(StartError::Thread)?;
        Ok(datapath)
    }

    /// The same over any kernel; nothing is heard of the registry before the second is run.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn over(
        kernel: Kernel,
        (settings, draining): (Settings, Draining),
        table: Table,
        addresses: Arc<Addresses>,
        memory: Option<OwnedFd>,
    ) -> Result<(Self, Member), StartError> {
        let settings = Arc::new(settings);
        let directory = Arc::new(Directory::new(&settings, table, Arc::clone(&kernel.rules)));
        directory.policy.begin().await.map_err(StartError::Policy)?;
        let vips = Vips::new(Arc::clone(&settings), &directory, &kernel, draining);
        let (cluster, member) =
            join(&settings, &*kernel.routes, directory.others(), &addresses, memory).await?;
        let cluster = Arc::new(cluster);
        let routes = Arc::new(Routes::new(Arc::clone(&settings), kernel.routes, Arc::clone(&cluster)));
        let shared = (Arc::clone(&settings), Arc::clone(&addresses));
        let blocks = Blocks::new(shared.0, shared.1, Arc::clone(&cluster), Arc::clone(&routes));
        let others = (!settings.is_local()).then(|| Arc::clone(&cluster));
        let synced = Arc::new(Synced::new(others));
        let datapath = Self { settings, cluster, addresses, blocks, routes, directory, vips, synced };
        Ok((datapath, member))
    }

    /// A container of this host runs, or is called something else: its names are answered, here at once and elsewhere soon.
    /// Gives back what is wrong with those that are left out.
    pub fn publish(&self, record: Record, aliases: &[IpAddr]) -> Vec<Error> {
        self.cluster.publish(&record);
        self.directory.put(record, aliases)
    }

    /// A container of this host has ended.
    pub fn withdraw(&self, id: &str) {
        if self.directory.remove(id) {
            self.cluster.withdraw(id);
        }
    }

    /// Waits until the registry has been read, and this host has a block, if that does not take long. Where an earlier
    /// worker has left a block, clients may be waiting, and there is something to serve them with.
    pub async fn first_look(&self, limit: Duration) {
        if self.settings.is_local() {
            return;
        }
        let is_heir = !self.cluster.views().borrow().own_blocks.is_empty();
        let limit = if is_heir { limit.min(CLIENTS_WAIT) } else { limit };
        self.directory.set_known(self.cluster.views().borrow().read);
        let mut views = self.cluster.views();
        let read = views.wait_for(|view| view.read);
        if tokio::time::timeout(limit, read).await.is_err() {
            let registry = &self.settings.cluster.registry_text;
            warn!(registry, state = ?self.cluster.views().borrow().registry, "the registry does not answer; serving without it until it does");
            return;
        }
        let view = Arc::clone(&self.cluster.views().borrow());
        if let Err(reason) = self.follow(&view).await {
            warn!(%reason, "this host has no room for another container");
        }
    }

    /// Follows the cluster for ever.
    pub async fn keep(&self) {
        let mut views = self.cluster.views();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut empty_since = Empty::new();
        loop {
            tokio::select! {
                changed = views.changed() => if changed.is_err() { return },
                _ = look.tick() => {}
            }
            let view = Arc::clone(&views.borrow_and_update());
            self.directory.policy.hosts(own_address(&self.settings, &view.own_blocks), &view);
            // A create that finds no room tells its client.
            let _ = self.follow(&view).await;
            self.routes.keep(&view).await;
            self.blocks.give_back(&mut empty_since).await;
        }
    }

    /// Keeps the rules between tenants in step, for ever.
    pub async fn keep_policy(&self) {
        self.directory.keep(&self.cluster, &self.synced).await;
    }

    /// Accepts the connections by which other hosts see that we live, and reads their letters.
    pub async fn answer_peers(&self, listener: std::net::TcpListener) {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return warn!(%error, "other hosts cannot see that this one lives"),
        };
        // They end with us: what a worker that leaves does not answer, the next one is asked.
        let mut readers = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = listener.accept(), if readers.len() < READERS => match accepted {
                    Ok((stream, from)) => readers.push(self.read_letter(stream, from.ip())),
                    Err(_) => tokio::time::sleep(BUSY).await,
                },
                Some(()) = readers.next(), if !readers.is_empty() => {}
            }
        }
    }

    async fn read_letter(&self, mut stream: TcpStream, from: IpAddr) {
        let Some(peer) = letter::sender(&self.cluster.views().borrow(), from) else { return };
        let Some(text) = letter::read(&mut stream).await else { return };
        let Some(aside) = Aside::parse(&text) else { return self.directory.policy.hear(&peer, &text).await };
        let what = (format!("{}/{}", peer.name, aside.container), aside.for_long);
        let done = vip::stand_aside(&self.vips, what, &self.cluster, &self.synced);
        if tokio::time::timeout(aside::PATIENCE, done).await.is_ok() {
            // Who is gone has given up.
            let _ = aside::confirm(&mut stream).await;
        }
    }

    /// A container of this host is about to be stopped, and has published that it takes no connections: returns when no host
    /// of the cluster sends it new ones, or a host that does not say so has been waited for long enough (2 s).
    pub async fn lead_elsewhere(&self, id: &str, for_long: Duration) {
        let aside = Aside::new(id, for_long);
        let hosts = aside::to_tell(&self.cluster.views().borrow().peers);
        let own = tokio::time::timeout(aside::PATIENCE, self.balance());
        let (_, silent) = tokio::join!(own, aside::tell(&aside, self.cluster.address(), hosts));
        for (host, error) in silent {
            warn!(container = aside.container, host, %error, "does not say that it sends no new connections to a container that is about to be stopped; the stop does not wait for it any longer");
        }
    }

    /// Keeps virtual addresses in step, for ever.
    pub async fn keep_vips(&self) {
        vip::keep(&self.vips, &self.cluster, &self.synced).await;
    }

    /// Brings virtual addresses into step once.
    pub async fn balance(&self) {
        vip::balance(&self.vips, &self.cluster, &self.synced).await;
    }

    async fn follow(&self, view: &View) -> Result<(), ClaimError> {
        self.name_hosts(view);
        if view.read {
            self.directory.set_known(true);
        }
        self.blocks.follow(view).await
    }

    /// Takes out what a worker of another configuration left in the kernel.
    ///
    /// # Errors
    /// The kernel or nft refuses it.
    pub async fn clear_away(&self) -> Result<(), selvedge_netsetup::Error> {
        self.directory.policy.clear_away().await?;
        self.vips.clear_away().await
    }

    /// Mesos-DNS has names for the hosts of tasks.
    fn name_hosts(&self, view: &View) {
        if !self.settings.mesos {
            return;
        }
        let peers =
            view.peers.iter().filter_map(|peer| Some((peer.name.as_str(), peer.info.as_ref()?.address)));
        let own = Some(("", self.cluster.address())).filter(|(_, address)| !address.is_unspecified());
        let four = |(name, address): (&str, IpAddr)| match address {
            IpAddr::V4(address) => Some((name.into(), address)),
            IpAddr::V6(_) => None,
        };
        let hosts: std::collections::HashMap<Box<str>, Ipv4Addr> =
            peers.chain(own).filter_map(four).collect();
        self.directory.set_hosts(hosts);
    }
}
