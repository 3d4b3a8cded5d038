//! A kernel that keeps what it is told, and refuses what it is told to refuse.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use ipnet::Ipv4Net;
use selvedge_datapath::kernel::{Kernel, Pending, RouteTable, RuleTable, VipTable};
use selvedge_netsetup::policy::{Party, Refusal};
use selvedge_netsetup::services::Service;
use selvedge_netsetup::{Error, Fabric};

/// What a kernel has of something that is noted first, and put in force later.
#[derive(Debug, Default, Clone)]
pub struct Staged<T> {
    /// For the next change.
    pub noted: T,
    /// What counts.
    pub in_force: T,
}

/// The rules.
#[derive(Debug, Default, Clone)]
pub struct Rules {
    /// Containers by their ids.
    pub parties: BTreeMap<String, Party>,
    /// Hosts' own addresses.
    pub hosts: BTreeSet<Ipv4Addr>,
}

/// The virtual addresses.
#[derive(Debug, Default, Clone)]
pub struct Vips {
    /// Each port of each.
    pub services: Vec<Service>,
    /// Containers that are about to be stopped.
    pub aside: Vec<Ipv4Addr>,
}

/// The kernel.
#[derive(Debug, Default)]
pub struct FakeKernel {
    said: Mutex<Vec<String>>,
    refuses: Mutex<BTreeSet<&'static str>>,
    /// What it was made to reach last.
    pub fabric: Mutex<Option<Fabric>>,
    /// The blocks that an earlier worker left.
    pub own_blocks: Mutex<Vec<Ipv4Net>>,
    /// The host's address, if it can be told.
    pub underlay: Mutex<Option<IpAddr>>,
    /// Whether an earlier worker left rules.
    pub has_rules: AtomicBool,
    /// The rules.
    pub rules: Mutex<Staged<Rules>>,
    /// The virtual addresses.
    pub vips: Mutex<Staged<Vips>>,
    /// How much was changed from outside since it was last looked at.
    pub spoilt: AtomicU64,
    /// What was refused.
    pub refused: Mutex<HashMap<Refusal, u64>>,
    /// What was written down of ended containers.
    pub remembered: Mutex<HashMap<IpAddr, String>>,
}

/// The door to it.
pub fn kernel(fake: &Arc<FakeKernel>) -> Kernel {
    let routes: Arc<FakeKernel> = Arc::clone(fake);
    let rules: Arc<FakeKernel> = Arc::clone(fake);
    let vips: Arc<FakeKernel> = Arc::clone(fake);
    Kernel { routes, rules, vips }
}

impl FakeKernel {
    /// What it was told so far, a verb each.
    pub fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }

    /// How often it was told this.
    pub fn times(&self, what: &str) -> usize {
        self.said.lock().unwrap().iter().filter(|said| *said == what).count()
    }

    /// This verb fails from now on.
    pub fn refuse(&self, verb: &'static str) {
        self.refuses.lock().unwrap().insert(verb);
    }

    /// It fails no longer.
    pub fn agree(&self, verb: &'static str) {
        self.refuses.lock().unwrap().remove(verb);
    }

    /// Whose rules are in force.
    pub fn admitted(&self) -> Vec<String> {
        self.rules.lock().unwrap().in_force.parties.keys().cloned().collect()
    }

    /// Where connections to this address go.
    pub fn backends(&self, address: Ipv4Addr) -> Vec<Ipv4Addr> {
        let vips = self.vips.lock().unwrap();
        let of = vips.in_force.services.iter().filter(|service| service.address == address);
        of.flat_map(|service| service.backends.iter().map(|(backend, _)| *backend)).collect()
    }

    fn told<T: Send + 'static>(
        &self,
        verb: &'static str,
        then: impl FnOnce(&Self) -> T,
    ) -> Pending<'static, T> {
        self.said.lock().unwrap().push(verb.to_owned());
        let outcome = match self.refuses.lock().unwrap().contains(verb) {
            true => Err(Error::Host { step: verb, errno: nix::errno::Errno::EPERM }),
            false => Ok(then(self)),
        };
        Box::pin(std::future::ready(outcome))
    }
}

impl RouteTable for FakeKernel {
    fn weave<'a>(&'a self, fabric: &'a Fabric) -> Pending<'a, u64> {
        self.told("weave", |kernel| {
            let before = kernel.fabric.lock().unwrap().replace(fabric.clone());
            u64::from(before.as_ref() != Some(fabric))
        })
    }

