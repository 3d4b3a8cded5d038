//! The face of the crate: what the rest of Selvedge asks of the cluster.
//!
//! Everything is the member's work, on a thread of its own. A slow registry must never hold up a request.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use futures_util::future::LocalBoxFuture;
use ipnet::Ipv4Net;
use selvedge_registry::record::Record;
use tokio::sync::{mpsc, oneshot, watch};

use crate::claim::ClaimError;
use crate::command::Command;
pub use crate::command::{Owner, Reserve};
use crate::identity::Identity;
use crate::key::write_record;
use crate::member;
use crate::names::Others;
use crate::recall::Remembered;
#[cfg(feature = "etcd")]
use crate::store::etcd::Etcd;
use crate::store::memory::Memory;
#[cfg(feature = "zookeeper")]
use crate::store::zookeeper::Zookeeper;
use crate::store::{Servers, Store};
use crate::view::View;

/// The kind of registry.
#[derive(Debug, Clone)]
pub enum Kind {
    /// None: this host is alone, or (in tests) shares memory with others.
    Local(Memory),
    /// Apache ZooKeeper.
    #[cfg(feature = "zookeeper")]
    Zookeeper(Servers),
    /// etcd.
    #[cfg(feature = "etcd")]
    Etcd(Servers),
}

impl Kind {
    /// The registry of a URL's scheme; `None` if this build has no such registry.
    #[must_use]
    pub fn of(scheme: &str, servers: Servers) -> Option<Self> {
        match scheme {
            #[cfg(feature = "zookeeper")]
            "zookeeper" => Some(Self::Zookeeper(servers)),
            #[cfg(feature = "etcd")]
            "etcd" => Some(Self::Etcd(servers)),
            _ => {
                drop(servers);
                None
            }
        }
    }

    /// Its servers, if it has any.
    #[must_use]
    pub fn servers(&self) -> Option<&Servers> {
        match self {
            Self::Local(_) => None,
            #[cfg(feature = "zookeeper")]
            Self::Zookeeper(servers) => Some(servers),
            #[cfg(feature = "etcd")]
            Self::Etcd(servers) => Some(servers),
        }
    }
}

/// This host's part in the cluster. Its thread ends when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    commands: mpsc::UnboundedSender<Command>,
    views: watch::Receiver<Arc<View>>,
    address: IpAddr,
    by_tenant: bool,
}

/// This host's part in the cluster, not begun yet: made on one thread, and run on the one that then has it for good.
pub type Member = Box<dyn FnOnce() -> LocalBoxFuture<'static, ()> + Send>;

/// Runs a member on a thread of its own, until its handle is dropped.
///
/// # Errors
/// The thread or its runtime cannot be started.
pub fn run(member: Member) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = std::thread::Builder::new().name("registry".to_owned());
    thread.spawn(move || runtime.block_on(member())).map(drop)
}

impl Cluster {
    /// Joins the cluster.
    ///
    /// # Errors
    /// The thread or its runtime cannot be started.
    pub fn start(
        kind: Kind,
        identity: Identity,
        others: Box<dyn Others>,
        owner: Owner,
        remembered: Remembered,
    ) -> std::io::Result<Self> {
        let (cluster, member) = Self::new(kind, identity, others, owner, remembered);
        run(member).map(|()| cluster)
    }

    /// The same with the member still to be run.
    #[must_use]
    pub fn new(
        kind: Kind,
        identity: Identity,
        others: Box<dyn Others>,
        owner: Owner,
        remembered: Remembered,
    ) -> (Self, Member) {
        let (commands, received) = mpsc::unbounded_channel();
        let (told, views) = watch::channel(Arc::new(View::default()));
        let (address, by_tenant) = (identity.info.address, identity.by_tenant);
        let parts = (others, owner, (received, told));
        let member: Member = match kind {
            Kind::Local(store) => Box::new(move || begin(store, identity, parts, remembered)),
            #[cfg(feature = "zookeeper")]
            Kind::Zookeeper(servers) => {
                Box::new(move || begin(Zookeeper::new(servers), identity, parts, remembered))
            }
            #[cfg(feature = "etcd")]
            Kind::Etcd(servers) => Box::new(move || begin(Etcd::new(servers), identity, parts, remembered)),
        };
        (Self { commands, views, address, by_tenant }, member)
    }

