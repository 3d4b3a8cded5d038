//! Which address a new container gets: what was asked for, if this host can give it, else the next free one.

use std::net::Ipv4Addr;

use selvedge_netsetup::policy::nft_version;
use selvedge_registry::pool::AddressError;

use super::super::labels::Wishes;
use super::super::weave;
use crate::book::Wish;
use crate::config::overlap;
use crate::docker::error::Refusal;
use crate::fabric;
use crate::worker::Worker;

fn wish(wishes: &Wishes) -> Wish {
    let subnet = wishes.subnet.map_or(Wish::Any, Wish::Subnet);
    wishes.address.map_or(subnet, Wish::Address)
}

/// Whether what was asked for can be had with this host's settings.
pub(super) fn allowed(worker: &Worker, wishes: &Wishes) -> Result<(), Refusal> {
    let range = worker.config.vips.range;
    if let Some(subnet) = wishes.subnet.filter(|subnet| !worker.config.pool.contains(subnet)) {
        let reason =
            format!("{}: {subnet} is not a part of the pool {}", weave::VARIABLE, worker.config.pool);
        return Err(Refusal::new(400, reason));
    }
    if let Some((subnet, range)) = wishes.subnet.zip(range).filter(|(subnet, range)| overlap(*subnet, *range))
    {
        let reason = format!(
            "{}: {subnet} overlaps {range}, which is for virtual addresses (--vip-range)",
            weave::VARIABLE
        );
        return Err(Refusal::new(400, reason));
    }
    match (wishes.address, range) {
        (Some(address), Some(range)) if range.contains(&address) => Err(Refusal::new(
            400,
            format!(
                "label selvedge.ip: {address} lies in {range}, which is for virtual addresses (--vip-range)"
            ),
        )),
        _ if wishes.vips.is_empty() => Ok(()),
        (_, None) => Err(Refusal::new(
            400,
            "label selvedge.vip: this host has no range of virtual addresses; set --vip-range",
        )),
        _ if nft_version().is_none() => Err(Refusal::new(
            503,
            "label selvedge.vip: virtual addresses need nft on this host; install the package nftables",
        )),
        _ => Ok(()),
    }
}

/// A full host claims another block first, which mostly has been done before it was full.
pub(super) async fn take_address(
    worker: &Worker,
    wishes: &Wishes,
    holder: &str,
) -> Result<Ipv4Addr, Refusal> {
    let wish = wish(wishes);
    let mut taken = worker.book.take(wish, holder);
    if matches!(taken, Err(AddressError::Full(_))) {
        let subnet = if let Wish::Subnet(subnet) = wish { Some(subnet) } else { None };
        fabric::another_block(worker, subnet).await.map_err(|reason| Refusal::new(503, reason))?;
        taken = worker.book.take(wish, holder);
    }
    taken.map_err(|error| {
        let status = match &error {
            AddressError::Outside { .. } => 400,
            AddressError::Taken { .. } => 409,
            AddressError::Full(_) => 503,
        };
        Refusal::new(status, error.to_string())
    })
}
