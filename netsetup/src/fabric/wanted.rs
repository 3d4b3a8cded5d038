//! What shall be in the kernel, from what is said of the other hosts and from where the kernel would send to them.
//!
//! One peer that cannot be served is left out and told; must never fail for the others.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::fabric::vxlan::Tunnel;
use crate::fabric::{Datapath, Fabric, Peer};
use crate::identity;
use crate::netlink::Netlink;
use crate::query::{self, Hop};

/// Where packets to a block go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// They end here, unless a container has the address.
    Here,
    /// To this next hop over a link of the host.
    Link { via: IpAddr, index: u32 },
    /// To this next hop over the VXLAN device.
    Tunnel { via: IpAddr },
}

/// All that shall be there.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) routes: BTreeMap<IpNet, Way>,
    /// The VXLAN device, if anybody is reached over it.
    pub(crate) tunnel: Option<Tunnel>,
    /// Next hops on the VXLAN device, with their hardware addresses.
    pub(crate) neighbours: BTreeMap<IpAddr, [u8; 6]>,
    /// Where frames for a hardware address are sent to.
    pub(crate) ends: BTreeMap<[u8; 6], IpAddr>,
    /// The host's own address in the pool.
    pub(crate) host_address: Option<Ipv4Addr>,
    /// What is left out, and why.
    pub(crate) warnings: Vec<String>,
}

impl Wanted {
    /// Asks the kernel for the ways to the peers, all at once, and decides.
    pub(crate) async fn of(netlink: &Netlink, fabric: &Fabric, pool: Ipv4Net, name: &str) -> Self {
        let mut wanted = Self { host_address: fabric.host_address, ..Self::default() };
        for block in &fabric.own_blocks {
            wanted.add(pool, *block, Way::Here, "this host");
        }
        // A peer by VXLAN needs no look: the kernel finds the way for each packet.
        let looked: Vec<_> = fabric.peers.iter().filter(|peer| peer.datapath != Datapath::Vxlan).collect();
        let addresses: Vec<_> = looked.iter().map(|peer| peer.underlay).collect();
        let hops = query::hops(netlink, &addresses).await;
        let hops: BTreeMap<IpAddr, Option<Hop>> = addresses.into_iter().zip(hops).collect();
        for peer in &fabric.peers {
            let hop = hops.get(&peer.underlay).copied().flatten();
            match wanted.way(fabric, peer, hop) {
                Ok(way) => {
                    peer.destinations.iter().for_each(|block| wanted.add(pool, *block, way, &peer.name));
                }
                Err(why) => wanted.warnings.push(format!("peer {} ({}): {why}", peer.name, peer.underlay)),
            }
        }
        if !wanted.ends.is_empty() {
            wanted.tunnel = Some(Tunnel::of(fabric, name));
        }
        wanted
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
        if peer.underlay.is_ipv4() != fabric.underlay.is_ipv4() {
            return Err(format!("VXLAN from {} cannot reach the other address family", fabric.underlay));
        }
        let mac = identity::tunnel_mac(peer.underlay);
        // IPv6 addresses are made shorter; two of them in a fabric of a thousand may meet once in ten thousand times.
        let taken = self.ends.get(&mac).is_some_and(|end| *end != peer.underlay);
        if taken || mac == identity::tunnel_mac(fabric.underlay) {
            return Err("its hardware address is another host's as well: give it another address".to_owned());
        }
        let via = match peer.underlay {
            IpAddr::V4(_) => peer.underlay,
            IpAddr::V6(_) => IpAddr::V6(identity::tunnel_hop(mac)),
        };
        self.ends.insert(mac, peer.underlay);
        self.neighbours.insert(via, mac);
        Ok(Way::Tunnel { via })
    }

    fn add(&mut self, pool: Ipv4Net, block: Ipv4Net, way: Way, name: &str) {
        let block = block.trunc();
        if !pool.contains(&block) {
            self.warnings.push(format!("{block} of {name} is not in the pool {pool}"));
            return;
        }
        match self.routes.entry(IpNet::V4(block)) {
            Entry::Vacant(place) => _ = place.insert(way),
            Entry::Occupied(place) if *place.get() == way => {}
            Entry::Occupied(_) => self.warnings.push(format!("{block} of {name} is another host's as well")),
        }
    }
}
