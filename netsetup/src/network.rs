//! The face of the crate: what a caller may ask of the network.
//!
//! Only hands jobs to the lanes; must never do any of the work in the caller's thread.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::RouteType;
use tokio::sync::Semaphore;

use crate::error::{Error, Failure};
use crate::fabric::{self, Fabric, Pools, Weaver};
use crate::firewall::Firewalls;
use crate::identity::{self, SIGN_PROTOCOL, prefix};
use crate::lane::Lane;
use crate::leading;
use crate::netlink::Netlink;
use crate::query::{self, Link, Route};
use crate::wire::Wiring;
use crate::{host, netns, pool6, removal, underlay, wire};

/// What all wires of one Selvedge have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// All container addresses of all hosts.
    pub pool: Ipv4Net,
    /// The address of this host as its containers see it: the same link-local one on every host (169.254.1.1).
    pub gateway: Ipv4Addr,
    /// Where the DNS server listens; usually the gateway's address.
    pub dns: Ipv4Addr,
    /// The link group (IFLA_GROUP) of our host ends, below 2^30: tells our wires from those of another Selvedge.
    pub group: u32,
    /// Bytes of the largest packet on a wire; `None` takes it from the link that has the underlay's address, or
    /// else from that of the host's default route.
    pub mtu: Option<u32>,
    /// Whether packets to other hosts may travel in VXLAN: `mtu` of `None` then leaves room for its headers (50
    /// bytes, 70 over an IPv6 underlay).
    pub encapsulated: bool,
    /// This host's address on the network that connects the hosts.
    pub underlay: Option<IpAddr>,
    /// Gives containers an IPv6 address as well: this network, and their IPv4 address in its last 32 bits. Its prefix
    /// has at most 96 bits.
    pub pool6: Option<Ipv6Net>,
}

/// A wire that shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireSpec {
    /// The container's id, 64 hex digits.
    pub container: String,
    /// Its address, one of the pool.
    pub address: Ipv4Addr,
    /// Its first process, by the host's numbers.
    pub pid: u32,
}

/// A wire as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wire {
    /// The host end's name.
    pub name: String,
    /// The first twelve hex digits of the container's id.
    pub container_prefix: String,
    /// The host end's index, which no other link of this host ever gets.
    pub ifindex: u32,
    /// The address that is routed over it.
    pub address: Option<Ipv4Addr>,
    /// The inode of the network namespace that it leads to; known when it is complete.
    pub namespace: Option<u64>,
    /// Whether its container was given the sign, after everything else was done.
    pub complete: bool,
}

impl Wire {
    /// Whether this wire is complete and leads to the network namespace in which the process is now.
    ///
    /// A wire of a container that was restarted meanwhile is not: its old namespace may take a while to die.
    pub fn serves(&self, pid: u32) -> bool {
        self.complete && self.namespace.is_some() && netns::inode_of(pid).ok() == self.namespace
    }
}

/// The network of one host, as one Selvedge sees it.
#[derive(Debug)]
pub struct Network {
    /// For what a client waits for.
    quick: Lane,
    /// For what may take long: deletions and the iptables command.
    slow: Lane,
    wiring: Wiring,
    weaver: Weaver,
    firewalls: Firewalls,
    changes: Arc<AtomicU64>,
}

impl Network {
    /// Opens the network of the calling thread's network namespace. Changes nothing.
    ///
    /// # Errors
    /// When the kernel refuses a netlink socket or a thread; [`Error::Pool6`] when the settings cannot be met.
    pub async fn open(settings: Settings) -> Result<Self, Error> {
        if let Some(pool6) = settings.pool6.filter(|pool6| pool6.prefix_len() > pool6::LONGEST) {
            return Err(Error::Pool6 { pool6 });
        }
        let changes = Arc::new(AtomicU64::new(0));
        let quick = Lane::start("network", Arc::clone(&changes)).await?;
        let slow = Lane::start("network-slow", Arc::clone(&changes)).await?;
        let own_namespace = netns::own_inode()
            .map_err(|error| Failure::new("find the own network namespace", &error).of_host())?;
        let netlink = quick.netlink().clone();
        let (reader, of) = (netlink.clone(), settings.clone());
        let mtu = async move { underlay::wire_mtu(&reader, &of).await.map_err(Failure::of_host) };
        let mtu = quick.run(mtu).await?;
        let turns = Arc::new(Semaphore::new(wire::TURNS));
        let weaver = Weaver {
            netlink: slow.netlink().clone(),
            pools: Pools { four: settings.pool, six: settings.pool6 },
            group: settings.group,
            told: Arc::default(),
            turn: Arc::default(),
        };
        let firewalls = Firewalls::new(&settings);
        let wiring = Wiring { settings, mtu, own_namespace, netlink, changes: Arc::clone(&changes), turns };
        Ok(Self { quick, slow, wiring, weaver, firewalls, changes })
    }

