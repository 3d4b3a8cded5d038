//! Reads the present state, compares, and sends the difference.
//!
//! A problem with one peer never delays the others: the first refusal is reported after everything else is done. Must
//! never read a dump once per peer.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::{IpNet, Ipv4Net};
use rtnetlink::packet_route::AddressFamily;

use crate::error::{Error, Failure};
use crate::fabric::Fabric;
use crate::fabric::have::{Have, held};
use crate::fabric::messages::Context;
use crate::fabric::plan::{self, Step};
use crate::fabric::vxlan::Tunnel;
use crate::fabric::wanted::{Pools, Wanted};
use crate::identity;
use crate::netlink::Netlink;
use crate::{query, sysctl, underlay};

/// What every job needs.
#[derive(Debug, Clone)]
pub(crate) struct Weaver {
    pub(crate) netlink: Netlink,
    pub(crate) pools: Pools,
    pub(crate) group: u32,
    /// Warnings already logged: each is logged once, not every second.
    pub(crate) told: Arc<Mutex<BTreeSet<String>>>,
    /// One job at a time: each acts on the state it has read.
    pub(crate) turn: Arc<tokio::sync::Mutex<()>>,
}

/// This host's blocks as recorded in the kernel.
pub(crate) async fn own_blocks(netlink: &Netlink, group: u32) -> Result<Vec<Ipv4Net>, Failure> {
    let held = held(netlink, AddressFamily::Inet, group).await?;
    let mut blocks: Vec<Ipv4Net> = held
        .iter()
        .filter_map(|held| match held.own_block() {
            Some(IpNet::V4(block)) => Some(block),
            _ => None,
        })
        .collect();
    blocks.sort_unstable();
    Ok(blocks)
}

impl Weaver {
    /// Brings the kernel to this state; returns the number of changes.
    pub(crate) async fn weave(&self, fabric: &Fabric) -> Result<u64, Error> {
        let _turn = self.turn.lock().await;
        let (steps, wanted, mut context, mtu) = self.steps(fabric).await.map_err(Failure::of_host)?;
        self.tell(&wanted.warnings);
        let (first, mut rest) = split(steps);
        let mut done = 0;
        let mut outcome = self.send(context, &first, &mut done).await;
        if let Some(tunnel) = making(&rest) {
            match tunnel.make(&self.netlink, self.group, mtu).await {
                Ok(index) => {
                    context.tunnel = index;
                    done += 1;
                }
                Err(failure) => {
                    outcome = outcome.and(Err(no_tunnel(&tunnel, failure)));
                    rest.retain(|step| !step.needs_tunnel());
                }
            }
        }
        outcome = outcome.and(self.send(context, &rest, &mut done).await);
        outcome.map(|()| done)
    }

    /// What `weave` would do, as lines.
    pub(crate) async fn plan(&self, fabric: &Fabric) -> Result<Vec<String>, Error> {
        let (steps, _, context, _) = self.steps(fabric).await.map_err(Failure::of_host)?;
        if steps.is_empty() {
            return Ok(Vec::new());
        }
        let links = query::links(&self.netlink).await.map_err(Failure::of_host)?;
        let names: HashMap<u32, String> = links.into_iter().map(|link| (link.index, link.name)).collect();
        let name = |index: u32| names.get(&index).cloned().unwrap_or_else(|| format!("if{index}"));
        Ok(steps.iter().map(|step| context.line(step, name)).collect())
    }

    async fn steps(&self, fabric: &Fabric) -> Result<(Vec<Step>, Wanted, Context, u32), Failure> {
        let name = identity::tunnel_interface(self.group);
        let wanted = Wanted::of(&self.netlink, fabric, self.pools, &name).await?;
        let have = Have::look(&self.netlink, self.group, self.pools).await?;
        let mtu = match &wanted.tunnel {
            Some(_) => underlay::mtu_inside(&self.netlink, fabric.underlay).await?,
            None => 0,
        };
        let steps = plan::steps(&wanted, &have, mtu);
        let tunnel = have.device.as_ref().map_or(0, |device| device.link.index);
        Ok((steps, wanted, Context { group: self.group, tunnel, loopback: have.loopback }, mtu))
    }

    async fn send(&self, context: Context, steps: &[Step], done: &mut u64) -> Result<(), Error> {
        let mut outcome = Ok(());
        let settings: Vec<_> = steps
            .iter()
            .filter_map(|step| match step {
                Step::Set(setting) => Some(setting.clone()),
                _ => None,
            })
            .collect();
        match sysctl::ensure(&settings) {
            Ok(written) => {
                self.netlink.count(written);
                *done += written;
            }
            Err(failure) => outcome = Err(failure.of_host()),
        }
        let changes = steps.iter().filter_map(|step| Some((step, context.change(step)?)));
        let (sent, changes): (Vec<_>, Vec<_>) = changes.unzip();
        for (step, result) in sent.into_iter().zip(self.netlink.apply_each(changes).await) {
            match result {
                Ok(made) => *done += u64::from(made),
                Err(failure) => {
                    tracing::debug!("{failure}: {}", context.line(step, |index| format!("if{index}")));
                    outcome = outcome.and(Err(failure.of_host()));
                }
            }
        }
        outcome
    }

    fn tell(&self, warnings: &[String]) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for warning in warnings.iter().filter(|warning| !told.contains(*warning)) {
            tracing::warn!("{warning}; left out");
        }
        *told = warnings.iter().cloned().collect();
    }
}

/// Splits off the steps to do before the VXLAN device is made.
fn split(mut steps: Vec<Step>) -> (Vec<Step>, Vec<Step>) {
    let place = steps.iter().position(|step| matches!(step, Step::MakeTunnel(_)));
    let rest = steps.split_off(place.unwrap_or_default());
    (steps, rest)
}

fn making(steps: &[Step]) -> Option<Tunnel> {
    match steps.first() {
        Some(Step::MakeTunnel(tunnel)) => Some(tunnel.clone()),
        _ => None,
    }
}

fn no_tunnel(tunnel: &Tunnel, failure: Failure) -> Error {
    let Tunnel { name, port, id, .. } = tunnel.clone();
    Error::Tunnel { name, port, id, step: failure.step, errno: failure.errno }
}