    fn plan<'a>(&'a self, fabric: &'a Fabric) -> Pending<'a, Vec<String>> {
        self.told("plan routes", |_| fabric.peers.iter().map(|peer| format!("reach {}", peer.name)).collect())
    }

    fn lead(&self, range: Option<Ipv4Net>, _: Option<Ipv4Addr>) -> Pending<'_, ()> {
        self.told(if range.is_some() { "lead" } else { "lead nowhere" }, |_| ())
    }

    fn own_blocks(&self) -> Pending<'_, Vec<Ipv4Net>> {
        self.told("own blocks", |kernel| kernel.own_blocks.lock().unwrap().clone())
    }

    fn default_underlay(&self) -> Pending<'_, Option<IpAddr>> {
        self.told("underlay", |kernel| *kernel.underlay.lock().unwrap())
    }
}

impl RuleTable for FakeKernel {
    fn put(&self, id: &str, party: Party) {
        self.rules.lock().unwrap().noted.parties.insert(id.to_owned(), party);
    }

    fn remove(&self, id: &str) {
        self.rules.lock().unwrap().noted.parties.remove(id);
    }

    fn set_hosts(&self, addresses: &BTreeSet<Ipv4Addr>) {
        self.rules.lock().unwrap().noted.hosts.clone_from(addresses);
    }

    fn settled(&self) -> Pending<'_, ()> {
        self.told("settled", |_| ())
    }

    fn begin(&self) -> Pending<'_, bool> {
        self.told("begin", |kernel| kernel.has_rules.load(Relaxed))
    }

    fn apply(&self) -> Pending<'_, ()> {
        self.told("apply rules", |kernel| {
            let mut rules = kernel.rules.lock().unwrap();
            rules.in_force = rules.noted.clone();
        })
    }

    fn check(&self) -> Pending<'_, u64> {
        self.told("check rules", |kernel| kernel.spoilt.swap(0, Relaxed))
    }

    fn plan(&self) -> Pending<'_, Vec<String>> {
        self.told("plan rules", |_| vec!["nft add rule".to_owned()])
    }

    fn withdraw(&self) -> Pending<'_, ()> {
        self.told("withdraw rules", |kernel| *kernel.rules.lock().unwrap() = Staged::default())
    }

    fn refused(&self) -> Pending<'_, HashMap<Refusal, u64>> {
        self.told("refused", |kernel| kernel.refused.lock().unwrap().clone())
    }

    fn remember(&self, names: Vec<(Ipv4Addr, String)>) -> Pending<'_, ()> {
        self.told("remember", |kernel| {
            let names = names.into_iter().map(|(address, name)| (IpAddr::from(address), name));
            kernel.remembered.lock().unwrap().extend(names);
        })
    }

    fn remembered(&self) -> Pending<'_, HashMap<IpAddr, String>> {
        self.told("remembered", |kernel| kernel.remembered.lock().unwrap().clone())
    }

    fn forget<'a>(&'a self, addresses: &'a BTreeSet<IpAddr>) -> Pending<'a, ()> {
        self.told("forget", |kernel| {
            let is_kept =
                |refusal: &Refusal| !addresses.contains(&refusal.from) && !addresses.contains(&refusal.to);
            kernel.refused.lock().unwrap().retain(|refusal, _| is_kept(refusal));
            kernel.remembered.lock().unwrap().retain(|address, _| !addresses.contains(address));
        })
    }
}

impl VipTable for FakeKernel {
    fn set(&self, services: &[Service], aside: &[Ipv4Addr]) {
        let noted = Vips { services: services.to_vec(), aside: aside.to_vec() };
        self.vips.lock().unwrap().noted = noted;
    }

    fn apply(&self) -> Pending<'_, ()> {
        self.told("apply vips", |kernel| {
            let mut vips = kernel.vips.lock().unwrap();
            vips.in_force = vips.noted.clone();
        })
    }

    fn check(&self) -> Pending<'_, u64> {
        self.told("check vips", |kernel| kernel.spoilt.swap(0, Relaxed))
    }

    fn plan(&self) -> Pending<'_, Vec<String>> {
        self.told("plan vips", |_| vec!["nft add element".to_owned()])
    }

    fn aside(&self) -> Pending<'_, Vec<Ipv4Addr>> {
        self.told("aside", |kernel| kernel.vips.lock().unwrap().in_force.aside.clone())
    }

    fn withdraw(&self) -> Pending<'_, ()> {
        self.told("withdraw vips", |kernel| *kernel.vips.lock().unwrap() = Staged::default())
    }
}
