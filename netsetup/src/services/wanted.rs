//! The wanted table in nft's syntax, and the commands that bring the kernel there. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

use crate::policy::Protocol;
use crate::policy::rules::{FAMILIES, hash, mark};
use crate::pool6::{address6, block6};
use crate::services::have::Have;
use crate::services::service::{Service, ServicesSettings};

/// How many elements one command holds.
const CHUNK: usize = 2000;

/// The set of the containers that stand aside. No rule uses it.
pub(super) const ASIDE: &str = "aside";

/// The wanted table.
#[derive(Debug)]
pub(super) struct Wanted {
    table: String,
    /// With `{}` in place of the name.
    sets: BTreeMap<String, (String, BTreeSet<String>)>,
    chains: BTreeMap<String, Chain>,
    /// Where TCP and UDP may be sent.
    tcp: BTreeSet<Led>,
    udp: BTreeSet<Led>,
}

/// A virtual address and port, and an instance's.
pub(super) type Led = ((IpAddr, u16), (IpAddr, u16));

#[derive(Debug)]
struct Chain {
    /// The hook, and how it is declared.
    hook: Option<(&'static str, String)>,
    rules: Vec<String>,
}

/// What to send.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// For nft; empty when all is right.
    pub(super) text: String,
    /// The number of things that are not right.
    pub(super) count: u64,
}

pub(super) fn table_name(settings: &ServicesSettings) -> String {
    format!("selvedge_vip_{:08x}", settings.group)
}

impl Wanted {
    pub(super) fn new(settings: &ServicesSettings, services: &[Service], aside: &[Ipv4Addr]) -> Self {
        let mut wanted = Self {
            table: table_name(settings),
            sets: BTreeMap::new(),
            chains: BTreeMap::new(),
            tcp: BTreeSet::new(),
            udp: BTreeSet::new(),
        };
        // Without any service, neither a table nor nft is needed.
        if services.is_empty() && aside.is_empty() {
            return wanted;
        }
        wanted.skeleton(settings);
        let aside = aside.iter().map(ToString::to_string).collect();
        wanted.sets.insert(ASIDE.to_owned(), ("set {} { type ipv4_addr; }".to_owned(), aside));
        for service in services.iter().filter(|service| !service.backends.is_empty()) {
            wanted.service(settings, service);
        }
        wanted
    }

    fn skeleton(&mut self, settings: &ServicesSettings) {
        let range = |end: &str| match end {
            "4" => Some(settings.range.to_string()),
            _ => settings.pool6.map(|pool6| block6(pool6, settings.range).to_string()),
        };
        let (mut lead, mut back, mut refuse) = (Vec::new(), Vec::new(), Vec::new());
        for (end, ip, kind) in FAMILIES {
            let Some(range) = range(end) else { continue };
            let map = format!("map {{}} {{ type {kind} . inet_proto . inet_service : verdict; }}");
            let set = format!("set {{}} {{ type {kind} . {kind}; }}");
            self.sets.insert(format!("services{end}"), (map, BTreeSet::new()));
            self.sets.insert(format!("selves{end}"), (set, BTreeSet::new()));
            lead.push(format!("{ip} daddr {range} {ip} daddr . meta l4proto . th dport vmap @services{end}"));
            // A container sent to itself would not recognise the answer: so make it look as if the virtual address had
            // called.
            back.push(format!(
                "ct status dnat {ip} saddr . {ip} daddr @selves{end} snat {ip} to ct original {ip} daddr"
            ));
            // No instance stands behind it: the packet was not redirected.
            refuse.push(format!("{ip} daddr {range} meta l4proto tcp reject with tcp reset"));
            refuse.push(format!("{ip} daddr {range} reject with icmpx port-unreachable"));
        }
        // Before the engine's own: the first to decide wins, and these rules cover our range alone.
        self.hook("prerouting", "nat", "dstnat - 5", lead.clone());
        // "dstnat" is not a priority name for this hook.
        self.hook("output", "nat", "-105", lead);
        self.hook("postrouting", "nat", "srcnat - 5", back);
        // Before the policy, which would count it as refused between tenants.
        self.hook("forward", "filter", "filter - 10", refuse.clone());
        self.hook("refuse", "filter", "filter - 10", refuse);
    }

    fn hook(&mut self, name: &str, kind: &str, priority: &str, rules: Vec<String>) {
        let hook = match name {
            "prerouting" => "prerouting",
            "postrouting" => "postrouting",
            "forward" => "forward",
            _ => "output",
        };
        let declaration = format!("{{ type {kind} hook {hook} priority {priority}; policy accept; }}");
        self.chains.insert(name.to_owned(), Chain { hook: Some((hook, declaration)), rules });
    }

