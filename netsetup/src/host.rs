//! What the host itself needs before the first wire: addresses and forwarding.
//!
//! Must never take anything away: another Selvedge on this host may need the same.

use std::net::Ipv4Addr;

use nix::errno::Errno;
use rtnetlink::AddressMessageBuilder;
use rtnetlink::packet_route::address::AddressScope;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::error::{Error, Failure};
use crate::netlink::{Change, Netlink};
use crate::network::Settings;
use crate::query;
use crate::sysctl::{self, Setting};

/// Puts the host right; changes only what differs.
pub(crate) async fn prepare(netlink: &Netlink, settings: &Settings) -> Result<(), Error> {
    let forwarding = Setting {
        step: "turn on IPv4 forwarding (/proc/sys/net/ipv4/ip_forward)",
        path: "ipv4/ip_forward".to_owned(),
        value: "1",
        optional: false,
    };
    netlink.count(sysctl::ensure(&[forwarding]).map_err(Failure::of_host)?);
    if settings.pool6.is_some() {
        netlink.count(sysctl::ensure(&forwarding6()).map_err(Failure::of_host)?);
    }
    own_addresses(netlink, &[settings.gateway, settings.dns]).await.map_err(Failure::of_host)
}

/// A host that forwards IPv6 takes no router's advertisements any more (accept_ra 1) and would lose its own default
/// route: before it begins to, its links are told to go on (2). Where it forwarded already, that was decided by others.
fn forwarding6() -> Vec<Setting> {
    let forwarding = Setting {
        step: "turn on IPv6 forwarding (/proc/sys/net/ipv6/conf/all/forwarding)",
        path: "ipv6/conf/all/forwarding".to_owned(),
        value: "1",
        optional: false,
    };
    if sysctl::read(&forwarding.path).as_deref() == Some("1") {
        return Vec::new();
    }
    let links = sysctl::below("ipv6/conf").into_iter().filter(|name| name != "all" && name != "default");
    let paths = links.map(|name| format!("ipv6/conf/{name}/accept_ra"));
    let taking = paths.filter(|path| sysctl::read(path).as_deref() == Some("1"));
    let settings = taking.map(|path| Setting {
        step: "go on taking IPv6 router advertisements",
        path,
        value: "2",
        optional: true,
    });
    settings.chain([forwarding]).collect()
}

async fn own_addresses(netlink: &Netlink, wanted: &[Ipv4Addr]) -> Result<(), Failure> {
    let step = "find the loopback device";
    let Some(loopback) = query::link_by_name(netlink, "lo").await? else {
        return Err(Failure { step, errno: Errno::ENODEV });
    };
    let present = query::addresses(netlink, AddressFamily::Inet, None).await?;
    for (place, address) in wanted.iter().enumerate() {
        let repeated = wanted.get(..place).is_some_and(|before| before.contains(address));
        if repeated || present.iter().any(|have| have.address == *address) {
            continue;
        }
        let mut message =
            AddressMessageBuilder::<Ipv4Addr>::new().index(loopback.index).address(*address, 32).build();
        // Scope host: the kernel then never takes it by itself as the source of packets to somewhere else.
        message.header.scope = AddressScope::Host;
        let change =
            Change::create("give the host the gateway's address", RouteNetlinkMessage::NewAddress(message));
        // Another Selvedge may have been faster.
        netlink.apply_unless(change, Errno::EEXIST).await?;
    }
    Ok(())
}
