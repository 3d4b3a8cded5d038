//! The containers that stand behind each virtual address.
//!
//! Pure data. Must give the same result on every host, except for which of the instances are this host's own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::Table;
use super::answered::chosen;
use crate::allow::{Grant, Protocol};
use crate::name::Name;
use crate::record::{NamedPort, Record};
use crate::vip::{LABEL, Vip};

/// A virtual address, and the containers behind it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its key in the registry, by which its address is known.
    pub key: String,
    /// The name that its instances give it: `db`.
    pub called: Name,
    /// Its name, relative to the domain: `db.vip`.
    pub name: Name,
    /// Its tenant; none where tenants are not kept apart.
    pub tenant: Option<Box<str>>,
    /// The callers that any instance allows besides.
    pub allow: Vec<Grant>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
}

/// A port of a virtual address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Its number.
    pub number: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Where new connections go: at least one.
    pub backends: Vec<(Ipv4Addr, u16)>,
}

impl Service {
    /// The id of the record that answers its name: one that no container can have.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{LABEL} {}", self.key)
    }

    /// The record that answers its name.
    #[must_use]
    pub fn record(&self, address: Ipv4Addr) -> Record {
        let mut record = Record::new(self.id(), address, vec![self.name.clone()]);
        record.traits.tenant.clone_from(&self.tenant);
        record.traits.allow = self.allow.clone().into();
        let port = |port: &ServicePort| NamedPort {
            name: port.number.to_string().into(),
            number: port.number,
            protocol: port.protocol,
        };
        record.traits.ports = self.ports.iter().map(port).collect();
        record
    }
}

impl Table {
    /// All virtual addresses with a container behind them, by their keys. `by_tenant`: each tenant has its own.
    #[must_use]
    pub fn services(&self, by_tenant: bool) -> Vec<Service> {
        let mut groups: BTreeMap<String, Vec<(&Record, &Vip)>> = BTreeMap::new();
        for record in self.vip_records() {
            for vip in &record.traits.vips {
                let key = vip.key(by_tenant.then(|| record.tenant()));
                groups.entry(key).or_default().push((record, vip));
            }
        }
        groups.into_iter().filter_map(|(key, members)| service(key, &members, by_tenant)).collect()
    }
}

fn service(key: String, members: &[(&Record, &Vip)], by_tenant: bool) -> Option<Service> {
    let (first, vip) = members.first()?;
    let name = Name::parse(&format!("{}.{LABEL}", vip.name)).ok()?;
    let mut allow: Vec<Grant> = Vec::new();
    for grant in members.iter().flat_map(|(record, _)| &record.traits.allow) {
        if !allow.contains(grant) {
            allow.push(grant.clone());
        }
    }
    // The order in which records came must not matter: a comparison would see a change where there is none.
    allow.sort_by_cached_key(ToString::to_string);
    let numbers: BTreeSet<(u16, bool)> = members.iter().map(|(_, vip)| (vip.port, is_udp(vip))).collect();
    let ports = numbers.into_iter().map(|(number, udp)| {
        let members: Vec<_> =
            members.iter().filter(|(_, vip)| vip.port == number && is_udp(vip) == udp).copied().collect();
        let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
        ServicePort { number, protocol, backends: backends(&members) }
    });
    let tenant = by_tenant.then(|| first.tenant().into());
    Some(Service { key, called: vip.name.clone(), name, tenant, allow, ports: ports.collect() })
}

fn is_udp(vip: &Vip) -> bool {
    vip.protocol == Protocol::Udp
}

