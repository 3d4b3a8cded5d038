//! Which names a container has (design section 7), and what its /etc/hosts says. Pure.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use selvedge_registry::allow::{Grant, Who};
use selvedge_registry::name::Name;
use selvedge_registry::vip;
use tracing::warn;

/// Where names come from, in the order in which they count.
#[derive(Debug)]
pub struct Sources<'a> {
    /// Label `selvedge.name`.
    pub labels: &'a [String],
    /// `MARATHON_APP_ID`: `/shop/db`.
    pub marathon: Option<&'a str>,
    /// A task of Nomad's.
    pub nomad: Option<Name>,
    /// Compose's service.
    pub compose: Option<&'a str>,
    /// The hostname that the user set.
    pub hostname: Option<&'a str>,
    /// Our domain.
    pub domain: &'a Name,
}

/// The names, relative to the domain, each once. What cannot be a DNS name is left out.
pub fn names(sources: &Sources<'_>) -> Vec<String> {
    let labels = sources.labels.iter().filter_map(|text| Name::parse(text).ok());
    let marathon = sources.marathon.and_then(|id| Name::from_app_id(id).ok());
    let compose = sources.compose.and_then(|text| Name::mangle(text).ok());
    let hostname = sources.hostname.filter(|text| !text.is_empty() && !is_short_id(text));
    let hostname = hostname.and_then(|text| Name::parse(text).ok());
    let mut names = Vec::new();
    for name in labels.chain(marathon).chain(sources.nomad.clone()).chain(compose).chain(hostname) {
        let name = relative(&name.to_string(), &sources.domain.to_string());
        if is_virtual(&name) {
            warn!(name, "is left out: names below vip are those of virtual addresses");
        } else if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Whether a hostname is what the engine calls a container that was given none. In a create it was read from another
/// container's inspect, and names no container.
fn is_short_id(hostname: &str) -> bool {
    hostname.len() == 12 && hostname.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether only a virtual address can be called so: `db.vip`, relative to the domain.
pub fn is_virtual(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, last)| last.eq_ignore_ascii_case(vip::LABEL))
}

/// Rules that speak of names as records have them: relative to our domain.
pub fn rules(grants: &[Grant], domain: &Name) -> Vec<Grant> {
    let who = |who: &Who| match who {
        Who::Name(name) => {
            let short = relative(name.to_string().trim_end_matches('.'), &domain.to_string());
            Name::parse(&short).map_or_else(|_| who.clone(), Who::Name)
        }
        other => other.clone(),
    };
    grants.iter().map(|grant| Grant { who: who(&grant.who), ports: grant.ports.clone() }).collect()
}

/// The domain of the names that Mesos-DNS serves.
pub const MESOS: &str = "mesos.";

/// What Mesos-DNS calls an app of Marathon, whole: `/shop/db` is `db-shop.marathon.mesos.`.
pub fn of_mesos(app: &str) -> Option<Name> {
    let task = Name::from_app_id_flat(app).ok()?;
    Name::parse(&format!("{task}.marathon.{MESOS}")).ok()
}

/// A name without our domain at its end.
fn relative(name: &str, domain: &str) -> String {
    name.strip_suffix(domain).and_then(|rest| rest.strip_suffix('.')).unwrap_or(name).to_owned()
}

/// The first label, if it can be a hostname (RFC 1123; Linux takes at most 64 bytes).
pub fn host_label(name: &str) -> Option<String> {
    let label = name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let valid = !label.is_empty()
        && label.len() <= 63
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    valid.then_some(label)
}

/// What a container's /etc/hosts is to say of itself.
#[derive(Debug)]
pub struct OwnLine<'a> {
    /// The wire's address.
    pub address: Ipv4Addr,
    /// The addresses that the engine gave: its own lines begin with one of these.
    pub engines: Vec<IpAddr>,
    /// What the program sees as its hostname.
    pub hostname: &'a str,
    /// The domain that the user set; mostly empty.
    pub domain: &'a str,
    /// Whether the hostname or domain is the user's own word, which then is the canonical name: `hostname -f`.
    pub named: bool,
    /// Our full names, the first one first.
    pub fqdns: &'a [String],
}