    /// Makes the host ready: the gateway's and DNS server's addresses, forwarding, and the host's firewalls opened for
    /// traffic inside the pool. Changes only what differs; to be called again whenever the engine was restarted,
    /// because that writes its iptables chains anew.
    ///
    /// # Errors
    /// When the kernel or iptables refuses a step.
    pub async fn prepare_host(&self) -> Result<(), Error> {
        let settings = self.wiring.settings.clone();
        let netlink = self.quick.netlink().clone();
        self.quick.run(async move { host::prepare(&netlink, &settings).await }).await?;
        self.slow.netlink().count(self.firewalls.begin().await?);
        Ok(())
    }

    /// Opens the host's firewalls again if somebody has closed them: a firewalld that was reloaded, an `iptables -F`. To
    /// be called now and then; as long as nobody changes any rules it costs one question to the kernel.
    ///
    /// # Errors
    /// When the kernel or iptables refuses a step.
    pub async fn mind_firewalls(&self) -> Result<(), Error> {
        self.slow.netlink().count(self.firewalls.mind().await?);
        Ok(())
    }

    /// All wires of this Selvedge: one dump of links, one of routes.
    ///
    /// # Errors
    /// When the kernel refuses a dump.
    pub async fn wires(&self) -> Result<Vec<Wire>, Error> {
        let netlink = self.quick.netlink().clone();
        let group = self.wiring.settings.group;
        self.quick.run(async move { list(&netlink, group).await.map_err(Failure::of_host) }).await
    }

    /// Makes the wire, or puts right what is there: all but the sign. When it returns, packets go through.
    ///
    /// Takes over what another process began; sends nothing when all is right. When it fails on a wire that it
    /// made itself, nothing is left of it.
    ///
    /// # Errors
    /// [`Error::Gone`] when the process ended; [`Error::Occupied`] when the container has a `selvedge0` of its own.
    pub async fn connect(&self, spec: &WireSpec) -> Result<(), Error> {
        let (wiring, spec) = (self.wiring.clone(), spec.clone());
        self.quick.run(async move { wire::connect(&wiring, &spec).await }).await
    }

    /// Gives the sign for which the container's first program waits: the pool's route. Then marks the host's end.
    ///
    /// # Errors
    /// [`Error::Gone`] when the process ended; [`Error::NotConnected`] when there is no wire.
    pub async fn release(&self, spec: &WireSpec) -> Result<(), Error> {
        let (wiring, spec) = (self.wiring.clone(), spec.clone());
        self.quick.run(async move { wire::release(&wiring, &spec).await }).await
    }

