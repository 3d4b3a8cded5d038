//! The face of the crate: what a caller may ask of the network.
//!
//! Only passes jobs to the lanes; must never do any of the work in the caller's thread.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ipnet::{IpNet, Ipv4Net};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::RouteType;
use tokio::sync::Semaphore;

use crate::error::{Error, Failure};
use crate::fabric::Fabric;
use crate::fabric::wanted::Pools;
use crate::fabric::weave::{Weaver, own_blocks};
use crate::firewall::Firewalls;
use crate::identity::{self, SIGN_PROTOCOL};
use crate::lane::Lane;
use crate::leading;
use crate::netlink::Netlink;
use crate::query::{self, Link, Route};
use crate::settings::Settings;
use crate::sources::Sources;
use crate::wire::spec::{Wire, WireSpec};
use crate::wire::wiring::Wiring;
use crate::{host, netns, pool6, removal, underlay, wire};

/// The network of one host, as one Selvedge sees it.
#[derive(Debug)]
pub struct Network {
    /// For work that clients wait for.
    quick: Lane,
    /// For work that may take long: deletions and the iptables command.
    slow: Lane,
    wiring: Wiring,
    weaver: Weaver,
    firewalls: Firewalls,
    sources: Sources,
    changes: Arc<AtomicU64>,
}

impl Network {
    /// Opens the network of the calling thread's network namespace. Changes nothing.
    ///
    /// # Errors
    /// When the kernel refuses a netlink socket or a thread; [`Error::Pool6`] when the IPv6 pool is too small.
    pub async fn open(settings: Settings) -> Result<Self, Error> {
        if let Some(pool6) = settings.pool6.filter(|pool6| pool6.prefix_len() > pool6::LONGEST) {
            return Err(Error::Pool6 { pool6 });
        }
        let changes = Arc::new(AtomicU64::new(0));
        let quick = Lane::start("network", Arc::clone(&changes)).await?;
        let slow = Lane::start("network-slow", Arc::clone(&changes)).await?;
        let own_namespace = netns::own_inode()
            .map_err(|error| Failure::new("find the process's own network namespace", &error).of_host())?;
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
        let (firewalls, sources) = (Firewalls::new(&settings), Sources::new(&settings));
        let wiring = Wiring { settings, mtu, own_namespace, netlink, changes: Arc::clone(&changes), turns };
        Ok(Self { quick, slow, wiring, weaver, firewalls, sources, changes })
    }

    /// Prepares the host: the gateway's and DNS server's addresses, forwarding, and the host's firewalls opened for
    /// traffic inside the pool. Changes only what differs; call it again whenever the engine was restarted, because
    /// that rewrites its iptables chains.
    ///
    /// # Errors
    /// When the kernel or iptables refuses a step.
    pub async fn prepare_host(&self) -> Result<(), Error> {
        self.mind_host().await?;
        self.slow.netlink().count(self.firewalls.begin().await?);
        Ok(())
    }

    /// Repairs the host's own addresses and settings after outside changes; returns the number of changes. Call it now
    /// and then: it costs one dump of addresses.
    ///
    /// # Errors
    /// When the kernel refuses a step.
    pub async fn mind_host(&self) -> Result<u64, Error> {
        let (netlink, settings) = (self.quick.netlink().clone(), self.wiring.settings.clone());
        self.quick.run(async move { host::prepare(&netlink, &settings).await }).await
    }

    /// What `mind_host` would change, one line each for operators; empty when all is right.
    ///
    /// # Errors
    /// When the kernel refuses a dump.
    pub async fn host_lacks(&self) -> Result<Vec<String>, Error> {
        let (netlink, settings) = (self.quick.netlink().clone(), self.wiring.settings.clone());
        self.quick.run(async move { host::lacks(&netlink, &settings).await.map_err(Failure::of_host) }).await
    }

    /// Opens the host's firewalls again if outside changes have closed them: a reload of firewalld, an `iptables -F`.
    /// Call it now and then; while no rules change it costs one question to the kernel.
    ///
    /// # Errors
    /// When the kernel or iptables refuses a step.
    pub async fn mind_firewalls(&self) -> Result<(), Error> {
        let opened = self.firewalls.mind().await;
        self.guard_sources().await?;
        self.slow.netlink().count(opened?);
        Ok(())
    }

    /// Declares that there are no other hosts: packets with a source in the pool come from wires only.
    ///
    /// # Errors
    /// When nft or the kernel refuses the rules.
    pub async fn is_alone(&self) -> Result<(), Error> {
        self.sources.set_peers(None).await;
        self.guard_sources().await
    }

