//! Virtual addresses: from who stands behind them, as the table of names has it, and their addresses, as the registry has
//! them, to the kernel's rules; and then their names.
//!
//! Must never take anything out of the kernel before all containers have been seen: what an earlier worker left is better.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipnet::Ipv4Net;
use selvedge_netsetup::Network;
use selvedge_netsetup::services::{self, Services, ServicesSettings};
use selvedge_registry::name::Name;
use selvedge_registry::record::Record;
use selvedge_registry::table::SharedTable;
use selvedge_registry::vip::Service;
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tracing::warn;

use crate::config::Config;
use crate::fabric::host_address;
use crate::guard::party::protocol;
use crate::naming::L4LB;
use crate::trouble::Trouble;
use crate::worker::{Worker, group};

/// How often it is looked whether somebody has changed the rules.
const LOOK: Duration = Duration::from_secs(1);
/// After which time a change that the kernel refused is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// What leads connections to virtual addresses; nothing while this host has no range of them.
#[derive(Debug)]
pub(crate) struct Balancer {
    services: Option<Services>,
    by_tenant: bool,
    /// Whether they also have the names that DC/OS gives them.
    mesos: bool,
    table: SharedTable,
    /// Something has changed in the table that concerns virtual addresses.
    noted: Arc<Notify>,
    /// Who holds it brings the kernel and the names into step; one at a time.
    turn: tokio::sync::Mutex<()>,
    shown: Mutex<Shown>,
    trouble: Trouble,
}

/// What is in force.
#[derive(Debug, Default)]
struct Shown {
    /// By their keys.
    services: HashMap<String, (Ipv4Addr, Service)>,
    /// Those that have no address yet.
    waiting: Vec<String>,
}

impl Balancer {
    /// As the settings say. Changes nothing in the kernel.
    pub(crate) fn new(config: &Config, table: &SharedTable) -> Self {
        let noted = Arc::new(Notify::new());
        let listener = Arc::clone(&noted);
        table.write().unwrap_or_else(PoisonError::into_inner).on_vips(move || listener.notify_one());
        Self {
            services: config.vips.range.map(|range| services_of(config, range)),
            by_tenant: config.policy.tenants,
            mesos: config.dns_style_mesos,
            table: Arc::clone(table),
            noted,
            turn: tokio::sync::Mutex::new(()),
            shown: Mutex::default(),
            trouble: Trouble::with("virtual addresses"),
        }
    }

    /// Takes out what an earlier worker left that had a range of them, where this one has none.
    ///
    /// # Errors
    /// The kernel or nft refuses it.
    pub(crate) async fn clear_away(
        &self,
        config: &Config,
        network: &Network,
    ) -> Result<(), selvedge_netsetup::Error> {
        if self.services.is_some() {
            return Ok(());
        }
        services_of(config, config.pool).withdraw().await?;
        network.lead(None, None).await
    }

    fn shown(&self) -> std::sync::MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What would be changed in the kernel to make it right, one line each.
    ///
    /// # Errors
    /// The kernel or nft does not say.
    pub(crate) async fn plan(&self) -> Result<Vec<String>, selvedge_netsetup::Error> {
        match &self.services {
            Some(services) => services.plan().await,
            None => Ok(Vec::new()),
        }
    }

    /// For `selvedge status`.
    pub(crate) fn status(&self) -> serde_json::Value {
        let shown = self.shown();
        let port = |port: &selvedge_registry::vip::ServicePort| {
            let backends = port.backends.iter().map(|(address, port)| format!("{address}:{port}"));
            serde_json::json!({
                "port": format!("{}/{}", port.number, port.protocol),
                "backends": backends.collect::<Vec<_>>(),
            })
        };
        let one = |(address, service): &(Ipv4Addr, Service)| {
            serde_json::json!({
                "name": service.name.to_string(),
                "tenant": service.tenant,
                "address": address,
                "ports": service.ports.iter().map(port).collect::<Vec<_>>(),
            })
        };
        let mut services: Vec<&(Ipv4Addr, Service)> = shown.services.values().collect();
        services.sort_by(|(_, a), (_, b)| a.key.cmp(&b.key));
        serde_json::json!({
            "services": services.into_iter().map(one).collect::<Vec<_>>(),
            "waiting": shown.waiting,
            "trouble": self.trouble.reason(),
        })
    }

    /// Who stood aside when the last worker ended: they are about to be stopped.
    pub(crate) async fn aside(&self) -> Vec<Ipv4Addr> {
        match &self.services {
            Some(services) => services.aside().await.unwrap_or_default(),
            None => Vec::new(),
        }
    }
}