    // If the member's thread panicked, this host stays as it is: nothing here fails because of it.
    fn send(&self, command: Command) {
        let _ = self.commands.send(command);
    }

    /// Lets the other hosts know a record.
    pub fn publish(&self, record: &Record) {
        let (id, text) = (record.id.clone(), write_record(record));
        let tenant = self.by_tenant.then(|| record.tenant());
        let mut vips: Vec<String> = record.traits.vips.iter().map(|vip| vip.key(tenant)).collect();
        vips.dedup();
        self.send(Command::Publish { id, text, vips });
    }

    /// Withdraws a container's record.
    pub fn withdraw(&self, id: &str) {
        self.send(Command::Withdraw { id: id.to_owned() });
    }

    /// Returns once the registry has the record last published for a container, so that the others are hearing of it;
    /// returns at once while the registry is away.
    pub async fn told(&self, id: &str) {
        let (reply, told) = oneshot::channel();
        self.send(Command::Told { id: id.to_owned(), reply });
        let _ = told.await;
    }

    /// All of this host's containers have been published: other records of this host in the registry are stale.
    pub fn settled(&self) {
        self.send(Command::Settled);
    }

    /// Blocks that this host had before it asked the registry.
    pub fn has_blocks(&self, blocks: BTreeSet<Ipv4Net>) {
        self.send(Command::Blocks(blocks.into_iter().collect()));
    }

    /// Gives back a block that this host no longer needs.
    pub fn give_back(&self, block: Ipv4Net) {
        self.send(Command::GiveBack(block));
    }

    /// Claims a free block, or a smaller one of a subnet that other hosts may have parts of too.
    ///
    /// # Errors
    /// [`ClaimError`], after some seconds.
    pub async fn claim_block(&self, subnet: Option<Ipv4Net>) -> Result<Ipv4Net, ClaimError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::ClaimBlock { subnet, reply });
        answer.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Records an address outside our blocks that a running container of ours already has.
    pub fn has_address(&self, address: Ipv4Addr, container: &str) {
        self.send(Command::HasAddress { address, container: container.to_owned() });
    }

    /// Claims an address for a container that is about to start; the container may have it already.
    ///
    /// # Errors
    /// [`ClaimError`], after some seconds.
    pub async fn claim_address(&self, address: Ipv4Addr, container: &str) -> Result<(), ClaimError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::ClaimAddress { address, container: container.to_owned(), reply });
        answer.await.unwrap_or_else(|_| Err(ended()))
    }

    /// The container has ended: other hosts may use its address.
    pub fn release_address(&self, address: Ipv4Addr, container: &str) {
        self.send(Command::ReleaseAddress { address, container: container.to_owned() });
    }

    /// Frees everything that a dead host holds.
    ///
    /// # Errors
    /// Why that is not possible, worded for operators.
    pub async fn forget(&self, host: &str) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Forget { host: host.to_owned(), reply });
        answer.await.unwrap_or_else(|_| Err(ended().to_string()))
    }

    /// Another worker of this host has taken over: this one no longer announces itself.
    pub async fn leave(&self) {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Leave(reply));
        let _ = answer.await;
    }

    /// The address at which other hosts reach this one.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The state of the cluster, and its changes.
    #[must_use]
    pub fn views(&self) -> watch::Receiver<Arc<View>> {
        self.views.clone()
    }
}

type Parts = (Box<dyn Others>, Owner, (mpsc::UnboundedReceiver<Command>, watch::Sender<Arc<View>>));

fn begin<S: Store + 'static>(
    store: S,
    identity: Identity,
    (others, owner, channels): Parts,
    remembered: Remembered,
) -> LocalBoxFuture<'static, ()> {
    Box::pin(member::Member::new(store, identity, others, owner, channels).recalling(remembered).run())
}

fn ended() -> ClaimError {
    ClaimError::Unreachable("the registry's thread has ended".to_owned())
}