    fn service(&mut self, settings: &ServicesSettings, service: &Service) {
        for (end, ip, _) in FAMILIES {
            let of = |address| match end {
                "4" => Some(IpAddr::V4(address)),
                _ => settings.pool6.map(|pool6| IpAddr::V6(address6(pool6, address))),
            };
            let Some(address) = of(service.address) else { continue };
            let protocol = match service.protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
            };
            let key = format!("{address} . {protocol} . {}", service.port);
            let backends: Vec<(IpAddr, u16)> =
                service.backends.iter().filter_map(|(address, port)| Some((of(*address)?, *port))).collect();
            let led = match service.protocol {
                Protocol::Tcp => &mut self.tcp,
                Protocol::Udp => &mut self.udp,
            };
            led.extend(backends.iter().map(|backend| ((address, service.port), *backend)));
            let entries: Vec<String> = backends
                .iter()
                .enumerate()
                .map(|(nth, (to, port))| format!("{nth} : {to} . {port}"))
                .collect();
            let rule = format!(
                "meta l4proto {protocol} dnat {ip} to numgen random mod {} map {{ {} }}",
                entries.len(),
                entries.join(", ")
            );
            let chain = format!("s_{:016x}", hash(key.as_bytes()));
            self.element(&format!("services{end}"), format!("{key} : goto {chain}"));
            backends.iter().for_each(|(to, _)| self.element(&format!("selves{end}"), format!("{to} . {to}")));
            self.chains.insert(chain, Chain { hook: None, rules: vec![rule] });
        }
    }

    fn element(&mut self, set: &str, element: String) {
        if let Some((_, elements)) = self.sets.get_mut(set) {
            elements.insert(element);
        }
    }

    /// Where UDP may be sent.
    pub(super) fn udp(&self) -> &BTreeSet<Led> {
        &self.udp
    }

    /// Where TCP may be sent.
    pub(super) fn tcp(&self) -> &BTreeSet<Led> {
        &self.tcp
    }

    /// The kernel's state when all of it is done.
    pub(super) fn fulfilled(&self) -> Have {
        let chain = |(name, chain): (&String, &Chain)| {
            let hook = chain.hook.as_ref().map(|(hook, _)| (*hook).to_owned());
            (name.clone(), (hook, chain.rules.iter().map(|rule| mark(rule)).collect()))
        };
        let set =
            |(name, (_, elements)): (&String, &(String, BTreeSet<String>))| (name.clone(), elements.clone());
        Have {
            there: !self.chains.is_empty(),
            chains: self.chains.iter().map(chain).collect(),
            sets: self.sets.iter().map(set).collect(),
        }
    }

    /// From the present to the wanted state.
    pub(super) fn difference(&self, have: &Have) -> Difference {
        let mut difference = Difference::default();
        let table = format!("inet {}", self.table);
        if self.chains.is_empty() {
            if have.there {
                difference.add(&format!("delete table {table}"));
            }
            return difference;
        }
        let nothing = Have::default();
        let mut have = have;
        if have.there && self.is_bent(have) {
            difference.add(&format!("delete table {table}"));
            have = &nothing;
        }
        if !have.there {
            difference.add(&format!("add table {table}"));
        }
        self.declare(have, &table, &mut difference);
        self.fill(have, &table, &mut difference);
        self.elements(have, &table, &mut difference);
        for name in have.chains.keys().filter(|name| !self.chains.contains_key(*name)) {
            difference.add(&format!("flush chain {table} {name}\ndelete chain {table} {name}"));
        }
        difference
    }

    /// Whether rebuilding is easier than repairing: there are sets that are not ours, or chains in other hooks than
    /// ours.
    fn is_bent(&self, have: &Have) -> bool {
        let hook = |chain: &Chain| chain.hook.as_ref().map(|(hook, _)| (*hook).to_owned());
        let elsewhere = |(name, chain): (&String, &Chain)| {
            have.chains.get(name).is_some_and(|(other, _)| *other != hook(chain))
        };
        self.chains.iter().any(elsewhere) || have.sets.keys().any(|name| !self.sets.contains_key(name))
    }

    fn declare(&self, have: &Have, table: &str, difference: &mut Difference) {
        for (name, (declaration, _)) in self.sets.iter().filter(|(name, _)| !have.sets.contains_key(*name)) {
            difference.add(&format!("add {}", declaration.replacen("{}", &format!("{table} {name}"), 1)));
        }
        for (name, chain) in self.chains.iter().filter(|(name, _)| !have.chains.contains_key(*name)) {
            let declaration = chain.hook.as_ref().map_or("", |(_, declaration)| declaration);
            difference.add(&format!("add chain {table} {name} {declaration}"));
        }
    }

    fn fill(&self, have: &Have, table: &str, difference: &mut Difference) {
        for (name, chain) in &self.chains {
            let marks: Vec<String> = chain.rules.iter().map(|rule| mark(rule)).collect();
            let before = have.chains.get(name).map(|(_, marks)| marks);
            if before == Some(&marks) {
                continue;
            }
            if before.is_some_and(|before| !before.is_empty()) {
                difference.add(&format!("flush chain {table} {name}"));
            }
            for (rule, mark) in chain.rules.iter().zip(&marks) {
                difference.add(&format!("add rule {table} {name} {rule} comment \"{mark}\""));
            }
        }
    }

    fn elements(&self, have: &Have, table: &str, difference: &mut Difference) {
        let nothing = BTreeSet::new();
        let had = |name: &String| have.sets.get(name).unwrap_or(&nothing);
        for (name, (_, want)) in &self.sets {
            difference.all("delete element", &format!("{table} {name}"), had(name).difference(want));
        }
        for (name, (_, want)) in &self.sets {
            difference.all("add element", &format!("{table} {name}"), want.difference(had(name)));
        }
    }
}

impl Difference {
    /// The same with many elements.
    fn all<'a>(&mut self, verb: &str, set: &str, elements: impl Iterator<Item = &'a String>) {
        let elements: Vec<&str> = elements.map(String::as_str).collect();
        for chunk in elements.chunks(CHUNK) {
            self.add(&format!("{verb} {set} {{ {} }}", chunk.join(", ")));
        }
    }

    fn add(&mut self, line: &str) {
        let _ = writeln!(self.text, "{line}");
        self.count += 1;
    }
}