impl OwnLine<'_> {
    /// A container's /etc/hosts with its own names at the wire's address, at the end: the engine's own line goes, else a
    /// program that looks itself up would tell others an address that only this host knows. What the user wrote stays.
    pub fn hosts_file(&self, before: &str) -> String {
        let others = before.lines().filter(|line| !self.is_own(line));
        let mut out: String = others.map(|line| format!("{line}\n")).collect();
        out.push_str(&format!("{}\t{}\n", self.address, self.names().join(" ")));
        out
    }

    fn names(&self) -> Vec<String> {
        // As the engine writes them: the full name, and its first label.
        let full = match self.domain {
            "" => self.hostname.to_owned(),
            domain => format!("{}.{domain}", self.hostname),
        };
        let short = full.split('.').next().unwrap_or_default().to_owned();
        let theirs = [full, short, self.hostname.to_owned()];
        let ours = self.fqdns.iter().flat_map(|fqdn| {
            let short = fqdn.split('.').next().unwrap_or_default();
            [fqdn.clone(), short.to_owned()]
        });
        let mut names: Vec<String> = match self.named {
            true => theirs.into_iter().chain(ours).collect(),
            false => ours.chain(theirs).collect(),
        };
        let mut seen = HashSet::new();
        names.retain(|name| !name.is_empty() && seen.insert(name.clone()));
        names
    }

    /// Whether a line is the engine's for the container itself, or ours of before.
    fn is_own(&self, line: &str) -> bool {
        let mut words = line.split_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else { return false };
        let is_own = address == IpAddr::V4(self.address) || self.engines.contains(&address);
        is_own && words.any(|word| word == self.hostname)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_in_the_order_of_their_sources() {
        let domain = Name::parse("selvedge.internal").unwrap();
        let labels = ["primary".to_owned()];
        let sources = Sources {
            labels: &labels,
            marathon: Some("/shop/db"),
            nomad: Name::parse("db.front.shop").ok(),
            compose: Some("my_db"),
            hostname: Some("box.selvedge.internal"),
            domain: &domain,
        };
        let names = names(&sources);
        assert_eq!(names[..3], ["primary", "db.shop", "db.front.shop"]);
        assert_eq!(names.last().map(String::as_str), Some("box"));
    }

    #[test]
    fn names_of_virtual_addresses_are_nobody_s() {
        let domain = Name::parse("selvedge.internal").unwrap();
        let of = |app| {
            let sources = Sources {
                labels: &[],
                marathon: Some(app),
                nomad: None,
                compose: None,
                hostname: None,
                domain: &domain,
            };
            names(&sources)
        };
        assert!(of("/vip/db").is_empty());
        assert_eq!(of("/shop/vip"), ["vip.shop"]);
        assert!(is_virtual("db.VIP") && !is_virtual("vip") && !is_virtual("db.vip.shop"));
    }

    #[test]
    fn rules_speak_of_names_as_records_have_them() {
        let domain = Name::parse("selvedge.internal").unwrap();
        let given =
            "name:web.selvedge.internal 80,name:db.shop,tenant:selvedge.internal,name:a.selvedge.internal.";
        let rules = rules(&selvedge_registry::allow::parse(given).unwrap(), &domain);
        let text = selvedge_registry::allow::text(&rules);
        assert_eq!(text, "name:web 80/tcp,name:db.shop,tenant:selvedge.internal,name:a");
    }

    fn line<'a>(hostname: &'a str, named: bool, fqdns: &'a [String]) -> OwnLine<'a> {
        let engines = vec![IpAddr::from([172, 17, 0, 2]), "fd00::2".parse().unwrap()];
        OwnLine { address: Ipv4Addr::new(10, 32, 0, 5), engines, hostname, domain: "", named, fqdns }
    }

    const HEAD: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n";

    #[test]
    fn the_hosts_file_tells_the_wires_address_for_the_hostname() {
        let fqdns = ["db.selvedge.internal".to_owned()];
        let engines = format!("{HEAD}10.0.0.9\tother\n172.17.0.2\tabc123\nfd00::2\tabc123\n");
        let line = line("abc123", false, &fqdns);
        let out = line.hosts_file(&engines);
        assert_eq!(out, format!("{HEAD}10.0.0.9\tother\n10.32.0.5\tdb.selvedge.internal db abc123\n"));
        assert_eq!(line.hosts_file(&out), out);
    }

    #[test]
    fn the_users_own_name_stays_the_canonical_one_and_ours_follow() {
        let fqdns = ["box.selvedge.internal".to_owned()];
        let last = |line: &OwnLine<'_>, file: &str| line.hosts_file(file).lines().last().unwrap().to_owned();
        let mail = line("mail.example.org", true, &fqdns);
        let own = last(&mail, "172.17.0.2\tmail.example.org mail\n");
        assert_eq!(own, "10.32.0.5\tmail.example.org mail box.selvedge.internal box");
        assert_eq!(last(&line("BOX", true, &fqdns), ""), "10.32.0.5\tBOX box.selvedge.internal box");
        let split = OwnLine { domain: "example.org", ..line("box", true, &fqdns) };
        assert_eq!(last(&split, ""), "10.32.0.5\tbox.example.org box box.selvedge.internal");
    }

    #[test]
    fn the_users_own_lines_of_the_hosts_file_stay_and_come_first() {
        let fqdns = ["db.selvedge.internal".to_owned()];
        let theirs =
            "192.0.2.1\tdb\n192.0.2.2\tdb.selvedge.internal\n10.32.0.5\tother\n172.17.0.3\tdb link\n";
        let out = line("db", true, &fqdns).hosts_file(&format!("{theirs}172.17.0.2\tdb\n"));
        assert_eq!(out, format!("{theirs}10.32.0.5\tdb db.selvedge.internal\n"));
    }
}