fn services_of(config: &Config, range: Ipv4Net) -> Services {
    let group = group(&config.runtime_dir);
    Services::new(ServicesSettings { group, range, pool6: config.pool6 })
}

/// Keeps the kernel in step, for ever.
pub(crate) async fn keep(worker: Arc<Worker>) {
    let balancer = &worker.balancer;
    let Some(services) = &balancer.services else { return };
    let mut views = worker.cluster.views();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = balancer.noted.notified() => {}
            changed = views.changed() => if changed.is_err() { return },
            _ = look.tick() => {
                // Who wants nothing led anywhere pays nothing for it.
                if balancer.shown().services.is_empty() && !balancer.is_wanted() {
                    continue;
                }
                let outcome = services.check().await.map(|repaired| {
                    if repaired > 0 {
                        warn!(repaired, "somebody had changed our rules for virtual addresses; they are right again");
                    }
                });
                balancer.trouble.found(outcome);
            }
        }
        if !balance(&worker).await {
            tokio::time::sleep(RETRY).await;
            balancer.noted.notify_one();
        }
    }
}

/// Makes the kernel lead connections as the table says, and then the names answer so. False if it did not work out.
pub(crate) async fn balance(worker: &Worker) -> bool {
    let balancer = &worker.balancer;
    let Some(services) = balancer.services.as_ref().filter(|_| worker.all_is_seen()) else { return true };
    let _turn = balancer.turn.lock().await;
    let (wanted, waiting) = balancer.wanted(worker);
    services.set(&in_the_kernel(&wanted), &worker.book.draining());
    balancer.deny(&wanted);
    let outcome = match (worker.config.vips.range, wanted.is_empty()) {
        (Some(range), false) => {
            let view = Arc::clone(&worker.cluster.views().borrow());
            worker.network.lead(Some(range), host_address(&worker.config, &view.own_blocks)).await
        }
        _ => Ok(()),
    };
    let outcome = match outcome {
        Ok(()) => services.apply().await,
        failed => failed,
    };
    let fine = balancer.trouble.found(outcome);
    if fine {
        balancer.answer(&wanted);
    }
    let mut shown = balancer.shown();
    (shown.services, shown.waiting) = (wanted, waiting);
    fine
}

/// In the words of the kernel's rules.
fn in_the_kernel(wanted: &HashMap<String, (Ipv4Addr, Service)>) -> Vec<services::Service> {
    let of = |(address, service): &(Ipv4Addr, Service)| {
        let address = *address;
        let port = move |port: &selvedge_registry::vip::ServicePort| services::Service {
            address,
            port: port.number,
            protocol: protocol(port.protocol),
            backends: port.backends.clone(),
        };
        service.ports.iter().map(port).collect::<Vec<_>>()
    };
    wanted.values().flat_map(of).collect()
}

impl Balancer {
    /// Whether anybody stands behind a virtual address.
    pub(crate) fn is_wanted(&self) -> bool {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.has_vips()
    }

    /// What shall be, by key; and the keys that have no address yet.
    fn wanted(&self, worker: &Worker) -> (HashMap<String, (Ipv4Addr, Service)>, Vec<String>) {
        let services = self.table.read().unwrap_or_else(PoisonError::into_inner).services(self.by_tenant);
        let vips = Arc::clone(&worker.cluster.views().borrow().vips);
        let (mut wanted, mut waiting) = (HashMap::new(), Vec::new());
        for service in services {
            match vips.get(&service.key) {
                Some(address) => _ = wanted.insert(service.key.clone(), (*address, service)),
                None => waiting.push(service.key),
            }
        }
        (wanted, waiting)
    }

    fn record(&self, address: Ipv4Addr, service: &Service) -> Record {
        let mut record = service.record(address);
        let of_mesos = self.mesos.then(|| Name::parse(&format!("{}.{L4LB}", service.called)).ok());
        record.names.extend(of_mesos.flatten());
        record
    }

    /// Names behind which there is nobody any more are not answered.
    fn deny(&self, wanted: &HashMap<String, (Ipv4Addr, Service)>) {
        let shown = self.shown();
        let gone = shown.services.iter().filter(|(key, _)| !wanted.contains_key(*key));
        let gone = gone.map(|(_, (_, service))| service.id());
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        gone.for_each(|id| _ = table.remove(&id));
    }

    fn answer(&self, wanted: &HashMap<String, (Ipv4Addr, Service)>) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        for (address, service) in wanted.values() {
            for error in table.put(self.record(*address, service)) {
                warn!(%error, "the name of a virtual address is left out");
            }
        }
    }
}