    /// Takes wires out, many at once; those that are gone already are fine. Takes its time (about 20 ms and 1 ms
    /// more per wire), without making `connect` wait for it longer than the kernel does.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub async fn disconnect(&self, wires: &[Wire]) -> Result<(), Error> {
        let doomed: Vec<(u32, String)> = wires.iter().map(|wire| (wire.ifindex, wire.name.clone())).collect();
        let netlink = self.slow.netlink().clone();
        let group = self.wiring.settings.group;
        self.slow
            .run(async move { removal::remove(&netlink, &doomed, group).await.map_err(Failure::of_host) })
            .await
    }

    /// Makes the kernel know the other hosts as said, and nobody else; changes only the difference, in batches; gives
    /// the number of changes. A peer that cannot be reached is left out and told in the log.
    ///
    /// # Errors
    /// [`Error::Tunnel`] when the VXLAN device cannot be made: everything that does not need it was done all the same.
    pub async fn weave(&self, fabric: &Fabric) -> Result<u64, Error> {
        let (weaver, fabric) = (self.weaver.clone(), fabric.clone());
        self.slow.run(async move { weaver.weave(&fabric).await }).await
    }

    /// Sees to it that packets to virtual addresses have a way: to the rules that lead them to somebody, or refuse
    /// them. No range = there are none (any more). `source` is the address from which the host itself calls; its
    /// gateway's, if it has no other.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub async fn lead(&self, range: Option<Ipv4Net>, source: Option<Ipv4Addr>) -> Result<(), Error> {
        let netlink = self.slow.netlink().clone();
        let (source, pools) = (source.unwrap_or(self.wiring.settings.gateway), self.weaver.pools);
        self.slow
            .run(async move { leading::lead(&netlink, pools, range, source).await.map_err(Failure::of_host) })
            .await
    }

    /// What `weave` would do, one line each, for people; empty when all is right.
    ///
    /// # Errors
    /// When the kernel refuses a dump.
    pub async fn plan(&self, fabric: &Fabric) -> Result<Vec<String>, Error> {
        let (weaver, fabric) = (self.weaver.clone(), fabric.clone());
        self.slow.run(async move { weaver.plan(&fabric).await }).await
    }

    /// The blocks of this host as the kernel remembers them: readable without any registry, after any crash.
    ///
    /// # Errors
    /// When the kernel refuses a dump.
    pub async fn own_blocks(&self) -> Result<Vec<Ipv4Net>, Error> {
        let netlink = self.quick.netlink().clone();
        let group = self.wiring.settings.group;
        self.quick
            .run(async move { fabric::own_blocks(&netlink, group).await.map_err(Failure::of_host) })
            .await
    }

    /// The address of this host on the link of its default route (or on its only global link), for a host that was
    /// told none.
    ///
    /// # Errors
    /// When the kernel refuses a dump.
    pub async fn default_underlay(&self) -> Result<Option<IpAddr>, Error> {
        let (netlink, settings) = (self.quick.netlink().clone(), self.wiring.settings.clone());
        let found =
            async move { underlay::default_address(&netlink, &settings).await.map_err(Failure::of_host) };
        self.quick.run(found).await
    }

    /// How many things this object has changed in the kernel so far: 0 after a start that found all right.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Bytes of the largest packet on our wires.
    pub fn mtu(&self) -> u32 {
        self.wiring.mtu
    }
}

async fn list(netlink: &Netlink, group: u32) -> Result<Vec<Wire>, Failure> {
    let links = query::links(netlink).await?;
    let routes = query::routes_by(netlink, AddressFamily::Inet, SIGN_PROTOCOL).await?;
    let addresses: std::collections::HashMap<u32, Ipv4Addr> = routes.iter().filter_map(host_route).collect();
    Ok(links.into_iter().filter_map(|link| wire_of(&link, group, &addresses)).collect())
}

// A way to another host's block has a next hop, and one to a block of our own refuses.
fn host_route((kind, route): &(RouteType, Route)) -> Option<(u32, Ipv4Addr)> {
    let IpNet::V4(destination) = route.destination else { return None };
    let direct = *kind == RouteType::Unicast && destination.prefix_len() == 32 && route.gateway.is_none();
    direct.then_some((route.interface?, destination.addr()))
}

fn wire_of(link: &Link, group: u32, addresses: &std::collections::HashMap<u32, Ipv4Addr>) -> Option<Wire> {
    // A link that somebody had begun to delete is still a wire, so that a caller deletes or replaces it.
    let doomed = link.group == identity::doomed(group);
    if link.group != group && !doomed {
        return None;
    }
    let container_prefix = identity::container_of(&link.name)?.to_owned();
    let namespace = link.alias.as_deref().and_then(identity::marked_namespace).filter(|_| !doomed);
    Some(Wire {
        name: link.name.clone(),
        container_prefix,
        ifindex: link.index,
        address: addresses.get(&link.index).copied(),
        namespace,
        complete: namespace.is_some(),
    })
}

impl WireSpec {
    /// The short id, for messages.
    pub fn short_id(&self) -> &str {
        prefix(&self.container)
    }
}
