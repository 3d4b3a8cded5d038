//! What the kernel has of our table, as nft lists it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::Error;
use crate::nft;
use crate::policy::party::ByAddress;
use crate::policy::refusal::{FORMER, Key, Refusal};
use crate::policy::rules::{Base, called_map, class_of_name, group_of_name};

/// The table.
#[derive(Debug, Default)]
pub(super) struct Have {
    /// Whether there is one.
    pub(super) there: bool,
    /// It sleeps: none of it counts.
    pub(super) dormant: bool,
    /// The names of its sets and maps.
    pub(super) sets: HashSet<String>,
    /// Which of those are maps.
    pub(super) maps: HashSet<String>,
    /// Chains in hooks that do not let pass what no rule speaks of.
    pub(super) closed: HashSet<String>,
    /// Its chains, each with the marks of its rules; empty for a rule without a mark.
    pub(super) chains: HashMap<String, Vec<String>>,
    /// By which class the callers of an address are judged, 0 for a chain that is no class; and the map that says so.
    pub(super) called: ByAddress<Called>,
    pub(super) known: HashSet<IpAddr>,
    pub(super) groups: HashMap<u64, HashSet<IpAddr>>,
    pub(super) hosts: BTreeSet<IpAddr>,
}

/// A class, and the name of a map.
pub(super) type Called = (u64, &'static str);

/// What a transaction changes in it.
#[derive(Debug, Default)]
pub(super) struct After {
    pub(super) sets: Vec<(String, bool)>,
    /// The marks of a chain's rules; nothing = no such chain any more.
    pub(super) chains: Vec<(String, Option<Vec<String>>)>,
    pub(super) called: Vec<(IpAddr, Option<Called>)>,
    pub(super) known: Vec<(IpAddr, bool)>,
    pub(super) members: Vec<(u64, IpAddr, bool)>,
    pub(super) gone_groups: Vec<u64>,
    pub(super) hosts: Option<BTreeSet<IpAddr>>,
}

#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    table: Option<Table>,
    set: Option<Set>,
    map: Option<Set>,
    chain: Option<Listed>,
    rule: Option<Rule>,
}

#[derive(Deserialize)]
struct Table {
    name: String,
    /// nft 1.0.6 prints anything here; the one flag that a table of ours could have is that it sleeps.
    flags: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    policy: Option<String>,
}

#[derive(Deserialize)]
struct Set {
    name: String,
    #[serde(default)]
    elem: Vec<Element>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Element {
    Address(IpAddr),
    Verdict(IpAddr, Verdict),
    Counted { elem: Counted },
    Named { elem: Named },
    Other(IgnoredAny),
}

#[derive(Deserialize)]
struct Verdict {
    goto: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    target: String,
}

#[derive(Deserialize)]
struct Counted {
    val: Key,
    counter: Option<Counter>,
}

#[derive(Deserialize)]
struct Named {
    val: IpAddr,
    comment: Option<String>,
}

#[derive(Deserialize)]
struct Counter {
    packets: u64,
}

#[derive(Deserialize)]
struct Rule {
    chain: String,
    comment: Option<String>,
}

impl Have {
    /// All of it.
    ///
    /// # Errors
    /// nft cannot tell; also of a table that sleeps, for whose flag version 1.0.6 may print nothing at all.
    pub(super) fn read(base: &Base) -> Result<Self, Error> {
        let found = nft::list(&["list", "table", "inet", base.table_name()])?;
        Ok(found.map(Self::of).unwrap_or_default())
    }

    /// All of it, of a table that sleeps too: it is woken.
    pub(super) fn read_awake(base: &Base) -> Result<Self, Error> {
        Self::read(base).or_else(|_| {
            nft::run(&base.wake())?;
            Ok(Self { dormant: true, ..Self::read(base)? })
        })
    }

    fn of(listing: Listing) -> Self {
        let mut have = Self { there: true, ..Self::default() };
        for item in listing.nftables {
            have.dormant |= item.table.is_some_and(|table| table.flags.is_some());
            if let Some(chain) = item.chain {
                let closed = chain.policy.is_some_and(|policy| policy != "accept");
                have.closed.extend(closed.then(|| chain.name.clone()));
                have.chains.entry(chain.name).or_default();
            }
            have.maps.extend(item.map.as_ref().map(|map| map.name.clone()));
            if let Some(rule) = item.rule {
                have.chains.entry(rule.chain).or_default().push(rule.comment.unwrap_or_default());
            }
            item.set.into_iter().chain(item.map).for_each(|set| have.take(set));
        }
        have
    }

