//! Which names a container has (design section 7), and what its /etc/hosts says. Pure but for the host's
//! search list.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use selvedge_registry::allow::{Grant, Who};
use selvedge_registry::name::Name;
use selvedge_registry::vip;
use tracing::warn;

/// Where names come from, in the order in which they count.
#[derive(Debug)]
pub(crate) struct Sources<'a> {
    /// Label `selvedge.name`.
    pub(crate) labels: &'a [String],
    /// `MARATHON_APP_ID`: `/shop/db`.
    pub(crate) marathon: Option<&'a str>,
    /// Compose's service.
    pub(crate) compose: Option<&'a str>,
    /// The hostname that the user set.
    pub(crate) hostname: Option<&'a str>,
    /// Our domain.
    pub(crate) domain: &'a Name,
}

/// The names, relative to the domain, each once. What cannot be a DNS name is left out.
pub(crate) fn names(sources: &Sources<'_>) -> Vec<String> {
    let labels = sources.labels.iter().filter_map(|text| Name::parse(text).ok());
    let marathon = sources.marathon.and_then(|id| Name::from_app_id(id).ok());
    let compose = sources.compose.and_then(|text| Name::mangle(text).ok());
    let hostname = sources.hostname.filter(|text| !text.is_empty()).and_then(|text| Name::parse(text).ok());
    let mut names = Vec::new();
    for name in labels.chain(marathon).chain(compose).chain(hostname) {
        let name = relative(&name.to_string(), &sources.domain.to_string());
        if is_virtual(&name) {
            warn!(name, "is left out: names below vip are those of virtual addresses");
        } else if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Whether only a virtual address can be called so: `db.vip`, relative to the domain.
pub(crate) fn is_virtual(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, last)| last.eq_ignore_ascii_case(vip::LABEL))
}

/// Rules that speak of names as records have them: relative to our domain.
pub(crate) fn rules(grants: &[Grant], domain: &Name) -> Vec<Grant> {
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
pub(crate) const MESOS: &str = "mesos.";

/// The domain of the names that DC/OS gives to virtual addresses of Marathon's apps.
pub(crate) const L4LB: &str = "marathon.l4lb.thisdcos.directory.";

/// What Mesos-DNS calls an app of Marathon, whole: `/shop/db` is `db-shop.marathon.mesos.`.
pub(crate) fn of_mesos(app: &str) -> Option<Name> {
    let task = Name::from_app_id_flat(app).ok()?;
    Name::parse(&format!("{task}.marathon.{MESOS}")).ok()
}

/// A name without our domain at its end.
fn relative(name: &str, domain: &str) -> String {
    name.strip_suffix(domain).and_then(|rest| rest.strip_suffix('.')).unwrap_or(name).to_owned()
}

/// The first label, if it can be a hostname (RFC 1123; Linux takes at most 64 bytes).
pub(crate) fn host_label(name: &str) -> Option<String> {
    let label = name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let valid = !label.is_empty()
        && label.len() <= 63
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    valid.then_some(label)
}

/// The host's own search domains: a container would have them without us.
pub(crate) fn host_search() -> Vec<String> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    search_list(&text)
}

fn search_list(resolv_conf: &str) -> Vec<String> {
    let mut lists = resolv_conf.lines().rev().filter_map(|line| {
        let mut words = line.split_whitespace();
        matches!(words.next(), Some("search" | "domain"))
            .then(|| words.map(str::to_owned).collect::<Vec<_>>())
    });
    lists.next().unwrap_or_default().into_iter().filter(|domain| domain != ".").collect()
}

/// A container's /etc/hosts with its own names at the wire's address: the engine's line for the hostname goes,
/// else a program that looks itself up would tell others an address that only this host knows.
pub(crate) fn hosts_file(engines: &str, address: Ipv4Addr, hostname: &str, fqdns: &[String]) -> String {
    let mut out: String = engines
        .lines()
        .filter(|line| !is_own_line(line, address, hostname))
        .map(|line| format!("{line}\n"))
        .collect();
    let mut names: Vec<&str> = Vec::new();
    for fqdn in fqdns {
        names.push(fqdn);
        names.extend(fqdn.split('.').next());
    }
    names.push(hostname);
    let mut seen = HashSet::new();
    names.retain(|name| !name.is_empty() && seen.insert(*name));
    out.push_str(&format!("{address}\t{}\n", names.join(" ")));
    out
}

fn is_own_line(line: &str, address: Ipv4Addr, hostname: &str) -> bool {
    let mut words = line.split_whitespace();
    let Some(first) = words.next().filter(|word| !word.starts_with('#')) else { return false };
    let loopback = first.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    first == address.to_string() || (!loopback && words.any(|word| word == hostname))
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
            compose: Some("my_db"),
            hostname: Some("box.selvedge.internal"),
            domain: &domain,
        };
        let names = names(&sources);
        assert_eq!(names[..2], ["primary", "db.shop"]);
        assert_eq!(names.last().map(String::as_str), Some("box"));
    }

    #[test]
    fn names_of_virtual_addresses_are_nobody_s() {
        let domain = Name::parse("selvedge.internal").unwrap();
        let of = |app| {
            let sources =
                Sources { labels: &[], marathon: Some(app), compose: None, hostname: None, domain: &domain };
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

    #[test]
    fn the_hosts_file_tells_the_wires_address_for_the_hostname() {
        let engines =
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n10.0.0.9\tother\n172.17.0.2\tabc123\n";
        let out =
            hosts_file(engines, Ipv4Addr::new(10, 32, 0, 5), "abc123", &["db.selvedge.internal".to_owned()]);
        assert_eq!(
            out,
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n10.0.0.9\tother\n10.32.0.5\tdb.selvedge.internal db abc123\n"
        );
        assert_eq!(
            hosts_file(&out, Ipv4Addr::new(10, 32, 0, 5), "abc123", &["db.selvedge.internal".to_owned()]),
            out
        );
    }

    #[test]
    fn search_domains_are_the_last_line_s() {
        assert_eq!(search_list("nameserver 1.1.1.1\ndomain a\nsearch b.c d .\n"), ["b.c", "d"]);
        assert!(search_list("").is_empty());
    }
}