    async fn guard_sources(&self) -> Result<(), Error> {
        let (sources, netlink) = (self.sources.clone(), self.slow.netlink().clone());
        let written = self.slow.run(async move { sources.ensure(&netlink).await }).await?;
        self.slow.netlink().count(written);
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

    /// The addresses of the pool that are routed to a link other than our wires, with the link's name: another
    /// Selvedge's containers, or an administrator's setup.
    ///
    /// # Errors
    /// When the kernel refuses a dump.
    pub async fn foreign_addresses(&self) -> Result<Vec<(Ipv4Addr, String)>, Error> {
        let netlink = self.quick.netlink().clone();
        let (pool, group) = (self.wiring.settings.pool, self.wiring.settings.group);
        self.quick.run(async move { foreign(&netlink, pool, group).await.map_err(Failure::of_host) }).await
    }

    /// Makes the wire, or repairs the existing one: everything but the sign. When it returns, packets go through.
    ///
    /// Takes over what another process began; sends nothing when all is right. When it fails on a wire that it made
    /// itself, it leaves nothing of it.
    ///
    /// # Errors
    /// [`Error::Gone`] when the process ended; [`Error::Occupied`] when the container has a `selvedge0` of its own.
    pub async fn connect(&self, spec: &WireSpec) -> Result<(), Error> {
        let (wiring, spec) = (self.wiring.clone(), spec.clone());
        self.quick.run(async move { wire::connect(&wiring, &spec).await }).await
    }

    /// Gives the sign that the container's first program waits for: the pool's route. Then marks the host's end.
    ///
    /// # Errors
    /// [`Error::Gone`] when the process ended; [`Error::NotConnected`] when there is no wire.
    pub async fn release(&self, spec: &WireSpec) -> Result<(), Error> {
        let (wiring, spec) = (self.wiring.clone(), spec.clone());
        self.quick.run(async move { wire::release(&wiring, &spec).await }).await
    }

    /// Removes wires, many at once; wires already gone are fine. Takes about 20 ms plus 1 ms per wire, and delays
    /// `connect` no longer than the kernel's lock requires.
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

    /// Makes the kernel know exactly these hosts; changes only the difference, in batches; returns the number of
    /// changes. A peer that cannot be reached is left out and logged.
    ///
    /// # Errors
    /// [`Error::Tunnel`] when the VXLAN device cannot be made: everything that does not need it was done all the same.
    pub async fn weave(&self, fabric: &Fabric) -> Result<u64, Error> {
        let (weaver, fabric) = (self.weaver.clone(), fabric.clone());
        // Accept their packets before there is a path for them.
        self.sources.set_peers(Some(&fabric)).await;
        let guarded = self.guard_sources().await;
        let woven = self.slow.run(async move { weaver.weave(&fabric).await }).await?;
        guarded.map(|()| woven)
    }

    /// Gives packets to virtual addresses a route: to the rules that send them to an instance, or refuse them. No range
    /// means that there are none (any more). `source` is the address that the host itself calls from; the gateway's, if
    /// it has no other.
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

    /// What `weave` would do, one line each for operators; empty when all is right.
    ///
    /// # Errors
    /// When the kernel refuses a dump.
    pub async fn plan(&self, fabric: &Fabric) -> Result<Vec<String>, Error> {
        let (weaver, fabric) = (self.weaver.clone(), fabric.clone());
        self.slow.run(async move { weaver.plan(&fabric).await }).await
    }

    /// This host's blocks as recorded in the kernel: readable without any registry, after any crash.
    ///
    /// # Errors
    /// When the kernel refuses a dump.
    pub async fn own_blocks(&self) -> Result<Vec<Ipv4Net>, Error> {
        let netlink = self.quick.netlink().clone();
        let group = self.wiring.settings.group;
        self.quick.run(async move { own_blocks(&netlink, group).await.map_err(Failure::of_host) }).await
    }

    /// This host's address on the link of its default route (or on its only global link), for a host with no configured
    /// address.
    ///
    /// # Errors
    /// When the kernel refuses a dump.
    pub async fn default_underlay(&self) -> Result<Option<IpAddr>, Error> {
        let (netlink, settings) = (self.quick.netlink().clone(), self.wiring.settings.clone());
        let found =
            async move { underlay::default_address(&netlink, &settings).await.map_err(Failure::of_host) };
        self.quick.run(found).await
    }

    /// How many changes this object has made in the kernel so far: 0 after a start that found all right.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// The MTU of our wires in bytes.
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

async fn foreign(netlink: &Netlink, pool: Ipv4Net, group: u32) -> Result<Vec<(Ipv4Addr, String)>, Failure> {
    let routes = query::all_kinds(netlink, AddressFamily::Inet).await?;
    let mut routed: Vec<(u32, Ipv4Addr)> =
        routes.iter().filter_map(host_route).filter(|(_, address)| pool.contains(address)).collect();
    if routed.is_empty() {
        return Ok(Vec::new());
    }
    let links = query::links(netlink).await?;
    routed.retain(|(index, _)| {
        let own =
            |link: &&Link| link.index == *index && [group, identity::doomed(group)].contains(&link.group);
        !links.iter().any(|link| own(&link))
    });
    let name = |index: u32| links.iter().find(|link| link.index == index).map(|link| link.name.clone());
    Ok(routed.into_iter().filter_map(|(index, address)| Some((address, name(index)?))).collect())
}

// A route to another host's block has a next hop, and one to a block of our own refuses.
fn host_route((kind, route): &(RouteType, Route)) -> Option<(u32, Ipv4Addr)> {
    let IpNet::V4(destination) = route.destination else { return None };
    let direct = *kind == RouteType::Unicast && destination.prefix_len() == 32 && route.gateway.is_none();
    direct.then_some((route.interface?, destination.addr()))
}

fn wire_of(link: &Link, group: u32, addresses: &std::collections::HashMap<u32, Ipv4Addr>) -> Option<Wire> {
    // A link whose deletion has begun is still a wire, so that a caller deletes or replaces it.
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
