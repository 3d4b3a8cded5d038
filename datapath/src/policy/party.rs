//! A record in the words of the kernel's rules. Pure.

use std::net::IpAddr;

use selvedge_netsetup::policy::{self, Party};
use selvedge_registry::allow::{self, Grant, Protocol, Who};
use selvedge_registry::caller;
use selvedge_registry::record::Record;

/// A container as the kernel's rules see it.
pub(crate) fn party(record: &Record, aliases: &[IpAddr]) -> Party {
    let own = Grant { who: Who::Tenant(record.tenant().into()), ports: Box::default() };
    Party {
        address: record.address,
        groups: caller::callings(record).into_iter().collect(),
        grants: std::iter::once(&own).chain(&record.traits.allow).map(grant).collect(),
        aliases: aliases.to_vec(),
    }
}

fn grant(grant: &Grant) -> policy::Grant {
    let ports = |ports: &allow::Ports| policy::Ports {
        protocol: protocol(ports.protocol),
        first: ports.first,
        last: ports.last,
    };
    let who = match &grant.who {
        Who::Anyone => policy::Who::Anyone,
        Who::Network(network) => policy::Who::Network(*network),
        group => policy::Who::Group(group.to_string()),
    };
    policy::Grant { who, ports: grant.ports.iter().map(ports).collect() }
}

/// A protocol in the words of the kernel's rules.
pub fn protocol(protocol: Protocol) -> policy::Protocol {
    match protocol {
        Protocol::Tcp => policy::Protocol::Tcp,
        Protocol::Udp => policy::Protocol::Udp,
    }
}
