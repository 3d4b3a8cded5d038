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

#[cfg(test)]
mod tests {
    use selvedge_registry::name::Name;
    use selvedge_registry::record::Traits;

    use super::*;

    #[test]
    fn a_container_admits_its_own_tenant_and_whom_its_label_names() {
        let allow = allow::parse("tenant:other 80/udp, any 443, cidr:192.0.2.0/24").unwrap();
        let traits = Traits { tenant: Some("shop".into()), allow: allow.into(), ..Traits::default() };
        let address = [10, 32, 0, 1].into();
        let record = Record { traits, ..Record::new("a", address, vec![Name::parse("db").unwrap()]) };
        let alias: IpAddr = [172, 17, 0, 2].into();
        let party = party(&record, &[alias]);
        assert_eq!((party.address, party.aliases.as_slice()), (address, &[alias][..]));
        assert!(party.groups.iter().any(|group| group == "tenant:shop"), "{:?}", party.groups);
        let who: Vec<&policy::Who> = party.grants.iter().map(|grant| &grant.who).collect();
        let group = |name: &str| policy::Who::Group(name.to_owned());
        assert_eq!(
            who,
            [
                &group("tenant:shop"),
                &group("tenant:other"),
                &policy::Who::Anyone,
                &policy::Who::Network("192.0.2.0/24".parse().unwrap())
            ]
        );
        let port = &party.grants[1].ports[0];
        assert_eq!((port.protocol, port.first, port.last), (policy::Protocol::Udp, 80, 80));
        assert!(party.grants[0].ports.is_empty(), "its own may use all");
    }
}
