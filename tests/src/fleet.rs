//! Many hosts on one machine: namespaces with an engine and a Selvedge each, joined by links and a router, and a
//! registry of three members on a link of its own.
//!
//! The switch is a namespace too: bridges that are its links, and the router between them. What fails is cut there, by
//! dropping packets, so that nobody gets a FIN.

use std::net::Ipv4Addr;
use std::sync::Mutex;

use nix::sys::signal::Signal;

use crate::engine::Engine;
use crate::firewalld::Firewalld;
use crate::host::Host;
use crate::reach::Place;
use crate::selvedge::Selvedge;

pub mod relay;
pub mod store;
pub mod switch;

use store::Store;
pub use store::StoreKind;
use switch::Switch;

/// What a fleet shall be.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many hosts.
    pub hosts: usize,
    /// How many links the hosts are spread over, one after the other; 1 or 2. Between two there is a router.
    pub links: usize,
    /// The registry; none: each host is alone.
    pub store: Option<StoreKind>,
    /// Further options of each Selvedge.
    pub options: Vec<String>,
    /// Options of each engine.
    pub engine: Vec<String>,
    /// Hosts know each other by IPv6 addresses.
    pub underlay6: bool,
    /// Each host has a firewalld, as Debian installs it.
    pub firewalld: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            hosts: 3,
            links: 1,
            store: Some(StoreKind::Zookeeper),
            options: Vec::new(),
            engine: Vec::new(),
            underlay6: false,
            firewalld: false,
        }
    }
}

/// Hosts, links and a registry. All of it goes with it.
#[derive(Debug)]
pub struct Fleet {
    // Dropped in this order: whoever fails can still reach the registry, and the links go last.
    /// The hosts, in order.
    pub members: Vec<Member>,
    /// The registry.
    pub store: Option<Store>,
    /// What joins them.
    pub switch: Switch,
}

/// One host.
#[derive(Debug)]
pub struct Member {
    /// Its Selvedge.
    pub selvedge: Selvedge,
    /// Its engine.
    pub engine: Engine,
    /// Its firewalld, if it has one.
    pub firewall: Option<Firewalld>,
    /// Its namespace and directory.
    pub host: Host,
    /// Its name in the registry: `h1`.
    pub name: String,
    /// Its address on the underlay.
    pub address: String,
    dead: Mutex<bool>,
}

impl Fleet {
    /// Makes it, and waits until all serve and know each other.
    ///
    /// # Panics
    /// When it cannot be had: a test that cannot run fails and says why.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let switch = Switch::new(plan.links);
        let store = plan.store.map(|kind| Store::start(kind, &switch));
        let members = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..plan.hosts)
                .map(|number| {
                    let (switch, store) = (&switch, store.as_ref());
                    scope.spawn(move || Member::start(plan, switch, store, number))
                })
                .collect();
            starts.into_iter().map(|start| start.join().expect("a host starts")).collect()
        });
        let fleet = Self { members, store, switch };
        if plan.store.is_some() {
            fleet.until_all_know_all();
        }
        fleet
    }

    /// Waits until each host that lives sees all the others that do.
    ///
    /// # Panics
    /// When they do not.
    pub fn until_all_know_all(&self) {
        let living: Vec<&Member> = self.members.iter().filter(|member| !member.is_dead()).collect();
        for member in &living {
            crate::wait::until_true(
                &format!("{} knows all others", member.name),
                std::time::Duration::from_secs(30),
                || member.alive_peers().len() + 1 == living.len(),
            );
        }
    }

    /// No packet passes between two hosts any more, by their numbers from 0.
    pub fn cut(&self, one: usize, other: usize) {
        self.switch.cut(&self.members[one].host, &self.members[other].host);
    }

    /// No packet passes between a host and the registry any more.
    pub fn cut_from_store(&self, one: usize) {
        self.switch.cut_from_store(&self.members[one].host);
    }

    /// All packets pass again.
    pub fn heal(&self) {
        self.switch.heal();
    }

    /// As if its power went: all its processes are killed, its link is down.
    pub fn kill(&self, one: usize) {
        let member = &self.members[one];
        member.host.sh("ip link set eth0 down");
        *member.dead.lock().expect("no test panics in here") = true;
        member.selvedge.end(Signal::SIGKILL);
        member.end_engine();
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // An engine that is asked to end waits for its containers, which wait for their grace: one host after the other.
        // Of whoever fails the logs are told first, by his Selvedge.
        std::thread::scope(|scope| {
            for member in self.members.iter().filter(|member| !member.is_dead()) {
                scope.spawn(|| member.end_engine());
            }
        });
    }
}

impl Member {
    fn start(plan: &Plan, switch: &Switch, store: Option<&Store>, number: usize) -> Self {
        let host = Host::new();
        let name = format!("h{}", number + 1);
        let address = switch.plug(&host, number % plan.links, number / plan.links + 1, plan.underlay6);
        let firewall = plan.firewalld.then(|| Firewalld::start(&host));
        let engine: Vec<&str> = plan.engine.iter().map(String::as_str).collect();
        let engine = Engine::debian(&host, &engine);
        let mut options = plan.options.clone();
        if let Some(store) = store {
            options.extend(["--registry".to_owned(), store.url("selvedge")]);
            options.extend(["--host-name".to_owned(), name.clone()]);
            options.extend(["--host-address".to_owned(), address.clone()]);
        }
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let selvedge = Selvedge::start(&host, &engine, &options);
        Self { selvedge, engine, firewall, host, name, address, dead: Mutex::new(false) }
    }

    fn end_engine(&self) {
        self.engine.end(Signal::SIGKILL);
        self.host.kill_all();
    }

    /// Whether it was killed.
    pub fn is_dead(&self) -> bool {
        *self.dead.lock().expect("no test panics in here")
    }

    /// The hosts that it takes for alive.
    #[must_use]
    pub fn alive_peers(&self) -> Vec<String> {
        let output = self.selvedge.ask(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&output.stdout).unwrap_or_default();
        let hosts = status["cluster"]["hosts"].as_array().cloned().unwrap_or_default();
        let alive = hosts.iter().filter(|host| host["alive"] == true);
        alive.filter_map(|host| host["name"].as_str().map(str::to_owned)).collect()
    }

    /// Runs a container in the background; its address on our network.
    pub fn run(&self, name: &str, arguments: &[&str]) -> String {
        let docker = self.selvedge.docker();
        docker.start(&[&["--name", name], arguments].concat());
        docker.address(name)
    }

    /// Runs a container whose ports are answered as [`crate::reach`] has it; where, and its address.
    ///
    /// # Panics
    /// When it has none.
    pub fn serving(&self, name: &str, options: &[&str]) -> (Place, Ipv4Addr) {
        let address = self.run(name, &[options, &["busybox", "sleep", "1d"]].concat());
        let place = Place::of(&self.selvedge.docker(), name);
        place.serve();
        (place, address.parse().expect("an address"))
    }

    /// Whether a container of this host reaches an address by ping.
    pub fn pings(&self, container: &str, address: &str) -> bool {
        let docker = self.selvedge.docker();
        docker.run(&["exec", container, "ping", "-c", "1", "-W", "2", address]).code == 0
    }
}
