//! The parts of a running worker, for those of its tasks that look at all of them. Must never be what a request or a
//! container is served by: those have what they use.

use std::collections::HashMap;
use std::net::{TcpListener, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use selvedge_containers::agent::Agent;
use selvedge_containers::shared::Containers;
use selvedge_datapath::follow::Datapath;
use selvedge_engine::model::short;
use selvedge_netsetup::Network;
use selvedge_proxy::api::Api;
use selvedge_registry::name::Name;
use selvedge_registry::shared::SharedTable;
use tokio::time::Instant;

use crate::config::Config;
use crate::health::Health;
use crate::status::Double;

/// What all tasks of a worker share.
#[derive(Debug)]
pub(crate) struct Worker {
    /// The settings.
    pub(crate) config: Config,
    /// What all requests share.
    pub(crate) api: Arc<Api>,
    /// Our containers.
    pub(crate) containers: Arc<Containers>,
    /// The kernel's side of it: wires.
    pub(crate) network: Arc<Network>,
    /// This host's side of the network.
    pub(crate) datapath: Arc<Datapath>,
    /// The Mesos agent that tells of its tasks' health checks, if there is one.
    pub(crate) agent: Option<Arc<Agent>>,
    /// What the list of checks has found.
    pub(crate) health: Health,
    /// When this worker began.
    pub(crate) since: Instant,
    pub(crate) dns: Mutex<Option<selvedge_dns::Server>>,
    /// All names, to be looked up.
    pub(crate) names: SharedTable,
}

impl Worker {
    /// How many containers of other hosts are known, by their host.
    pub(crate) fn containers_by_host(&self) -> HashMap<String, usize> {
        let table = self.names.read();
        let mut counts = HashMap::new();
        for (host, _) in table.iter().filter_map(|record| record.id.split_once('/')) {
            *counts.entry(host.to_owned()).or_default() += 1;
        }
        counts
    }

    /// Exclusive names that several containers have; for `selvedge status`.
    pub(crate) fn doubles(&self) -> Vec<Double> {
        let table = self.names.read();
        let told = |(name, ids): (Name, Vec<String>)| {
            // A container of another host is `HOST/ID`.
            let told = |id: &String| {
                id.get(..64).filter(|_| !id.contains('/')).map_or(id.as_str(), short).to_owned()
            };
            Double {
                name: name.to_string().trim_end_matches('.').to_owned(),
                containers: ids.iter().map(told).collect(),
            }
        };
        table.doubles().into_iter().map(told).collect()
    }

    /// What DNS has counted; `None` when it has been stopped.
    pub(crate) fn dns_counts(&self) -> Option<selvedge_dns::Counts> {
        self.dns.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(selvedge_dns::Server::stats)
    }

    /// Begins to answer names. Not before the table is filled: a name that is not there yet would be denied.
    pub(crate) fn start_dns(&self, udp: UdpSocket, tcp: TcpListener) -> anyhow::Result<()> {
        let listen = self.config.dns_listen.into();
        let mut settings = selvedge_dns::Settings::new(self.names.clone(), listen, self.config.pool);
        let upstream = self.config.dns_upstream.clone();
        settings.upstreams = upstream.servers;
        (settings.secured, settings.authorities) = (upstream.secured, upstream.authorities);
        self.config.cluster.host_name.clone_into(&mut settings.server);
        let engine = self.containers.engine.clone();
        settings.engines = Some(selvedge_dns::Engines::new(move || {
            engine.resolver().servers.iter().filter_map(|server| server.parse().ok()).collect()
        }));
        let server =
            selvedge_dns::Server::spawn(settings, vec![udp], vec![tcp]).context("cannot start DNS")?;
        *self.dns.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
        Ok(())
    }

    /// Asks the DNS thread for a sign of life.
    pub(crate) fn ping_dns(&self) -> Option<tokio::sync::oneshot::Receiver<()>> {
        let dns = self.dns.lock().unwrap_or_else(PoisonError::into_inner);
        dns.as_ref().map(selvedge_dns::Server::ping)
    }

    pub(crate) fn stop_dns(&self) {
        let server = self.dns.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(server) = server {
            server.stop();
        }
    }
}
