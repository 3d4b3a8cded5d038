//! The face of the crate: what the rest of Selvedge asks of the cluster.
//!
//! Whatever is published is in the table of names at once; everything else is the member's work, on a thread of its
//! own, so that a slow registry never holds up a request.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, PoisonError};

use ipnet::Ipv4Net;
use selvedge_registry::record::Record;
use selvedge_registry::table::SharedTable;
use tokio::sync::{mpsc, oneshot, watch};

use crate::claim::ClaimError;
use crate::key::write_record;
use crate::member::{Identity, Member};
use crate::names::Names;
use crate::store::Servers;
use crate::store::etcd::Etcd;
use crate::store::memory::Memory;
use crate::store::zookeeper::Zookeeper;
use crate::view::View;

/// Where the registry is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// Nowhere: this host is alone, or (in tests) shares memory with others.
    Local(Memory),
    /// Apache ZooKeeper.
    Zookeeper(Servers),
    /// etcd.
    Etcd(Servers),
}

/// What another host's claim asks of the book of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserve<'a> {
    /// Do not hand the address out: it is this host's.
    For(&'a str),
    /// Nobody else claims it any more.
    Free,
}

/// Keeps addresses of our blocks for other hosts; refuses with the holder when one is taken.
pub type Owner = Box<dyn Fn(Ipv4Addr, Reserve<'_>) -> Result<(), String> + Send>;

#[derive(Debug)]
pub(crate) enum Command {
    Publish { id: String, text: String, vips: Vec<String> },
    Withdraw { id: String },
    Told { id: String, reply: oneshot::Sender<()> },
    Settled,
    Blocks(Vec<Ipv4Net>),
    GiveBack(Ipv4Net),
    ClaimBlock { subnet: Option<Ipv4Net>, reply: oneshot::Sender<Result<Ipv4Net, ClaimError>> },
    ClaimAddress { address: Ipv4Addr, container: String, reply: oneshot::Sender<Result<(), ClaimError>> },
    HasAddress { address: Ipv4Addr, container: String },
    ReleaseAddress { address: Ipv4Addr, container: String },
    Forget { host: String, reply: oneshot::Sender<Result<(), String>> },
    Leave(oneshot::Sender<()>),
}

/// This host's part in the cluster. Its thread ends when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    table: SharedTable,
    commands: mpsc::UnboundedSender<Command>,
    views: watch::Receiver<Arc<View>>,
    address: IpAddr,
    by_tenant: bool,
}

impl Cluster {
    /// Begins to take part. In `memory`, which outlives this process, stands what the registry said last.
    ///
    /// # Errors
    /// The thread or its runtime cannot be started.
    pub fn start(
        kind: Kind,
        identity: Identity,
        names: Names,
        owner: Owner,
        memory: Option<File>,
    ) -> std::io::Result<Self> {
        let (commands, received) = mpsc::unbounded_channel();
        let (told, views) = watch::channel(Arc::new(View::default()));
        let channels = (received, told);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (Names { table, others }, address) = (names, identity.info.address);
        let by_tenant = identity.by_tenant;
        std::thread::Builder::new().name("registry".to_owned()).spawn(move || match kind {
            Kind::Local(store) => {
                runtime
                    .block_on(Member::new(store, identity, others, owner, channels).recalling(memory).run());
            }
            Kind::Zookeeper(servers) => {
                let store = Zookeeper::new(servers);
                runtime
                    .block_on(Member::new(store, identity, others, owner, channels).recalling(memory).run());
            }
            Kind::Etcd(servers) => {
                let store = Etcd::new(servers);
                runtime
                    .block_on(Member::new(store, identity, others, owner, channels).recalling(memory).run());
            }
        })?;
        Ok(Self { table, commands, views, address, by_tenant })
    }

    // A member that has ended by a panic leaves this host as it is: nothing here fails for it.
    fn send(&self, command: Command) {
        let _ = self.commands.send(command);
    }

    /// Makes a record known: to this host at once, to the others soon. Gives back what was wrong with names that
    /// were left out.
    pub fn publish(&self, record: Record) -> Vec<selvedge_registry::error::Error> {
        let (id, text) = (record.id.clone(), write_record(&record));
        let tenant = self.by_tenant.then(|| record.tenant());
        let mut vips: Vec<String> = record.traits.vips.iter().map(|vip| vip.key(tenant)).collect();
        vips.dedup();
        let refused = self.table.write().unwrap_or_else(PoisonError::into_inner).put(record);
        self.send(Command::Publish { id, text, vips });
        refused
    }

    /// Takes a container's record back.
    pub fn withdraw(&self, id: &str) {
        if self.table.write().unwrap_or_else(PoisonError::into_inner).remove(id) {
            self.send(Command::Withdraw { id: id.to_owned() });
        }
    }

    /// Returns when the registry has what was published of a container last, so that the others are hearing of it; at once
    /// while the registry is away.
    pub async fn told(&self, id: &str) {
        let (reply, told) = oneshot::channel();
        self.send(Command::Told { id: id.to_owned(), reply });
        let _ = told.await;
    }

    /// All of this host's containers have been published: what else the registry holds of this host is old.
    pub fn settled(&self) {
        self.send(Command::Settled);
    }

    /// Blocks that this host had before it asked the registry.
    pub fn has_blocks(&self, blocks: BTreeSet<Ipv4Net>) {
        self.send(Command::Blocks(blocks.into_iter().collect()));
    }

    /// A block that this host does not need any more.
    pub fn give_back(&self, block: Ipv4Net) {
        self.send(Command::GiveBack(block));
    }

    /// A block that nobody has; or a smaller one of a subnet, of which the other hosts may have parts too.
    ///
    /// # Errors
    /// [`ClaimError`], after some seconds.
    pub async fn claim_block(&self, subnet: Option<Ipv4Net>) -> Result<Ipv4Net, ClaimError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::ClaimBlock { subnet, reply });
        answer.await.unwrap_or_else(|_| Err(ended()))
    }

    /// An address outside of our blocks that a container of ours has: it runs, so it was given it.
    pub fn has_address(&self, address: Ipv4Addr, container: &str) {
        self.send(Command::HasAddress { address, container: container.to_owned() });
    }

    /// An address for a container that is about to start; it may have it already.
    ///
    /// # Errors
    /// [`ClaimError`], after some seconds.
    pub async fn claim_address(&self, address: Ipv4Addr, container: &str) -> Result<(), ClaimError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::ClaimAddress { address, container: container.to_owned(), reply });
        answer.await.unwrap_or_else(|_| Err(ended()))
    }

    /// The container has ended: others may have its address.
    pub fn release_address(&self, address: Ipv4Addr, container: &str) {
        self.send(Command::ReleaseAddress { address, container: container.to_owned() });
    }

    /// Frees all that a host holds which does not live any more.
    ///
    /// # Errors
    /// Why that cannot be, for people.
    pub async fn forget(&self, host: &str) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Forget { host: host.to_owned(), reply });
        answer.await.unwrap_or_else(|_| Err(ended().to_string()))
    }

    /// Another worker of this host has taken over: this one is not told of any more.
    pub async fn leave(&self) {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Leave(reply));
        let _ = answer.await;
    }

    /// At which address other hosts reach this one.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// What is known of the cluster, and its changes.
    #[must_use]
    pub fn views(&self) -> watch::Receiver<Arc<View>> {
        self.views.clone()
    }
}

fn ended() -> ClaimError {
    ClaimError::Unreachable("the registry's thread has ended".to_owned())
}
