//! The host's own part: the gateway address, forwarding, and Docker's firewall.

use std::net::{IpAddr, Ipv4Addr};

use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::AddressAttribute;

use crate::error::Error;
use crate::network::Network;
use crate::{dump, firewall, sysctl};

/// Makes the host ready; changes only what is not so already.
pub(crate) async fn prepare(network: &Network) -> Result<(), Error> {
    let settings = &network.settings;
    address_on_lo(network, settings.gateway).await?;
    if settings.dns != settings.gateway {
        address_on_lo(network, settings.dns).await?;
    }
    if sysctl::set("net/ipv4/ip_forward", "1").map_err(Error::system("cannot turn on IPv4 forwarding"))? {
        network.changed();
    }
    if firewall::accept(settings.pool).await? {
        network.changed();
    }
    Ok(())
}

/// The gateway is on lo: every wire's far end can reach it, and no wire going takes it along.
async fn address_on_lo(network: &Network, address: Ipv4Addr) -> Result<(), Error> {
    let told = || Error::kernel("set the address", "lo");
    let Some(lo) = dump::link(&network.handle, "lo").await.map_err(told())? else { return Ok(()) };
    let request = network.handle.address().get().set_link_index_filter(lo.index);
    let there: Vec<_> = request.execute().try_collect().await.map_err(told())?;
    let is_it = |attribute: &AddressAttribute| matches!(attribute, AddressAttribute::Local(ip) if *ip == IpAddr::V4(address));
    if there.iter().any(|message| message.attributes.iter().any(is_it)) {
        return Ok(());
    }
    let request = network.handle.address().add(lo.index, IpAddr::V4(address), 32);
    network.added(request.execute().await).map_err(told())
}
