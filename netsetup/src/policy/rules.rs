//! The rules as nft reads them. Each carries a hash of its own text as a comment, by which it is known again.
//!
//! The connection is judged: its caller (`ct original saddr`), and its final destination (`ct reply
//! saddr`, behind any DNAT). So both directions get one verdict, and a rule that goes cuts what it had let in.

use std::net::IpAddr;

use ipnet::IpNet;
use sha2::{Digest, Sha256};

use crate::policy::party::{Grant, PolicySettings, Ports, Protocol, Verdict, Who};
use crate::policy::refusal::{self, Rule};
use crate::pool6;

/// Before Docker's and firewalld's own chains, so that a refused caller gets an answer.
const PRIORITY: &str = "filter - 5";

/// The chain of what the engine's DNAT has led somewhere.
const PUBLISHED: &str = "published";

/// What does not change while a worker lives.
#[derive(Debug)]
pub(super) struct Base {
    /// `inet selvedge_0000abcd`.
    pub(super) table: String,
    settings: PolicySettings,
}

/// A wanted chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) name: String,
    /// `{ type filter hook ... }`, if it hangs in one.
    pub(super) hook: Option<String>,
    pub(super) rules: Vec<String>,
}

/// IPv4 or IPv6, as the ends of sets' names.
pub(crate) const FAMILIES: [(&str, &str, &str); 2] = [("4", "ip", "ipv4_addr"), ("6", "ip6", "ipv6_addr")];

/// The maps of called addresses, each with the end of its name that says of which family: those of the pool, and those that
/// the engine has given besides, to which its own DNAT leads what comes by published ports.
static CALLED: [(&str, &str); 4] =
    [("called4", "ip"), ("called6", "ip6"), ("beside4", "ip"), ("beside6", "ip6")];

/// The map of called addresses of this name, if it is one.
pub(super) fn called_map(name: &str) -> Option<&'static str> {
    CALLED.into_iter().map(|(map, _)| map).find(|map| *map == name)
}

impl Base {
    pub(super) fn new(settings: PolicySettings) -> Self {
        Self { table: format!("inet selvedge_{:08x}", settings.group), settings }
    }

    /// Makes the table, or takes its flags from it: it does not sleep any more.
    pub(super) fn wake(&self) -> String {
        format!("add table {}\n", self.table)
    }

    /// The name of the table alone.
    pub(super) fn table_name(&self) -> &str {
        self.table.trim_start_matches("inet ")
    }

