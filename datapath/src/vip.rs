//! Virtual addresses: from who stands behind them, as the table of names has it, and their addresses, as the registry has
//! them, to the kernel's rules; and then their names.
//!
//! Must never take anything out of the kernel before all containers have been seen: what an earlier worker left is better.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use selvedge_cluster::handle::Cluster;
use selvedge_cluster::view::View;
pub use selvedge_netsetup::policy::nft_version;
use selvedge_netsetup::services;
use selvedge_registry::name::Name;
use selvedge_registry::record::Record;
use selvedge_registry::shared::SharedTable;
use selvedge_registry::table::services::Service;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::warn;

use crate::directory::Directory;
use crate::health::Fault;
use crate::host::own_address;
use crate::kernel::{Kernel, RouteTable, VipTable};
use crate::policy::lock::lock;
use crate::policy::party::protocol;
use crate::settings::Settings;
use crate::status::{PortStatus, ServiceStatus, VipStatus};
use crate::synced::Synced;

/// The domain of the names that DC/OS gives to virtual addresses of Marathon's apps.
pub const L4LB: &str = "marathon.l4lb.thisdcos.directory.";
/// How often to check for outside changes to our rules.
const LOOK: Duration = Duration::from_secs(1);
/// After which time a change that the kernel refused is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// Says which containers' addresses get no new connections: they are about to be stopped.
pub struct Draining(Box<dyn Fn() -> Vec<Ipv4Addr> + Send + Sync>);

impl Draining {
    /// Asked before each change.
    pub fn new(of: impl Fn() -> Vec<Ipv4Addr> + Send + Sync + 'static) -> Self {
        Self(Box::new(of))
    }
}

impl std::fmt::Debug for Draining {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Draining")
    }
}

/// What leads connections to virtual addresses; nothing while this host has no range of them.
#[derive(Debug)]
pub struct Vips {
    settings: Arc<Settings>,
    services: Arc<dyn VipTable>,
    routes: Arc<dyn RouteTable>,
    draining: Draining,
    directory: Arc<Directory>,
    names: SharedTable,
    /// Something has changed in the table that concerns virtual addresses.
    noted: Arc<Notify>,
    /// Who holds it brings the kernel and the names into step; one at a time.
    turn: tokio::sync::Mutex<()>,
    shown: Mutex<Shown>,
    /// Other hosts' containers that are about to be stopped, by the ids of their records, and until when that holds.
    promised: Mutex<HashMap<String, Instant>>,
    trouble: Fault,
}

/// What is in force.
#[derive(Debug, Default)]
struct Shown {
    /// By their keys.
    services: HashMap<String, (Ipv4Addr, Service)>,
    /// Those that have no address yet.
    waiting: Vec<String>,
}

impl Vips {
    /// As the settings say. Changes nothing in the kernel.
    pub fn new(
        settings: Arc<Settings>,
        directory: &Arc<Directory>,
        kernel: &Kernel,
        draining: Draining,
    ) -> Self {
        let noted = Arc::new(Notify::new());
        let listener = Arc::clone(&noted);
        directory.on_vips(move || listener.notify_one());
        Self {
            services: Arc::clone(&kernel.vips),
            routes: Arc::clone(&kernel.routes),
            settings,
            draining,
            directory: Arc::clone(directory),
            names: directory.names(),
            noted,
            turn: tokio::sync::Mutex::new(()),
            shown: Mutex::default(),
            promised: Mutex::default(),
            trouble: Fault::with("virtual addresses"),
        }
    }

    /// Takes out what an earlier worker left that had a range of them, where this one has none.
    ///
    /// # Errors
    /// The kernel or nft refuses it.
    pub async fn clear_away(&self) -> Result<(), selvedge_netsetup::Error> {
        if self.services().is_some() {
            return Ok(());
        }
        self.services.withdraw().await?;
        self.routes.lead(None, None).await
    }

    /// Nothing while there is no range.
    fn services(&self) -> Option<&dyn VipTable> {
        self.settings.vips.map(|_| &*self.services)
    }

    fn shown(&self) -> std::sync::MutexGuard<'_, Shown> {
        lock(&self.shown)
    }

    /// What would be changed in the kernel to make it right, one line each.
    ///
    /// # Errors
    /// The kernel or nft does not say.
    pub async fn plan(&self) -> Result<Vec<String>, selvedge_netsetup::Error> {
        match self.services() {
            Some(services) => services.plan().await,
            None => Ok(Vec::new()),
        }
    }

    /// For `selvedge status`.
    pub fn status(&self) -> VipStatus {
        let shown = self.shown();
        let port = |port: &selvedge_registry::table::services::ServicePort| PortStatus {
            port: format!("{}/{}", port.number, port.protocol),
            backends: port.backends.iter().map(|(address, port)| format!("{address}:{port}")).collect(),
        };
        let one = |(address, service): &(Ipv4Addr, Service)| ServiceStatus {
            name: service.name.to_string(),
            tenant: service.tenant.as_deref().map(str::to_owned),
            address: Some(*address),
            ports: service.ports.iter().map(port).collect(),
        };
        let mut services: Vec<&(Ipv4Addr, Service)> = shown.services.values().collect();
        services.sort_by(|(_, a), (_, b)| a.key.cmp(&b.key));
        VipStatus {
            services: services.into_iter().map(one).collect(),
            waiting: shown.waiting.clone(),
            trouble: self.trouble.reason(),
        }
    }

    /// Who stood aside when the last worker ended: they are about to be stopped.
    pub async fn aside(&self) -> Vec<Ipv4Addr> {
        match self.services() {
            Some(services) => services.aside().await.unwrap_or_default(),
            None => Vec::new(),
        }
    }
}

