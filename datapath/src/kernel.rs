//! What is asked of the kernel: routes, rules and virtual addresses, a door for each, so that tests can stand behind them.
//! Must never decide anything.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;

use ipnet::Ipv4Net;
use selvedge_netsetup::policy::{Party, Policy, Refusal};
use selvedge_netsetup::services::{Service, Services, ServicesSettings};
use selvedge_netsetup::{Error, Fabric, Network};

use crate::settings::Settings;

/// What is still to come of a question to the kernel.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// The three of them.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// The way to other hosts, and to virtual addresses.
    pub routes: Arc<dyn RouteTable>,
    /// The rules between tenants.
    pub rules: Arc<dyn RuleTable>,
    /// Which containers stand behind virtual addresses.
    pub vips: Arc<dyn VipTable>,
}

impl Kernel {
    /// This machine's. Changes nothing in it yet.
    pub fn of(settings: &Settings, network: &Arc<Network>) -> Self {
        // One that has no range may still have to take out an earlier worker's.
        let range = settings.vips.unwrap_or(settings.pool);
        let services = ServicesSettings { group: settings.group, range, pool6: settings.pool6 };
        let routes: Arc<Network> = Arc::clone(network);
        Self {
            routes,
            rules: Arc::new(Policy::new(settings.policy())),
            vips: Arc::new(Services::new(services)),
        }
    }
}

/// The kernel's routes, and what they say of this host.
pub trait RouteTable: Debug + Send + Sync {
    /// Makes them lead to exactly these hosts; how many changes that took.
    fn weave<'a>(&'a self, fabric: &'a Fabric) -> Pending<'a, u64>;
    /// What that would change, one line each.
    fn plan<'a>(&'a self, fabric: &'a Fabric) -> Pending<'a, Vec<String>>;
    /// Makes packets to virtual addresses come to the rules; with no range, not any more.
    fn lead(&self, range: Option<Ipv4Net>, source: Option<Ipv4Addr>) -> Pending<'_, ()>;
    /// This host's blocks, as an earlier worker left them.
    fn own_blocks(&self) -> Pending<'_, Vec<Ipv4Net>>;
    /// This host's address on the link of its default route.
    fn default_underlay(&self) -> Pending<'_, Option<IpAddr>>;
}

impl RouteTable for Network {
    fn weave<'a>(&'a self, fabric: &'a Fabric) -> Pending<'a, u64> {
        Box::pin(self.weave(fabric))
    }

    fn plan<'a>(&'a self, fabric: &'a Fabric) -> Pending<'a, Vec<String>> {
        Box::pin(self.plan(fabric))
    }

    fn lead(&self, range: Option<Ipv4Net>, source: Option<Ipv4Addr>) -> Pending<'_, ()> {
        Box::pin(self.lead(range, source))
    }

    fn own_blocks(&self) -> Pending<'_, Vec<Ipv4Net>> {
        Box::pin(self.own_blocks())
    }

    fn default_underlay(&self) -> Pending<'_, Option<IpAddr>> {
        Box::pin(self.default_underlay())
    }
}

