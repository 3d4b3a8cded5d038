//! Virtual addresses: what a container says of those it stands behind, and who stands behind one.
//!
//! Pure data. Must give the same on every host, but for which of the instances are this host's own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;

use crate::allow::{Grant, Protocol};
use crate::name::Name;
use crate::record::{NamedPort, Record};
use crate::table::Table;

/// The label below the domain in which all virtual addresses have their names: `db.vip.DOMAIN`.
pub const LABEL: &str = "vip";

/// A container stands behind a port of a virtual address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vip {
    /// What the virtual address is called: relative, without `.vip`.
    pub name: Name,
    /// The port that clients call.
    pub port: u16,
    /// The container's own port behind it.
    pub target: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Clients are led to instances on their own host, as long as there is one.
    pub local: bool,
}

/// What is wrong with the text of a virtual address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} (column {column}): {reason}")]
pub struct VipError {
    word: String,
    column: usize,
    reason: String,
}

const FORM: &str = "must be like db:5432, web:80:8080, dns:53/udp or db:5432,local";

/// Reads `db:5432`, `web:80:8080` (the container's own port is another one), `dns:53/udp`, each perhaps with `,local`;
/// several with blanks between them.
///
/// # Errors
/// [`VipError`] with the word that makes no sense, and where it begins.
pub fn parse(text: &str) -> Result<Vec<Vip>, VipError> {
    let mut vips: Vec<Vip> = Vec::new();
    for word in text.split_ascii_whitespace() {
        let column = word.as_ptr() as usize - text.as_ptr() as usize + 1;
        let fail = |reason: &str| VipError { word: word.to_owned(), column, reason: reason.to_owned() };
        let vip = one(word).map_err(|reason| fail(&reason))?;
        if vips.iter().any(|other| other.is_same_port(&vip)) {
            return Err(fail("the same port of the same name twice"));
        }
        vips.push(vip);
    }
    match vips.is_empty() {
        true => Err(VipError { word: text.to_owned(), column: 1, reason: FORM.to_owned() }),
        false => Ok(vips),
    }
}

fn one(word: &str) -> Result<Vip, String> {
    let (rest, local) = match word.split_once(',') {
        None => (word, false),
        Some((rest, "local")) => (rest, true),
        Some(_) => return Err(FORM.to_owned()),
    };
    let (name, ports) = rest.split_once(':').ok_or(FORM)?;
    let (numbers, protocol) = ports.split_once('/').unwrap_or((ports, "tcp"));
    let protocol = Protocol::parse(protocol).ok_or("the protocol must be tcp or udp")?;
    let (port, target) = numbers.split_once(':').unwrap_or((numbers, numbers));
    let number = |text: &str| text.parse::<u16>().ok().filter(|number| *number > 0);
    let (Some(port), Some(target)) = (number(port), number(target)) else {
        return Err("a port must be 1 to 65535".to_owned());
    };
    let name = Name::parse(name).map_err(|error| error.to_string())?;
    if name.is_absolute() {
        return Err("the name must not end with a dot".to_owned());
    }
    Ok(Vip { name, port, target, protocol, local })
}

impl Vip {
    fn is_same_port(&self, other: &Self) -> bool {
        (&self.name, self.port, self.protocol) == (&other.name, other.port, other.protocol)
    }

    /// Its key in the registry: where tenants are kept apart each has names of its own.
    #[must_use]
    pub fn key(&self, tenant: Option<&str>) -> String {
        tenant.map_or_else(|| self.name.to_string(), |tenant| format!("{tenant}/{}", self.name))
    }
}

/// As [`parse`] reads it.
impl fmt::Display for Vip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, port, target, protocol, local } = self;
        write!(f, "{name}:{port}")?;
        if target != port {
            write!(f, ":{target}")?;
        }
        write!(f, "/{protocol}{}", if *local { ",local" } else { "" })
    }
}

/// A virtual address, and who stands behind it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its key in the registry, by which its address is known.
    pub key: String,
    /// What its instances call it: `db`.
    pub called: Name,
    /// Its name, relative to the domain: `db.vip`.
    pub name: Name,
    /// Whose it is; nothing where tenants are not kept apart.
    pub tenant: Option<Box<str>>,
    /// Who may call it besides, as far as any instance says so.
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
    /// The id of the record by which its name is answered: one that no container can have.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{LABEL} {}", self.key)
    }

    /// The record by which its name is answered.
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
    /// All virtual addresses with somebody behind them, by their keys. `by_tenant`: each tenant has its own.
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
    // The order in which records came must not matter: who compares would see a change where there is none.
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

/// Those that a name would be answered with; of these the ones on this host, if any asks for that.
fn backends(members: &[(&Record, &Vip)]) -> Vec<(Ipv4Addr, u16)> {
    let records: Vec<&Record> = members.iter().map(|(record, _)| *record).collect();
    let able: BTreeSet<Ipv4Addr> = crate::table::chosen(&records).into_iter().collect();
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

    fn told(text: &str) -> Result<String, String> {
        let vips = parse(text).map_err(|error| error.to_string())?;
        Ok(vips.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn what_is_read_is_written_again() {
        for (text, expected) in [
            ("db:5432", "db:5432/tcp"),
            (" DB.shop:5432,local  dns:53/udp ", "db.shop:5432/tcp,local dns:53/udp"),
            ("web:80:8080", "web:80:8080/tcp"),
            ("web:80:80/tcp,local", "web:80/tcp,local"),
            ("dns:53 dns:53/udp", "dns:53/tcp dns:53/udp"),
        ] {
            assert_eq!(told(text).as_deref(), Ok(expected), "{text}");
            assert_eq!(told(expected).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn what_makes_no_sense_is_told_with_its_column() {
        for (text, column) in [
            ("", 1),
            ("db", 1),
            ("db:0", 1),
            ("a:1 db:70000", 5),
            ("a:1  db:1/sctp", 6),
            ("db:1,remote", 1),
            ("db.:1", 1),
            ("a..b:1", 1),
            ("db:1 db:1:2", 6),
            ("db:1:", 1),
        ] {
            let error = told(text).unwrap_err();
            assert!(error.contains(&format!("(column {column})")), "{text:?}: {error}");
        }
    }

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