/// The instances that a name would be answered with; of these the ones on this host, if any asks for that.
fn backends(members: &[(&Record, &Vip)]) -> Vec<(Ipv4Addr, u16)> {
    let records: Vec<&Record> = members.iter().map(|(record, _)| *record).collect();
    let able: BTreeSet<Ipv4Addr> = chosen(&records).into_iter().collect();
    let able = members.iter().filter(|(record, _)| able.contains(&record.address));
    let here = |record: &Record| !record.id.contains('/');
    let prefers = members.iter().any(|(_, vip)| vip.local) && able.clone().any(|(record, _)| here(record));
    let backends: BTreeSet<(Ipv4Addr, u16)> = able
        .filter(|(record, _)| !prefers || here(record))
        .map(|(record, vip)| (record.address, vip.target))
        .collect();
    backends.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allow;
    use crate::record::Traits;
    use crate::vip::parse;

    fn record(id: &str, last: u8, vip: &str, more: impl FnOnce(&mut Traits)) -> Record {
        let mut record = Record::new(id, Ipv4Addr::new(10, 32, 0, last), Vec::new());
        record.traits.vips = parse(vip).unwrap().into();
        more(&mut record.traits);
        record
    }

    fn shown(table: &Table, by_tenant: bool) -> Vec<String> {
        let port = |port: &ServicePort| {
            let backends: Vec<String> =
                port.backends.iter().map(|(a, p)| format!("{}:{p}", a.octets()[3])).collect();
            format!("{}/{} {}", port.number, port.protocol, backends.join(","))
        };
        let one = |service: Service| {
            let ports: Vec<String> = service.ports.iter().map(port).collect();
            format!("{} {}", service.key, ports.join("; "))
        };
        table.services(by_tenant).into_iter().map(one).collect()
    }

    #[test]
    fn the_healthy_instances_stand_behind_it_and_the_own_ones_first_where_that_is_asked() {
        let mut table = Table::new(Name::parse("d").unwrap());
        table.put(record("a", 1, "db:5432", |_| ()));
        table.put(record("h/b", 2, "db:5432:6000", |_| ()));
        table.put(record("h/c", 3, "db:5432 db:53/udp", |traits| traits.unhealthy = true));
        assert_eq!(shown(&table, false), ["db 53/udp 3:53; 5432/tcp 1:5432,2:6000"]);
        table.put(record("h/b", 2, "db:5432:6000,local", |_| ()));
        assert_eq!(shown(&table, false), ["db 53/udp 3:53; 5432/tcp 1:5432"]);
        table.remove("a");
        assert_eq!(shown(&table, false), ["db 53/udp 3:53; 5432/tcp 2:6000"]);
        table.remove("h/b");
        assert_eq!(shown(&table, false), ["db 53/udp 3:53; 5432/tcp 3:5432"], "better than nothing");
        table.remove("h/c");
        assert!(shown(&table, false).is_empty());
    }

    #[test]
    fn where_tenants_are_kept_apart_each_has_its_own() {
        let mut table = Table::new(Name::parse("d").unwrap());
        table.put(record("a", 1, "db:1", |traits| traits.tenant = Some("shop".into())));
        table.put(record("b", 2, "db:1", |traits| {
            traits.tenant = Some("bank".into());
            traits.allow = allow::parse("any").unwrap().into();
        }));
        assert_eq!(shown(&table, false), ["db 1/tcp 1:1,2:1"]);
        assert_eq!(shown(&table, true), ["bank/db 1/tcp 2:1", "shop/db 1/tcp 1:1"]);
        let services = table.services(true);
        let record = services[0].record([10, 47, 0, 1].into());
        assert_eq!((record.tenant(), allow::text(&record.traits.allow).as_str()), ("bank", "any"));
        assert_eq!(record.names[0].to_string(), "db.vip");
    }

    #[test]
    fn one_that_stands_aside_gets_no_connections_until_its_record_has_said_so_too() {
        let mut table = Table::new(Name::parse("d").unwrap());
        table.put(record("h/a", 1, "db:1", |traits| traits.unhealthy = true));
        table.put(record("h/b", 2, "db:1", |_| ()));
        assert_eq!(shown(&table, false), ["db 1/tcp 2:1"]);
        table.stand_aside("h/b");
        assert_eq!(shown(&table, false), ["db 1/tcp 1:1"], "better than nothing");
        table.put(record("h/b", 2, "db:1 db:2", |_| ()));
        assert_eq!(shown(&table, false), ["db 1/tcp 1:1"], "older news that is late");
        table.put(Record::new("h/b", [10, 32, 0, 2].into(), Vec::new()));
        table.put(record("h/b", 2, "db:1", |_| ()));
        assert_eq!(shown(&table, false), ["db 1/tcp 2:1"], "it runs on after all");
        table.stand_aside("h/c");
        table.put(record("h/c", 3, "db:1", |_| ()));
        assert_eq!(shown(&table, false), ["db 1/tcp 2:1"], "its record came late");
        table.no_longer_aside("h/c");
        assert_eq!(shown(&table, false), ["db 1/tcp 2:1,3:1"]);
    }

    #[test]
    fn whoever_listens_hears_of_what_concerns_virtual_addresses_alone() {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
        let heard = Arc::new(AtomicU32::new(0));
        let mut table = Table::new(Name::parse("d").unwrap());
        let counter = Arc::clone(&heard);
        table.on_vips(move || _ = counter.fetch_add(1, Relaxed));
        table.put(Record::new("x", [10, 32, 0, 9].into(), Vec::new()));
        assert_eq!(heard.load(Relaxed), 0);
        table.put(record("a", 1, "db:1", |_| ()));
        table.put(record("a", 1, "db:1", |_| ()));
        assert_eq!(heard.load(Relaxed), 1, "the same again is no news");
        table.put(record("a", 1, "db:1", |traits| traits.unhealthy = true));
        table.put(Record::new("a", [10, 32, 0, 1].into(), Vec::new()));
        assert_eq!(heard.load(Relaxed), 3);
        assert!(!table.remove("b") && heard.load(Relaxed) == 3);
    }
}