/// The rules between tenants, and what they have refused. Each is as [`Policy`] has it.
pub trait RuleTable: Debug + Send + Sync {
    /// Notes a container, for the next change.
    fn put(&self, id: &str, party: Party);
    /// Notes that one is not there any more.
    fn remove(&self, id: &str);
    /// Notes the hosts' own addresses in the pool.
    fn set_hosts(&self, addresses: &BTreeSet<Ipv4Addr>);
    /// All containers have been noted once: what else is there is old.
    fn settled(&self) -> Pending<'_, ()>;
    /// Goes on with an earlier worker's rules; whether there were any.
    fn begin(&self) -> Pending<'_, bool>;
    /// Returns when all that was noted is in force.
    fn apply(&self) -> Pending<'_, ()>;
    /// Repairs what was changed from outside; how much that was.
    fn check(&self) -> Pending<'_, u64>;
    /// What that would change, one line each.
    fn plan(&self) -> Pending<'_, Vec<String>>;
    /// Takes all of them out.
    fn withdraw(&self) -> Pending<'_, ()>;
    /// What was refused in the last day, in packets.
    fn refused(&self) -> Pending<'_, HashMap<Refusal, u64>>;
    /// Writes down addresses' last owners for the next worker.
    fn remember(&self, names: Vec<(Ipv4Addr, String)>) -> Pending<'_, ()>;
    /// Those that an earlier worker wrote down.
    fn remembered(&self) -> Pending<'_, HashMap<IpAddr, String>>;
    /// Deletes what was counted and written down of these addresses.
    fn forget<'a>(&'a self, addresses: &'a BTreeSet<IpAddr>) -> Pending<'a, ()>;
}

impl RuleTable for Policy {
    fn put(&self, id: &str, party: Party) {
        self.put(id, party);
    }

    fn remove(&self, id: &str) {
        self.remove(id);
    }

    fn set_hosts(&self, addresses: &BTreeSet<Ipv4Addr>) {
        self.set_hosts(addresses);
    }

    fn settled(&self) -> Pending<'_, ()> {
        Box::pin(async move {
            self.settled().await;
            Ok(())
        })
    }

    fn begin(&self) -> Pending<'_, bool> {
        Box::pin(self.begin())
    }

    fn apply(&self) -> Pending<'_, ()> {
        Box::pin(self.apply())
    }

    fn check(&self) -> Pending<'_, u64> {
        Box::pin(self.check())
    }

    fn plan(&self) -> Pending<'_, Vec<String>> {
        Box::pin(self.plan())
    }

    fn withdraw(&self) -> Pending<'_, ()> {
        Box::pin(self.withdraw())
    }

    fn refused(&self) -> Pending<'_, HashMap<Refusal, u64>> {
        Box::pin(self.refused())
    }

    fn remember(&self, names: Vec<(Ipv4Addr, String)>) -> Pending<'_, ()> {
        Box::pin(self.remember(names))
    }

    fn remembered(&self) -> Pending<'_, HashMap<IpAddr, String>> {
        Box::pin(self.remembered())
    }

    fn forget<'a>(&'a self, addresses: &'a BTreeSet<IpAddr>) -> Pending<'a, ()> {
        Box::pin(self.forget(addresses))
    }
}

/// Virtual addresses. Each is as [`Services`] has it.
pub trait VipTable: Debug + Send + Sync {
    /// Notes all of them, and the containers that stand aside, for the next change.
    fn set(&self, services: &[Service], aside: &[Ipv4Addr]);
    /// Returns when what was noted is in force.
    fn apply(&self) -> Pending<'_, ()>;
    /// Repairs what was changed from outside; how much that was.
    fn check(&self) -> Pending<'_, u64>;
    /// What that would change, one line each.
    fn plan(&self) -> Pending<'_, Vec<String>>;
    /// The containers that stood aside when the last worker ended.
    fn aside(&self) -> Pending<'_, Vec<Ipv4Addr>>;
    /// Takes all of them out.
    fn withdraw(&self) -> Pending<'_, ()>;
}

impl VipTable for Services {
    fn set(&self, services: &[Service], aside: &[Ipv4Addr]) {
        self.set(services, aside);
    }

    fn apply(&self) -> Pending<'_, ()> {
        Box::pin(self.apply())
    }

    fn check(&self) -> Pending<'_, u64> {
        Box::pin(self.check())
    }

    fn plan(&self) -> Pending<'_, Vec<String>> {
        Box::pin(self.plan())
    }

    fn aside(&self) -> Pending<'_, Vec<Ipv4Addr>> {
        Box::pin(self.aside())
    }

    fn withdraw(&self) -> Pending<'_, ()> {
        Box::pin(self.withdraw())
    }
}