    fn take(&mut self, set: Set) {
        let addresses = |element: &Element| match element {
            Element::Address(address) => Some(*address),
            _ => None,
        };
        match set.name.as_str() {
            "known4" | "known6" => self.known.extend(set.elem.iter().filter_map(addresses)),
            "hosts4" | "hosts6" => self.hosts.extend(set.elem.iter().filter_map(addresses)),
            name => {
                if let Some(map) = called_map(name) {
                    let called = set.elem.iter().filter_map(verdict);
                    self.called.extend(called.map(|(address, class)| (address, (class, map))));
                } else if let Some((group, _)) = group_of_name(name) {
                    self.groups.entry(group).or_default().extend(set.elem.iter().filter_map(addresses));
                }
            }
        }
        self.sets.insert(set.name);
    }

    /// A transaction has been made.
    pub(super) fn become_so(&mut self, after: After) {
        (self.there, self.dormant) = (true, false);
        self.closed.clear();
        for (name, there) in after.sets {
            if there { _ = self.sets.insert(name) } else { _ = self.sets.remove(&name) }
        }
        for (name, marks) in after.chains {
            match marks {
                Some(marks) => _ = self.chains.insert(name, marks),
                None => _ = self.chains.remove(&name),
            }
        }
        for (address, called) in after.called {
            match called {
                Some(called) => _ = self.called.insert(address, called),
                None => _ = self.called.remove(&address),
            }
        }
        for (address, known) in after.known {
            if known { _ = self.known.insert(address) } else { _ = self.known.remove(&address) }
        }
        for (group, address, there) in after.members {
            let members = self.groups.entry(group).or_default();
            if there { _ = members.insert(address) } else { _ = members.remove(&address) }
        }
        for group in after.gone_groups {
            self.groups.remove(&group);
        }
        if let Some(hosts) = after.hosts {
            self.hosts = hosts;
        }
    }
}

fn verdict(element: &Element) -> Option<(IpAddr, u64)> {
    match element {
        Element::Verdict(address, verdict) => {
            let class = verdict.goto.as_ref().and_then(|target| class_of_name(&target.target));
            Some((*address, class.unwrap_or(0)))
        }
        _ => None,
    }
}

/// Whether our table is there.
pub(super) fn is_there(base: &Base) -> Result<bool, Error> {
    let listing: Option<Listing> = nft::list(&["list", "tables", "inet"])?;
    let tables = listing.into_iter().flat_map(|listing| listing.nftables).filter_map(|item| item.table);
    Ok(tables.map(|table| table.name).any(|name| name == base.table_name()))
}

/// What the sets have counted.
pub(super) fn refused(base: &Base) -> Result<HashMap<Refusal, u64>, Error> {
    // In this order what comes meanwhile is in the details alone.
    let mut refused = counted(base, ["refused4", "refused6"])?;
    let detailed = counted(base, ["denied4", "denied6"])?;
    for (Refusal { from, to, .. }, packets) in &detailed {
        if let Some(rest) = refused.get_mut(&Refusal { from: *from, to: *to, call: None }) {
            *rest = rest.saturating_sub(*packets);
        }
    }
    refused.retain(|_, packets| *packets > 0);
    refused.extend(detailed);
    Ok(refused)
}

fn counted(base: &Base, names: [&str; 2]) -> Result<HashMap<Refusal, u64>, Error> {
    let mut all = HashMap::new();
    for name in names {
        all.extend(elements(base, name)?.filter_map(Element::refusal));
    }
    Ok(all)
}

/// Names of containers that have ended.
pub(super) fn former(base: &Base) -> Result<HashMap<IpAddr, String>, Error> {
    Ok(elements(base, FORMER)?.filter_map(Element::former).collect())
}

fn elements(base: &Base, set: &str) -> Result<impl Iterator<Item = Element> + use<>, Error> {
    let listing: Option<Listing> = nft::list(&["list", "set", "inet", base.table_name(), set])?;
    let sets = listing.into_iter().flat_map(|listing| listing.nftables).filter_map(|item| item.set);
    Ok(sets.flat_map(|set| set.elem))
}

impl Element {
    fn former(self) -> Option<(IpAddr, String)> {
        match self {
            Self::Named { elem: Named { val, comment } } => Some((val, comment?)),
            _ => None,
        }
    }

    fn refusal(self) -> Option<(Refusal, u64)> {
        match self {
            Self::Counted { elem: Counted { val, counter } } => Some((val.read()?, counter?.packets)),
            _ => None,
        }
    }
}
