//! What the kernel has in our table and this worker does not know of: from an earlier worker, from one beside us, or from someone
//! else. Pure.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::policy::have::Have;
use crate::policy::refusal::Rule;
use crate::policy::rules::{Base, class_of_name, group_of_name};
use crate::policy::wanted::Wanted;

/// The chains of every version of ours, but for those of classes and those that refuse.
const CHAINS: [&str; 5] = ["forward", "input", "output", "strangers", "published"];

/// All of it.
#[derive(Debug)]
pub(super) struct Strange {
    pub(super) addresses: HashSet<IpAddr>,
    pub(super) members: Vec<(u64, IpAddr)>,
    pub(super) hosts: bool,
    pub(super) classes: Vec<u64>,
    pub(super) groups: HashSet<u64>,
    /// Chains, and sets and maps, that no version of ours has made.
    pub(super) chains: Vec<String>,
    pub(super) sets: Vec<String>,
}

impl Strange {
    pub(super) fn of(wanted: &Wanted, have: &Have) -> Self {
        let addresses = have.called.keys().chain(&have.known).copied();
        let classes = have.chains.keys().filter_map(|name| class_of_name(name));
        let groups = have.sets.iter().filter_map(|name| group_of_name(name)).map(|(group, _)| group);
        let is_ours = |name: &str| {
            CHAINS.contains(&name)
                || Rule::ALL.iter().any(|rule| rule.chain() == name)
                || class_of_name(name).is_some()
        };
        let is_chain = |name: &&String| !is_ours(name);
        let sets: HashSet<String> = Base::sets().into_iter().map(|(name, _)| name).collect();
        let is_set = |name: &&String| !sets.contains(*name) && group_of_name(name).is_none();
        Self {
            addresses: addresses.filter(|address| wanted.class_of(*address).is_none()).collect(),
            members: members(wanted, have),
            hosts: !have.hosts.is_subset(&wanted.hosts),
            classes: classes.filter(|class| !wanted.classes.contains_key(class)).collect(),
            groups: groups.filter(|group| !wanted.groups.contains_key(group)).collect(),
            chains: have.chains.keys().filter(is_chain).cloned().collect(),
            sets: have.sets.iter().filter(is_set).cloned().collect(),
        }
    }

    pub(super) fn is_some(&self) -> bool {
        let Self { addresses, members, hosts, classes, groups, chains, sets } = self;
        let contents = !addresses.is_empty() || !members.is_empty() || *hosts;
        contents || !classes.is_empty() || !groups.is_empty() || !chains.is_empty() || !sets.is_empty()
    }
}

/// Unknown members of known groups.
fn members(wanted: &Wanted, have: &Have) -> Vec<(u64, IpAddr)> {
    let of = |(group, members): (&u64, &HashSet<IpAddr>)| {
        let known = wanted.groups.get(group)?;
        Some(members.difference(&known.members).map(|address| (*group, *address)).collect::<Vec<_>>())
    };
    have.groups.iter().filter_map(of).flatten().collect()
}
