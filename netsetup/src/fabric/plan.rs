//! The difference between the wanted and the present state, as ordered steps.
//!
//! The order keeps packets flowing: what a route needs is there before the route, a route is replaced in one step, and
//! what it no longer needs goes after it. Must never send anything.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::fabric::have::{Have, Held};
use crate::fabric::vxlan::Tunnel;
use crate::fabric::wanted::{Wanted, Way};
use crate::query::Link;
use crate::sysctl::{self, Setting};

/// One step.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    TakeAddress(IpAddr),
    DropAddress(IpAddr),
    MakeTunnel(Tunnel),
    /// Size, or switched on.
    AlterTunnel(Link, u32),
    DropTunnel(Link),
    Set(Setting),
    WriteNeighbour(IpAddr, [u8; 6]),
    DropNeighbour(IpAddr),
    WriteEnd([u8; 6], IpAddr),
    DropEnd(Vec<u8>, IpAddr),
    WriteRoute(IpNet, Way, Option<IpAddr>),
    DropRoute(Held),
}

impl Step {
    /// Whether the step is useless if the VXLAN device cannot be made.
    pub(crate) fn needs_tunnel(&self) -> bool {
        matches!(
            self,
            Self::WriteNeighbour(..) | Self::WriteEnd(..) | Self::WriteRoute(_, Way::Tunnel { .. }, _)
        )
    }
}

/// The steps from the present to the wanted state. `mtu` is the VXLAN device's.
pub(crate) fn steps(wanted: &Wanted, have: &Have, mtu: u32) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut last = Vec::new();
    addresses(wanted, have, &mut steps, &mut last);
    let tunnel = tunnel(wanted, have, mtu, &mut steps, &mut last);
    ends(wanted, have, tunnel, &mut steps, &mut last);
    routes(wanted, have, tunnel, &mut steps);
    // Removal goes in reverse order: the entries before the device, the address at the very end.
    last.reverse();
    steps.extend(last);
    steps
}

fn addresses(wanted: &Wanted, have: &Have, steps: &mut Vec<Step>, last: &mut Vec<Step>) {
    let new = wanted.host_addresses.iter().filter(|address| !have.host_addresses.contains(address));
    steps.extend(new.map(|address| Step::TakeAddress(*address)));
    // Removing an address also removes the routes that have it as source: so only after these are replaced.
    let old = have.host_addresses.iter().filter(|address| !wanted.host_addresses.contains(address));
    last.extend(old.map(|address| Step::DropAddress(*address)));
}

/// Returns the index of the device, if it stays.
fn tunnel(
    wanted: &Wanted,
    have: &Have,
    mtu: u32,
    steps: &mut Vec<Step>,
    last: &mut Vec<Step>,
) -> Option<u32> {
    let present = have.device.as_ref().filter(|device| device.is_tunnel());
    match (&wanted.tunnel, present) {
        (None, None) => None,
        (None, Some(device)) => {
            last.push(Step::DropTunnel(device.link.clone()));
            Some(device.link.index)
        }
        (Some(tunnel), Some(device)) if device.is(tunnel) => {
            if !device.link.enabled || device.link.mtu != mtu {
                steps.push(Step::AlterTunnel(device.link.clone(), mtu));
            }
            steps.extend(sysctl::differing(tunnel.settings()).into_iter().map(Step::Set));
            Some(device.link.index)
        }
        (Some(tunnel), present) => {
            // Both have the same name and port: the old one must go before the new one can be made.
            steps.extend(present.map(|device| Step::DropTunnel(device.link.clone())));
            steps.push(Step::MakeTunnel(tunnel.clone()));
            None
        }
    }
}

fn ends(wanted: &Wanted, have: &Have, tunnel: Option<u32>, steps: &mut Vec<Step>, last: &mut Vec<Step>) {
    let goes = wanted.tunnel.is_none();
    let (no_neighbours, no_ends) = (HashMap::new(), Vec::new());
    let (neighbours, ends) =
        if tunnel.is_some() { (&have.neighbours, &have.ends) } else { (&no_neighbours, &no_ends) };
    let known: HashSet<(&[u8], IpAddr)> = ends.iter().map(|(end, mac)| (mac.as_slice(), *end)).collect();
    for (mac, end) in &wanted.ends {
        if !known.contains(&(mac.as_slice(), *end)) {
            steps.push(Step::WriteEnd(*mac, *end));
        }
    }
    for (address, mac) in &wanted.neighbours {
        if neighbours.get(address).map(Vec::as_slice) != Some(mac) {
            steps.push(Step::WriteNeighbour(*address, *mac));
        }
    }
    if goes {
        // They go with the device.
        return;
    }
    for (end, mac) in ends {
        let replaced = wanted.ends.iter().any(|(wanted, _)| mac == wanted);
        if !replaced {
            last.push(Step::DropEnd(mac.clone(), *end));
        }
    }
    let old = neighbours.keys().filter(|address| !wanted.neighbours.contains_key(address));
    last.extend(old.map(|address| Step::DropNeighbour(*address)));
}

fn routes(wanted: &Wanted, have: &Have, tunnel: Option<u32>, steps: &mut Vec<Step>) {
    let old_device = have.device.as_ref().map(|device| device.link.index);
    let replaced = tunnel.is_none();
    let mut by_block: BTreeMap<IpNet, Vec<&Held>> = BTreeMap::new();
    for held in &have.routes {
        // Routes over a device that is replaced go with it.
        let goes = replaced && held.route.interface.is_some() && held.route.interface == old_device;
        if !goes {
            by_block.entry(held.route.destination).or_default().push(held);
        }
    }
    let mut drops = Vec::new();
    for (block, way) in &wanted.routes {
        let source = source(wanted, block, *way);
        let mut held = by_block.remove(block).unwrap_or_default();
        match held.iter().position(|held| held.leads(*way, source, tunnel)) {
            Some(place) => _ = held.remove(place),
            None => {
                steps.push(Step::WriteRoute(*block, *way, source));
                // The kernel replaces the first of several.
                held.drain(..held.len().min(1));
            }
        }
        drops.extend(held.into_iter().cloned().map(Step::DropRoute));
    }
    drops.extend(by_block.into_values().flatten().cloned().map(Step::DropRoute));
    steps.extend(drops);
}

fn source(wanted: &Wanted, block: &IpNet, way: Way) -> Option<IpAddr> {
    let same_family = |address: &&IpAddr| address.is_ipv4() == block.addr().is_ipv4();
    match way {
        Way::Here => None,
        Way::Link { .. } | Way::Tunnel { .. } => wanted.host_addresses.iter().find(same_family).copied(),
    }
}