/// Keeps the kernel in step, for ever.
pub async fn keep(vips: &Vips, cluster: &Cluster, synced: &Synced) {
    let Some(services) = vips.services() else { return };
    let mut views = cluster.views();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = vips.noted.notified() => {}
            changed = views.changed() => if changed.is_err() { return },
            _ = look.tick() => {
                vips.end_promises();
                // Who wants nothing led anywhere pays nothing for it.
                if vips.shown().services.is_empty() && !vips.is_wanted() {
                    continue;
                }
                let outcome = services.check().await.map(|repaired| {
                    if repaired > 0 {
                        warn!(repaired, "our rules for virtual addresses were changed from outside; restored");
                    }
                });
                vips.trouble.found(outcome);
            }
        }
        if !balance(vips, cluster, synced).await {
            tokio::time::sleep(RETRY).await;
            vips.noted.notify_one();
        }
    }
}

/// Another host's container, by its record's id, is about to be stopped: returns when no new connections go there from here.
pub(crate) async fn stand_aside(
    vips: &Vips,
    (id, for_long): (String, Duration),
    cluster: &Cluster,
    synced: &Synced,
) {
    vips.promise(id, for_long);
    // Until then the kernel has what an earlier worker left.
    synced.wait().await;
    while !balance(vips, cluster, synced).await {
        tokio::time::sleep(RETRY).await;
    }
}

/// Makes the kernel lead connections as the table says, and then the names answer so. False if it did not work out.
pub async fn balance(vips: &Vips, cluster: &Cluster, synced: &Synced) -> bool {
    let Some(services) = vips.services().filter(|_| synced.all()) else { return true };
    let _turn = vips.turn.lock().await;
    let view = Arc::clone(&cluster.views().borrow());
    let (wanted, waiting) = vips.wanted(&view);
    services.set(&in_the_kernel(&wanted), &(vips.draining.0)());
    vips.deny(&wanted);
    let outcome = match (vips.settings.vips, wanted.is_empty()) {
        (Some(range), false) => {
            let own = own_address(&vips.settings, &cluster.views().borrow().own_blocks);
            vips.routes.lead(Some(range), own).await
        }
        _ => Ok(()),
    };
    let outcome = match outcome {
        Ok(()) => services.apply().await,
        failed => failed,
    };
    let fine = vips.trouble.found(outcome);
    if fine {
        vips.answer(&wanted);
    }
    let mut shown = vips.shown();
    (shown.services, shown.waiting) = (wanted, waiting);
    fine
}

/// In the words of the kernel's rules.
fn in_the_kernel(wanted: &HashMap<String, (Ipv4Addr, Service)>) -> Vec<services::Service> {
    let of = |(address, service): &(Ipv4Addr, Service)| {
        let address = *address;
        let port = move |port: &selvedge_registry::table::services::ServicePort| services::Service {
            address,
            port: port.number,
            protocol: protocol(port.protocol),
            backends: port.backends.clone(),
        };
        service.ports.iter().map(port).collect::<Vec<_>>()
    };
    wanted.values().flat_map(of).collect()
}

impl Vips {
    fn promised(&self) -> std::sync::MutexGuard<'_, HashMap<String, Instant>> {
        lock(&self.promised)
    }

    fn promise(&self, id: String, for_long: Duration) {
        self.directory.stand_aside(&id);
        self.promised().insert(id, Instant::now() + for_long);
    }

    /// Containers that should have ended by now, and have not, take connections again.
    fn end_promises(&self) {
        let now = Instant::now();
        for (id, _) in self.promised().extract_if(|_, until| *until <= now) {
            self.directory.no_longer_aside(&id);
        }
    }

    /// Whether a virtual address has backends.
    pub fn is_wanted(&self) -> bool {
        self.names.read().has_vips()
    }

    /// The wanted services by key, and the keys that have no address yet.
    fn wanted(&self, view: &View) -> (HashMap<String, (Ipv4Addr, Service)>, Vec<String>) {
        let services = self.names.read().services(self.settings.rules.by_tenant);
        let (mut wanted, mut waiting) = (HashMap::new(), Vec::new());
        for service in services {
            match view.vips.get(&service.key) {
                Some(address) => _ = wanted.insert(service.key.clone(), (*address, service)),
                None => waiting.push(service.key),
            }
        }
        (wanted, waiting)
    }

    fn record(&self, address: Ipv4Addr, service: &Service) -> Record {
        let mut record = service.record(address);
        let of_mesos = self.settings.mesos.then(|| Name::parse(&format!("{}.{L4LB}", service.called)).ok());
        record.names.extend(of_mesos.flatten());
        record
    }

    /// Names without backends are no longer answered.
    fn deny(&self, wanted: &HashMap<String, (Ipv4Addr, Service)>) {
        let shown = self.shown();
        let gone = shown.services.iter().filter(|(key, _)| !wanted.contains_key(*key));
        self.directory.deny(gone.map(|(_, (_, service))| service.id()));
    }

    fn answer(&self, wanted: &HashMap<String, (Ipv4Addr, Service)>) {
        self.directory.answer(wanted.values().map(|(address, service)| self.record(*address, service)));
    }
}
