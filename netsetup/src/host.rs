//! What the host itself needs before the first wire: addresses and forwarding.
//!
//! Must never remove anything: another Selvedge on this host may need the same.

use std::net::Ipv4Addr;

use nix::errno::Errno;
use rtnetlink::AddressMessageBuilder;
use rtnetlink::packet_route::address::AddressScope;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::error::{Error, Failure};
use crate::netlink::{Change, Netlink};
use crate::query;
use crate::settings::Settings;
use crate::sysctl::{self, Setting};

/// Prepares the host; changes only what differs, and returns the number of changes.
pub(crate) async fn prepare(netlink: &Netlink, settings: &Settings) -> Result<u64, Error> {
    let written = sysctl::ensure(&forwarding(settings)).map_err(Failure::of_host)?;
    netlink.count(written);
    Ok(written + own_addresses(netlink, settings).await.map_err(Failure::of_host)?)
}

/// What the host lacks, one line each for operators; empty when all is right.
pub(crate) async fn lacks(netlink: &Netlink, settings: &Settings) -> Result<Vec<String>, Failure> {
    let differing = sysctl::differing(forwarding(settings)).into_iter();
    let mut lines: Vec<String> =
        differing.map(|setting| format!("/proc/sys/net/{} is not {}", setting.path, setting.value)).collect();
    let addresses = missing_addresses(netlink, settings).await?;
    lines.extend(addresses.iter().map(|address| format!("lo lacks the address {address}")));
    Ok(lines)
}

fn forwarding(settings: &Settings) -> Vec<Setting> {
    let mut wanted = vec![Setting {
        step: "turn on IPv4 forwarding (/proc/sys/net/ipv4/ip_forward)",
        path: "ipv4/ip_forward".to_owned(),
        value: "1",
        optional: false,
    }];
    if settings.pool6.is_some() {
        wanted.extend(forwarding6());
    }
    wanted
}

/// A host that forwards IPv6 stops accepting router advertisements (accept_ra 1) and would lose its own default route:
/// before forwarding is turned on, its links are set to keep accepting them (2). Where the host already forwards,
/// others have decided that.
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
        step: "keep accepting IPv6 router advertisements",
        path,
        value: "2",
        optional: true,
    });
    settings.chain([forwarding]).collect()
}

/// The addresses by which containers reach this host, as far as they are missing.
async fn missing_addresses(netlink: &Netlink, settings: &Settings) -> Result<Vec<Ipv4Addr>, Failure> {
    let present = query::addresses(netlink, AddressFamily::Inet, None).await?;
    let mut wanted = vec![settings.gateway, settings.dns];
    wanted.dedup();
    wanted.retain(|address| present.iter().all(|have| have.address != *address));
    Ok(wanted)
}

async fn own_addresses(netlink: &Netlink, settings: &Settings) -> Result<u64, Failure> {
    let missing = missing_addresses(netlink, settings).await?;
    if missing.is_empty() {
        return Ok(0);
    }
    let step = "find the loopback device";
    let Some(loopback) = query::link_by_name(netlink, "lo").await? else {
        return Err(Failure { step, errno: Errno::ENODEV });
    };
    let mut given = 0;
    for address in missing {
        let mut message =
            AddressMessageBuilder::<Ipv4Addr>::new().index(loopback.index).address(address, 32).build();
        // Scope host: the kernel then never picks it as the source of packets to other hosts.
        message.header.scope = AddressScope::Host;
        let change =
            Change::create("give the host the gateway's address", RouteNetlinkMessage::NewAddress(message));
        // Another Selvedge may have been faster.
        given += u64::from(netlink.apply_unless(change, Errno::EEXIST).await?);
    }
    Ok(given)
}
