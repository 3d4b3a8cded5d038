//! What every request of a client needs: the way to the engine, the keeper, our containers. Put together once; must never
//! know what a request is.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::{Ipv4Net, Ipv6Net};
use selvedge_containers::shared::Containers;
use selvedge_custody::Ledger;
use selvedge_engine::http::pool::Upstream;
use selvedge_registry::name::Name;
use tokio::sync::watch;

use crate::counters::Counters;
use crate::front::silent::Silent;
use crate::handover::Keeper;

/// What requests are judged and rewritten by.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whether answers are made fit for Mesos.
    pub compat_mesos: bool,
    /// N of the oldest version 1.N that clients may ask with, where that is not the engine's to say.
    pub api_min: Option<u32>,
    /// The DNS domain.
    pub domain: Name,
    /// Where containers ask for names.
    pub dns: Ipv4Addr,
    /// All container addresses.
    pub pool: Ipv4Net,
    /// The IPv6 network that container addresses are mapped into, if IPv6 is on.
    pub pool6: Option<Ipv6Net>,
    /// The part of the pool that virtual addresses are taken from; nothing = there are none.
    pub vips: Option<Ipv4Net>,
    /// Which Selvedge this is, as its containers' labels have it.
    pub runtime_dir: PathBuf,
    /// The host's path of `wait`.
    pub wait_path: PathBuf,
    /// Whether containers on user-defined networks get a wire beside.
    pub user_networks: bool,
    /// How many groups of a Marathon app make its tenant.
    pub tenant_depth: u8,
}

/// The API front, as all requests share it.
#[derive(Debug)]
pub struct Api {
    /// What requests are judged by.
    pub settings: Settings,
    /// Clients' way to the engine.
    pub(crate) upstream: Upstream,
    /// Who takes streams.
    pub keeper: Arc<Keeper>,
    /// Where clients' requests are on record.
    pub(crate) ledger: Arc<Ledger>,
    /// Our containers.
    pub containers: Arc<Containers>,
    /// What is counted.
    pub counters: Counters,
    /// Clients that have not asked for anything.
    pub(crate) silent: Silent,
    leaving: watch::Sender<bool>,
}

impl Api {
    /// Serves no client yet.
    pub fn new(
        settings: Settings,
        upstream: Upstream,
        (keeper, ledger): (Arc<Keeper>, Arc<Ledger>),
        containers: Arc<Containers>,
    ) -> Self {
        Self {
            settings,
            upstream,
            keeper,
            ledger,
            containers,
            counters: Counters::default(),
            silent: Silent::default(),
            leaving: watch::Sender::new(false),
        }
    }

    /// Becomes true when idle clients are to go to the next worker.
    pub(crate) fn leaving(&self) -> watch::Receiver<bool> {
        self.leaving.subscribe()
    }

    /// There is no room for more clients: the one goes that has waited longest without asking for anything.
    pub fn crowded(&self) {
        self.silent.end_oldest();
    }

    /// Idle clients are to go to the next worker.
    pub fn leave(&self) {
        self.leaving.send_replace(true);
    }
}
