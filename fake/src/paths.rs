//! Hosts with a network of their own over fake kernels, and a registry in memory between them. Everything is on the test's own
//! thread, so that its time is everyone's.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use selvedge_cluster::handle::Kind;
use selvedge_cluster::store::memory::Memory;
use selvedge_datapath::addresses::Addresses;
use selvedge_datapath::follow::{Datapath, StartError};
use selvedge_datapath::settings::{Others, Rules, Settings};
use selvedge_datapath::vip::Draining;
use selvedge_netsetup::Datapath as Way;
use selvedge_netsetup::policy::Verdict;
use selvedge_registry::name::Name;
use selvedge_registry::record::{Record, Traits};
use selvedge_registry::shared::SharedTable;
use selvedge_registry::table::{Found, Table};
use tokio::task::LocalSet;

use crate::kernel::{FakeKernel, kernel};

/// Runs a test in which hosts run.
pub async fn among_hosts(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

/// What a host of this name is set to that is at 127.0.0.`octet`, and has this registry.
pub fn settings(name: &str, octet: u8, registry: &Memory) -> Settings {
    Settings {
        group: 1,
        pool: "10.32.0.0/12".parse().unwrap(),
        pool6: None,
        block: None,
        block_size: 24,
        mtu: None,
        dns: "10.47.255.1:53".parse().unwrap(),
        mesos: false,
        vips: None,
        rules: Rules {
            by_tenant: false,
            host: Verdict::Allow,
            published: Verdict::Allow,
            out: Verdict::Allow,
            names: Verdict::Allow,
        },
        cluster: Others {
            alone: false,
            registry: Kind::Local(registry.clone()),
            registry_text: "memory".to_owned(),
            host_name: name.to_owned(),
            host_address: Some(IpAddr::from([127, 0, 0, octet])),
            way: Way::Auto,
            free_after: Duration::from_secs(3600),
            peer_port: 1,
            vxlan_port: 4789,
            vxlan_id: 7,
        },
    }
}

/// A host.
#[derive(Debug)]
pub struct Paths {
    /// Its kernel.
    pub kernel: Arc<FakeKernel>,
    /// The names that it answers.
    pub table: SharedTable,
    /// Its containers' addresses.
    pub addresses: Arc<Addresses>,
    /// Its containers that are about to be stopped.
    pub draining: Arc<Mutex<Vec<Ipv4Addr>>>,
    /// What is tested.
    pub datapath: Arc<Datapath>,
}

impl Paths {
    /// One that does nothing by itself yet, but to know the registry.
    pub async fn new(settings: Settings) -> Self {
        Self::over(Arc::default(), settings).await.unwrap()
    }

    /// The same over a kernel in which something is.
    ///
    /// # Errors
    /// The datapath's own.
    pub async fn over(fake: Arc<FakeKernel>, settings: Settings) -> Result<Self, StartError> {
        let (paths, member) = Self::apart(fake, settings).await?;
        tokio::task::spawn_local(member());
        Ok(paths)
    }

    /// The same, before it hears of the registry: when the second is run.
    ///
    /// # Errors
    /// The datapath's own.
    pub async fn apart(
        fake: Arc<FakeKernel>,
        settings: Settings,
    ) -> Result<(Self, selvedge_cluster::handle::Member), StartError> {
        let mut table = Table::new(Name::parse("lab.internal").unwrap());
        if settings.mesos {
            let shared = ["mesos", "marathon.l4lb.thisdcos.directory"].map(|name| Name::parse(name).unwrap());
            table = shared.into_iter().fold(table, Table::with_shared_domain);
        }
        let addresses = Arc::new(Addresses::new(settings.pool, settings.block_size, None));
        let draining = Arc::<Mutex<Vec<Ipv4Addr>>>::default();
        let asked = Arc::clone(&draining);
        let settings = (settings, Draining::new(move || asked.lock().unwrap().clone()));
        let (datapath, member) =
            Datapath::over(kernel(&fake), settings, table, Arc::clone(&addresses), None).await?;
        let datapath = Arc::new(datapath);
        let table = datapath.directory.names();
        Ok((Self { kernel: fake, table, addresses, draining, datapath }, member))
    }

    /// Keeps everything in step from now on.
    pub fn keep(&self) {
        let [routes, policy, vips] = [(); 3].map(|()| Arc::clone(&self.datapath));
        tokio::spawn(async move { routes.keep().await });
        tokio::spawn(async move { policy.keep_policy().await });
        tokio::spawn(async move { vips.keep_vips().await });
    }

    /// All containers that were there at the start have been published.
    pub async fn all_seen(&self) {
        self.datapath.cluster.settled();
        self.datapath.synced.set_own();
        self.datapath.directory.catch_up(Duration::from_secs(5)).await;
    }

    /// A container of this host runs.
    pub fn runs(&self, record: &Record) {
        assert!(self.datapath.publish(record.clone(), &[]).is_empty());
    }

    /// It has ended.
    pub fn ended(&self, id: &str) {
        self.datapath.withdraw(id);
    }

    /// What is answered for a name.
    pub fn answers(&self, name: &str) -> BTreeSet<Ipv4Addr> {
        let name = Name::parse(name).unwrap().within(&Name::parse("lab.internal.").unwrap()).unwrap();
        match self.table.read().lookup(name.wire()) {
            Found::Addresses(addresses) => addresses.iter().copied().collect(),
            _ => BTreeSet::new(),
        }
    }
}

/// Waits until something is so, in the time of the test.
pub async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..12_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never came: {what}");
}

/// A container's record with its name, of the tenant `shop`.
pub fn record(id: &str, address: [u8; 4], name: &str) -> Record {
    let traits = Traits { tenant: Some("shop".into()), ..Traits::default() };
    Record { traits, ..Record::new(format!("{id:0>12}"), address.into(), vec![Name::parse(name).unwrap()]) }
}

/// The same that stands behind virtual addresses, as the label has them.
pub fn behind(id: &str, address: [u8; 4], name: &str, vips: &str) -> Record {
    let mut record = record(id, address, name);
    record.traits.vips = selvedge_registry::vip::parse(vips).unwrap().into_iter().collect();
    record
}
