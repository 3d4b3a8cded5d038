//! The wanted state of the kernel, from what we know of the other hosts and from the kernel's routes to them.
//!
//! A peer that cannot be served is left out and reported; it must never make the others fail.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::error::Failure;
use crate::fabric::vxlan::Tunnel;
use crate::fabric::{Datapath, Fabric, Peer};
use crate::identity;
use crate::netlink::Netlink;
use crate::pool6::{address6, block6};
use crate::query::{self, Hop};

/// Where packets to a block go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Dropped here, unless a container has the address.
    Here,
    /// To this next hop over a link of the host.
    Link { via: IpAddr, index: u32 },
    /// To this next hop over the VXLAN device.
    Tunnel { via: IpAddr },
}

/// The paths of IPv4 and, with an IPv6 pool, of IPv6.
type Ways = (Way, Option<Way>);

/// The pools of addresses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pools {
    pub(crate) four: Ipv4Net,
    pub(crate) six: Option<Ipv6Net>,
}

impl Pools {
    /// The address in both families.
    fn both(self, address: Option<Ipv4Addr>) -> Vec<IpAddr> {
        let six = self.six.zip(address).map(|(six, address)| IpAddr::V6(address6(six, address)));
        address.map(IpAddr::V4).into_iter().chain(six).collect()
    }
}

/// The wanted state.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) routes: BTreeMap<IpNet, Way>,
    /// The VXLAN device, if any peer is reached over it.
    pub(crate) tunnel: Option<Tunnel>,
    /// Next hops on the VXLAN device, with their hardware addresses.
    pub(crate) neighbours: BTreeMap<IpAddr, [u8; 6]>,
    /// Where frames for a hardware address are sent.
    pub(crate) ends: BTreeMap<[u8; 6], IpAddr>,
    /// The host's own addresses in the pools, at most one of each family.
    pub(crate) host_addresses: Vec<IpAddr>,
    /// What is left out, with the reasons.
    pub(crate) warnings: Vec<String>,
}

impl Wanted {
    /// Asks the kernel for the routes to all peers at once, and decides.
    pub(crate) async fn of(
        netlink: &Netlink,
        fabric: &Fabric,
        pools: Pools,
        name: &str,
    ) -> Result<Self, Failure> {
        let host_addresses = pools.both(fabric.host_address);
        let mut wanted = Self { host_addresses, ..Self::default() };
        for block in &fabric.own_blocks {
            wanted.add(pools, *block, (Way::Here, Some(Way::Here)), "this host");
        }
        // A VXLAN peer needs no lookup: the kernel finds the route for each packet.
        let looked: Vec<_> = fabric.peers.iter().filter(|peer| peer.datapath != Datapath::Vxlan).collect();
        let addresses: Vec<_> = looked.iter().map(|peer| peer.underlay).collect();
        let hops = query::hops(netlink, &addresses).await?;
        let hops: BTreeMap<IpAddr, Option<Hop>> = addresses.into_iter().zip(hops).collect();
        for peer in &fabric.peers {
            let hop = hops.get(&peer.underlay).copied().flatten();
            match wanted.ways(fabric, pools, peer, hop) {
                Ok(ways) => {
                    peer.destinations.iter().for_each(|block| wanted.add(pools, *block, ways, &peer.name));
                }
                Err(why) => wanted.warnings.push(format!("peer {} ({}): {why}", peer.name, peer.underlay)),
            }
        }
        if !wanted.ends.is_empty() {
            wanted.tunnel = Some(Tunnel::of(fabric, name, pools.six.is_some()));
        }
        Ok(wanted)
    }

    /// The paths of IPv4 and IPv6 packets.
    fn ways(&mut self, fabric: &Fabric, pools: Pools, peer: &Peer, hop: Option<Hop>) -> Result<Ways, String> {
        let way = self.way(fabric, peer, hop)?;
        if pools.six.is_none() {
            return Ok((way, None));
        }
        // An IPv6 route needs an IPv6 next hop: over an IPv4 underlay only IPv4 goes directly, and IPv6 by VXLAN.
        if let Way::Link { via: IpAddr::V6(_), .. } | Way::Here = way {
            return Ok((way, Some(way)));
        }
        let way6 = match self.end(fabric, peer) {
            Ok(mac) => Some(self.tunnel(IpAddr::V6(identity::tunnel_hop(mac)), mac)),
            Err(why) => {
                self.warnings.push(format!("IPv6 to peer {} ({}): {why}", peer.name, peer.underlay));
                None
            }
        };
        Ok((way, way6))
    }

    fn way(&mut self, fabric: &Fabric, peer: &Peer, hop: Option<Hop>) -> Result<Way, String> {
        if peer.underlay == fabric.underlay || hop.is_some_and(|hop| hop.local) {
            return Err("its address is this host's own".to_owned());
        }
        match (peer.datapath, hop) {
            (Datapath::Vxlan, _) => self.by_tunnel(fabric, peer),
            (_, None) => Err("there is no route to it".to_owned()),
            (Datapath::Auto, Some(Hop { gateway: Some(_), .. })) => self.by_tunnel(fabric, peer),
            (_, Some(Hop { interface, gateway, .. })) => {
                Ok(Way::Link { via: gateway.unwrap_or(peer.underlay), index: interface })
            }
        }
    }

    fn by_tunnel(&mut self, fabric: &Fabric, peer: &Peer) -> Result<Way, String> {
        let mac = self.end(fabric, peer)?;
        let via = match peer.underlay {
            IpAddr::V4(_) => peer.underlay,
            IpAddr::V6(_) => IpAddr::V6(identity::tunnel_hop(mac)),
        };
        Ok(self.tunnel(via, mac))
    }

    fn tunnel(&mut self, via: IpAddr, mac: [u8; 6]) -> Way {
        self.neighbours.insert(via, mac);
        Way::Tunnel { via }
    }

    /// The far end of the tunnel, by its hardware address.
    fn end(&mut self, fabric: &Fabric, peer: &Peer) -> Result<[u8; 6], String> {
        if peer.underlay.is_ipv4() != fabric.underlay.is_ipv4() {
            return Err(format!("VXLAN from {} cannot reach the other address family", fabric.underlay));
        }
        let mac = identity::tunnel_mac(peer.underlay);
        // IPv6 addresses are hashed to fit: in a fabric of a thousand hosts, two collide once in ten thousand times.
        let taken = self.ends.get(&mac).is_some_and(|end| *end != peer.underlay);
        if taken || mac == identity::tunnel_mac(fabric.underlay) {
            return Err(
                "its hardware address collides with another host's: give it another address".to_owned()
            );
        }
        self.ends.insert(mac, peer.underlay);
        Ok(mac)
    }

    fn add(&mut self, pools: Pools, block: Ipv4Net, (way, way6): Ways, name: &str) {
        let block = block.trunc();
        if !pools.four.contains(&block) {
            self.warnings.push(format!("{block} of {name} is outside the pool {}", pools.four));
            return;
        }
        match self.routes.entry(IpNet::V4(block)) {
            Entry::Vacant(place) => {
                place.insert(way);
                let six = pools.six.zip(way6).map(|(six, way6)| (IpNet::V6(block6(six, block)), way6));
                self.routes.extend(six);
            }
            Entry::Occupied(place) if *place.get() == way => {}
            Entry::Occupied(_) => {
                self.warnings.push(format!("{block} of {name} also belongs to another host"))
            }
        }
    }
}