    /// In which map an address stands that may be called.
    pub(super) fn map_of(&self, address: IpAddr) -> &'static str {
        let PolicySettings { pool, pool6, .. } = &self.settings;
        match address {
            IpAddr::V4(four) if pool.contains(&four) => "called4",
            IpAddr::V6(six) if pool6.is_some_and(|pool6| pool6::block6(pool6, *pool).contains(&six)) => {
                "called6"
            }
            IpAddr::V4(_) => "beside4",
            IpAddr::V6(_) => "beside6",
        }
    }

    /// All container addresses, by family.
    fn pool(&self, family: &str) -> Option<String> {
        let PolicySettings { pool, pool6, .. } = &self.settings;
        match family {
            "4" => Some(pool.trunc().to_string()),
            _ => pool6.map(|pool6| pool6::block6(pool6, *pool).to_string()),
        }
    }

    /// The sets and maps that are always there, as nft declares them.
    pub(super) fn sets() -> Vec<(String, String)> {
        let of = |(end, _, kind): (&str, &str, &str)| {
            [
                (format!("hosts{end}"), format!("set {{}} {{ type {kind}; }}")),
                (format!("called{end}"), format!("map {{}} {{ type {kind} : verdict; }}")),
                (format!("beside{end}"), format!("map {{}} {{ type {kind} : verdict; }}")),
                (format!("known{end}"), format!("set {{}} {{ type {kind}; }}")),
            ]
            .into_iter()
            .chain(refusal::sets(end, kind))
        };
        let former = "set {} { type ipv4_addr; flags timeout; timeout 1d; size 16384; }".to_owned();
        FAMILIES.into_iter().flat_map(of).chain([(refusal::FORMER.to_owned(), former)]).collect()
    }

    /// The chains that are always there; a chain comes before those that jump to it.
    pub(super) fn chains(&self) -> Vec<Chain> {
        let mut chains: Vec<Chain> = Rule::ALL.map(refused).into();
        chains.push(self.strangers());
        if self.settings.published == Verdict::Allow {
            let rules = FAMILIES.map(|family| self.published(family)).into();
            chains.push(Chain { name: PUBLISHED.to_owned(), hook: None, rules });
        }
        chains.push(self.forward());
        if self.settings.host == Verdict::Deny || self.settings.names == Verdict::Deny {
            chains.push(self.input());
        }
        let judged = self.called_by_the_host();
        if !judged.is_empty() {
            let judge =
                |(map, ip): &(&str, &str)| format!("ct direction original ct reply {ip} saddr vmap @{map}");
            chains.push(hooked("output", "output", judged.iter().map(judge).collect()));
        }
        chains
    }

    /// At which addresses containers are called by the host under their own rules. The engine's proxy for published ports is
    /// a process of the host that calls them on the engine's networks, for callers that cannot be told apart by then.
    fn called_by_the_host(&self) -> &'static [(&'static str, &'static str)] {
        let [_, _, beside @ ..] = &CALLED;
        match (self.settings.host, self.settings.published) {
            (Verdict::Deny, _) => &CALLED,
            (Verdict::Allow, Verdict::Deny) => beside,
            (Verdict::Allow, Verdict::Allow) => &[],
        }
    }

    fn forward(&self) -> Chain {
        let group = self.settings.group;
        let [four, six, beside @ ..] = CALLED.map(|(map, ip)| format!("ct reply {ip} saddr vmap @{map}"));
        // Each packet passes here, and mostly it is one between containers: those come first. A packet that is of no
        // connection has no such address, and goes on.
        let mut rules = vec![
            four,
            // Whose it is must be true. IPv4 has the strict reverse path filter; Linux has none for IPv6.
            format!("meta nfproto ipv6 iifgroup {group} fib saddr . iif oif missing drop"),
            six,
            // Its owner would be unknown.
            format!("ct state invalid iifgroup {group} drop"),
        ];
        if self.settings.published == Verdict::Allow {
            rules.push(format!("ct status dnat jump {PUBLISHED}"));
        }
        rules.extend(beside);
        // An address of the pool that is unknown here belongs to no party yet.
        let unknown = Rule::Unknown.chain();
        for (end, ip, _) in FAMILIES {
            rules.extend(self.pool(end).map(|pool| {
                format!(
                    "iifgroup {group} ct direction original ct reply {ip} saddr {pool} ct reply {ip} saddr != @hosts{end} \
                     goto {unknown}"
                )
            }));
        }
        if self.settings.out == Verdict::Deny {
            let out = Rule::Out.chain();
            for (end, ip, _) in FAMILIES {
                rules.push(format!(
                    "ct direction original ct original {ip} saddr @known{end} ct reply {ip} saddr != @known{end} goto {out}"
                ));
            }
        }
        hooked("forward", "forward", rules)
    }

    /// What was led by the engine's DNAT to an address that is none of ours. What our own leads somewhere stays judged.
    fn published(&self, (end, ip, _): (&str, &str, &str)) -> String {
        let outside =
            self.pool(end).map(|pool| format!(" ct reply {ip} saddr != {pool}")).unwrap_or_default();
        format!("meta nfproto {}{outside} accept", protocol_of(end))
    }

    /// Callers that the called container's rules do not mention.
    fn strangers(&self) -> Chain {
        let verdict = verdict(self.settings.host, Rule::Host);
        let host = |(end, ip, _)| format!("ct original {ip} saddr @hosts{end} {verdict}");
        let mut rules: Vec<String> = FAMILIES.map(host).into();
        // A container that we have not heard of: its own host has, and has let it pass.
        for (end, ip, _) in FAMILIES {
            rules.extend(self.pool(end).map(|pool| {
                format!("ct original {ip} saddr {pool} ct original {ip} saddr != @known{end} accept")
            }));
        }
        rules.push(format!("goto {}", Rule::Grants.chain()));
        Chain { name: "strangers".to_owned(), hook: None, rules }
    }

    fn input(&self) -> Chain {
        let (dns, port) = (self.settings.dns.ip(), self.settings.dns.port());
        let (end, ip, _) = FAMILIES[usize::from(dns.is_ipv6())];
        let verdict = verdict(self.settings.names, Rule::Names);
        let asks = format!("{ip} daddr {dns} meta l4proto {{ tcp, udp }} th dport {port}");
        let mut rules = vec![
            "ct direction reply accept".to_owned(),
            format!("{asks} ct original {ip} saddr @known{end} {verdict}"),
        ];
        if self.settings.host == Verdict::Deny {
            let host = Rule::Host.chain();
            rules.extend(
                FAMILIES.map(|(end, ip, _)| format!("ct original {ip} saddr @known{end} goto {host}")),
            );
        }
        hooked("input", "input", rules)
    }
}

fn protocol_of(end: &str) -> &'static str {
    if end == "4" { "ipv4" } else { "ipv6" }
}

