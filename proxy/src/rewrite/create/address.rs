//! Which address a new container gets: what was asked for, if this host can give it, else the next free one.

use std::net::Ipv4Addr;

use selvedge_datapath::addresses::Wish;
use selvedge_datapath::pool_claim::overlap;
use selvedge_datapath::vip::nft_version;
use selvedge_engine::refusal::Refusal;
use selvedge_registry::pool::AddressError;

use super::super::labels::Wishes;
use super::super::weave;
use crate::api::Api;

/// Whether what was asked for can be had with this host's settings.
pub(super) fn allowed(api: &Api, wishes: &Wishes) -> Result<(), Refusal> {
    let range = api.settings.vips;
    if let Some(subnet) = wishes.subnet.filter(|subnet| !api.settings.pool.contains(subnet)) {
        let reason = format!("{}: {subnet} is not a part of the pool {}", weave::VARIABLE, api.settings.pool);
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
                "{}: {address} lies in {range}, which is for virtual addresses (--vip-range)",
                if wishes.by_weave { weave::VARIABLE } else { "label selvedge.ip" }
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

/// The address of a new container. One that its user chose is only looked at: it becomes the container's when it starts, as
/// the engine's own `--ip` does, so that a container can be replaced by one with the same address.
pub(super) async fn take_address(api: &Api, wishes: &Wishes, create: u64) -> Result<Ipv4Addr, Refusal> {
    let addresses = &api.containers.addresses;
    if let Some(address) = wishes.address {
        return addresses.check(address).map(|()| address).map_err(refusal);
    }
    addresses.known().await;
    let wish = wishes.subnet.map_or(Wish::Any, Wish::Subnet);
    // A full host claims another block, which mostly has been done before it was full.
    match addresses.take(wish, create) {
        Err(AddressError::Full(_)) => {
            let another = api.containers.host.another_block(wishes.subnet).await;
            another.map_err(|reason| Refusal::new(503, reason))?;
            addresses.take(wish, create).map_err(refusal)
        }
        taken => taken.map_err(refusal),
    }
}

fn refusal(error: AddressError) -> Refusal {
    let status = match &error {
        AddressError::Outside { .. } => 400,
        AddressError::Taken { .. } => 409,
        AddressError::Full(_) => 503,
    };
    let hint = match &error {
        AddressError::Full(_) => "; remove containers that are not needed: stopped ones keep their address",
        _ => "",
    };
    Refusal::new(status, format!("{error}{hint}"))
}
