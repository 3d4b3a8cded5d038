//! Hosts that share a registry, without engines and networks.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ipnet::Ipv4Net;
use selvedge_cluster::handle::{self, Cluster, Reserve};
use selvedge_cluster::identity::Identity;
use selvedge_cluster::key::HostInfo;
use selvedge_cluster::names::Others;
use selvedge_cluster::recall::Remembered;
use selvedge_cluster::store::memory::Memory;
use selvedge_cluster::store::{Lifetime, Servers, Store, Writer, etcd::Etcd, zookeeper::Zookeeper};
use selvedge_cluster::view::{PeerView, View};
use selvedge_registry::name::Name;
use selvedge_registry::record::Record;
use selvedge_registry::shared::TableWriter;
use selvedge_registry::table::{Found, Table};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use crate::servers;

/// Which registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Memory,
    Zookeeper,
    Etcd,
}

/// Longer than any of it should take, shorter than anybody's patience.
const LIMIT: Duration = Duration::from_secs(20);

/// Runs one behaviour with a registry of its own.
pub(crate) fn run<F: Future<Output = ()>>(test: fn(Lab) -> F, kind: Kind, name: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let registry = match kind {
        Kind::Memory => handle::Kind::Local(Memory::default()),
        Kind::Zookeeper => handle::Kind::Zookeeper(reached(servers::zookeeper(), name)),
        Kind::Etcd => handle::Kind::Etcd(reached(servers::etcd(), name)),
    };
    runtime.block_on(test(Lab { registry }));
}

fn reached(endpoint: &str, name: &str) -> Servers {
    Servers {
        endpoints: vec![endpoint.to_owned()],
        prefix: format!("/tests/{name}"),
        session: Duration::from_secs(2),
        ..Servers::default()
    }
}

/// One registry.
pub(crate) struct Lab {
    pub(crate) registry: handle::Kind,
}

/// A host's settings.
pub(crate) struct Wanted {
    pub(crate) pool: &'static str,
    pub(crate) vips: Option<&'static str>,
    pub(crate) block_size: u8,
    pub(crate) free_after: Duration,
    /// Whether somebody listens at the host's port.
    pub(crate) answers: bool,
    /// The host's address; all of loopback answers.
    pub(crate) address: Ipv4Addr,
    /// Blocks that it knows to be its own.
    pub(crate) blocks: BTreeSet<Ipv4Net>,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            pool: "10.32.0.0/12",
            vips: None,
            block_size: 24,
            free_after: Duration::from_secs(86_400),
            answers: true,
            address: Ipv4Addr::LOCALHOST,
            blocks: BTreeSet::new(),
        }
    }
}

/// A host.
pub(crate) struct Host {
    pub(crate) cluster: Cluster,
    pub(crate) table: Arc<TableWriter>,
    pub(crate) reserved: Arc<Mutex<HashMap<Ipv4Addr, String>>>,
    listener: Option<TcpListener>,
}

impl Lab {
    /// A host with the usual settings.
    pub(crate) async fn host(&self, name: &str) -> Host {
        self.host_with(name, Wanted::default()).await
    }

    /// A host that has read the registry.
    pub(crate) async fn host_with(&self, name: &str, wanted: Wanted) -> Host {
        let host = self.begin(name, wanted).await;
        until("the registry is read", || host.view().read).await;
        host
    }