/// A chain in a hook.
fn hooked(name: &str, hook: &str, rules: Vec<String>) -> Chain {
    let hook = format!("{{ type filter hook {hook} priority {PRIORITY}; policy accept; }}");
    Chain { name: name.to_owned(), hook: Some(hook), rules }
}

fn verdict(setting: Verdict, rule: Rule) -> String {
    match setting {
        Verdict::Allow => "accept".to_owned(),
        Verdict::Deny => format!("goto {}", rule.chain()),
    }
}

fn refused(rule: Rule) -> Chain {
    // What tells of a connection (no such port, too big a packet) belongs to it, whatever its ports.
    let mut rules = vec!["ct state related meta l4proto { icmp, ipv6-icmp } accept".to_owned()];
    rules.extend(
        FAMILIES.into_iter().flat_map(|(end, ip, _)| refusal::counting(rule, (end, ip), protocol_of(end))),
    );
    rules.push("meta l4proto tcp reject with tcp reset".to_owned());
    rules.push("reject with icmpx admin-prohibited".to_owned());
    Chain { name: rule.chain().to_owned(), hook: None, rules }
}

/// The chain of all containers with these grants.
pub(super) fn class(grants: &[Grant]) -> Chain {
    let mut rules: Vec<String> = grants.iter().flat_map(rules_of).collect();
    rules.push("goto strangers".to_owned());
    Chain { name: class_name(class_hash(grants)), hook: None, rules }
}

fn rules_of(grant: &Grant) -> Vec<String> {
    let who = match &grant.who {
        Who::Anyone => vec![String::new()],
        Who::Network(IpNet::V4(network)) => vec![format!("ct original ip saddr {} ", network.trunc())],
        Who::Network(IpNet::V6(network)) => vec![format!("ct original ip6 saddr {} ", network.trunc())],
        Who::Group(text) => {
            let hash = hash(text.as_bytes());
            FAMILIES.map(|(end, ip, _)| format!("ct original {ip} saddr @{} ", group_name(hash, end))).into()
        }
    };
    let ports = ports_of(&grant.ports);
    who.iter().flat_map(|who| ports.iter().map(move |ports| format!("{who}{ports}accept"))).collect()
}

/// Matches of these ports, one per protocol. As the called container sees them: behind a DNAT, and in both directions.
fn ports_of(ports: &[Ports]) -> Vec<String> {
    if ports.is_empty() {
        return vec![String::new()];
    }
    let of = |protocol: Protocol, name: &str| {
        let mut ranges: Vec<(u16, u16)> = ports
            .iter()
            .filter(|ports| ports.protocol == protocol)
            .map(|ports| (ports.first, ports.last))
            .collect();
        ranges.sort_unstable();
        let text = merged(&ranges).into_iter().map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        });
        let text = text.collect::<Vec<_>>().join(", ");
        (!text.is_empty()).then(|| format!("meta l4proto {name} ct reply proto-src {{ {text} }} "))
    };
    [of(Protocol::Tcp, "tcp"), of(Protocol::Udp, "udp")].into_iter().flatten().collect()
}

/// nft takes no ranges that overlap.
fn merged(sorted: &[(u16, u16)]) -> Vec<(u16, u16)> {
    let mut merged: Vec<(u16, u16)> = Vec::new();
    for (first, last) in sorted {
        match merged.last_mut() {
            Some((_, end)) if *first <= end.saturating_add(1) => *end = (*end).max(*last),
            _ => merged.push((*first, *last)),
        }
    }
    merged
}

/// Tells classes of grants apart.
pub(super) fn class_hash(grants: &[Grant]) -> u64 {
    let text: Vec<String> = grants.iter().flat_map(rules_of).collect();
    hash(text.join("\n").as_bytes())
}

pub(super) fn class_name(class: u64) -> String {
    format!("c_{class:016x}")
}

pub(super) fn class_of_name(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix("c_").filter(|hex| hex.len() == 16)?, 16).ok()
}

pub(super) fn group_name(group: u64, family: &str) -> String {
    format!("g_{group:016x}_{family}")
}

/// The group whose set is called so, and of which family.
pub(super) fn group_of_name(name: &str) -> Option<(u64, &str)> {
    let (hex, family) = name.strip_prefix("g_")?.split_once('_')?;
    Some((u64::from_str_radix(hex, 16).ok()?, family))
}

/// What stands at a set for people.
pub(super) fn comment(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\\')).take(100).collect()
}

/// A rule's own mark.
pub(crate) fn mark(rule: &str) -> String {
    format!("{:08x}", hash(rule.as_bytes()) as u32)
}

/// The end of the names of an address's sets.
pub(crate) fn family_of(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "4" } else { "6" }
}

/// SHA-256, cut: a later worker must find the same names, and no one must be able to construct a text with another's name.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let whole = Sha256::digest(bytes);
    whole.iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}