    /// A host, as soon as it begins.
    pub(crate) async fn begin(&self, name: &str, wanted: Wanted) -> Host {
        let listener = TcpListener::bind((wanted.address, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let table = Arc::new(TableWriter::new(Table::new(Name::parse("selvedge.internal").unwrap())));
        let reserved = Arc::new(Mutex::new(HashMap::new()));
        let identity = Identity {
            vips: wanted.vips.map(|range| range.parse().unwrap()),
            by_tenant: false,
            host: name.to_owned(),
            instance: format!("{port}"),
            info: HostInfo {
                address: IpAddr::from(wanted.address),
                port,
                version: "1".to_owned(),
                datapath: "auto".to_owned(),
                policy: String::new(),
                heeds_stops: false,
            },
            pool: wanted.pool.parse().unwrap(),
            block_size: wanted.block_size,
            free_after: wanted.free_after,
            alone: false,
        };
        let book = Arc::clone(&reserved);
        let owner = Box::new(move |address: Ipv4Addr, wish: Reserve<'_>| heed(&book, address, wish));
        let remembered = Remembered { memory: None, blocks: wanted.blocks };
        let others = Box::new(AtOnce(Arc::clone(&table)));
        let cluster = Cluster::start(self.registry.clone(), identity, others, owner, remembered).unwrap();
        Host { cluster, table, reserved, listener: wanted.answers.then_some(listener) }
    }

    /// The registry itself, for writing what no host would.
    pub(crate) async fn raw(&self) -> Raw {
        match self.registry.clone() {
            handle::Kind::Local(mut store) => Raw::Memory(store.open().await.unwrap().0),
            handle::Kind::Zookeeper(servers) => {
                Raw::Zookeeper(Zookeeper::new(servers).open().await.unwrap().0)
            }
            handle::Kind::Etcd(servers) => Raw::Etcd(Box::new(Etcd::new(servers).open().await.unwrap().0)),
        }
    }
}

/// Takes other hosts' names as they come.
struct AtOnce(Arc<TableWriter>);

impl Others for AtOnce {
    fn put(&mut self, record: Record) {
        let _ = self.0.write().put(record);
    }

    fn remove(&mut self, id: &str) {
        self.0.write().remove(id);
    }
}

/// The book of addresses: what a container of the host has is not given away.
fn heed(book: &Mutex<HashMap<Ipv4Addr, String>>, address: Ipv4Addr, wish: Reserve<'_>) -> Result<(), String> {
    let mut book = book.lock().unwrap();
    match wish {
        Reserve::Free => {
            if book.get(&address).is_some_and(|holder| holder != "container") {
                book.remove(&address);
            }
            Ok(())
        }
        Reserve::For(host) => match book.get(&address) {
            Some(holder) if holder == "container" => Err(holder.clone()),
            _ => {
                book.insert(address, host.to_owned());
                Ok(())
            }
        },
    }
}

/// A writer of any kind.
pub(crate) enum Raw {
    Memory(<Memory as Store>::Writer),
    Zookeeper(<Zookeeper as Store>::Writer),
    Etcd(Box<<Etcd as Store>::Writer>),
}

impl Raw {
    pub(crate) async fn create(&self, key: &str, value: &str) -> bool {
        match self {
            Self::Memory(writer) => writer.create(key, value, Lifetime::Forever).await.unwrap(),
            Self::Zookeeper(writer) => writer.create(key, value, Lifetime::Forever).await.unwrap(),
            Self::Etcd(writer) => writer.create(key, value, Lifetime::Forever).await.unwrap(),
        }
    }

    pub(crate) async fn get(&self, key: &str) -> Option<String> {
        match self {
            Self::Memory(writer) => writer.get(key).await.unwrap(),
            Self::Zookeeper(writer) => writer.get(key).await.unwrap(),
            Self::Etcd(writer) => writer.get(key).await.unwrap(),
        }
    }

    pub(crate) async fn delete(&self, key: &str) -> bool {
        match self {
            Self::Memory(writer) => writer.delete(key, None).await.unwrap(),
            Self::Zookeeper(writer) => writer.delete(key, None).await.unwrap(),
            Self::Etcd(writer) => writer.delete(key, None).await.unwrap(),
        }
    }
}

impl Host {
    /// Says that a container runs here.
    pub(crate) fn publish(&self, id: &str, address: &str, names: &[&str]) {
        let names = names.iter().map(|name| Name::parse(name).unwrap()).collect();
        self.publish_record(Record::new(id, address.parse().unwrap(), names));
    }

    /// The same with all that the container says of itself.
    pub(crate) fn publish_record(&self, record: Record) {
        self.cluster.publish(&record);
        assert!(self.table.write().put(record).is_empty());
    }

    /// Says that it has ended.
    pub(crate) fn withdraw(&self, id: &str) {
        self.table.write().remove(id);
        self.cluster.withdraw(id);
    }

    /// What is answered here about a name.
    pub(crate) fn resolve(&self, name: &str) -> BTreeSet<Ipv4Addr> {
        let name = Name::parse(&format!("{name}.selvedge.internal.")).unwrap();
        match self.table.reader().read().lookup(name.wire()) {
            Found::Addresses(addresses) => addresses.iter().copied().collect(),
            _ => BTreeSet::new(),
        }
    }

    /// Whether the name has just this address here.
    pub(crate) fn knows(&self, name: &str, address: &str) -> bool {
        self.resolve(name) == BTreeSet::from([address.parse().unwrap()])
    }

    /// Nobody listens at its port any more.
    pub(crate) fn stop_answering(&mut self) {
        self.listener = None;
    }

    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.cluster.views().borrow())
    }

    /// What is seen here of another host.
    pub(crate) fn peer(&self, name: &str) -> Option<PeerView> {
        self.view().peers.iter().find(|peer| peer.name == name).cloned()
    }

    pub(crate) async fn claim_block(&self) -> Ipv4Net {
        self.cluster.claim_block(None).await.unwrap()
    }
}

/// Waits for something that must come.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < end, "not within {LIMIT:?}: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Watches that something stays so for a while.
pub(crate) async fn throughout(time: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        assert!(condition(), "not any more: {what}");
        sleep(Duration::from_millis(2)).await;
    }
}
