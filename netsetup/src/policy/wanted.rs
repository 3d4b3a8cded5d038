//! The wanted rules: the parties, and what follows from them for each address, group and class. Pure.
//!
//! Remembers what has changed since it was last compared, so that a change costs what it changes and not what there is.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv6Net;

use crate::policy::party::{ByAddress, Grant, Party, Who};
use crate::policy::rules::{class_hash, hash};
use crate::pool6::address6;

/// A set of grants that some containers have.
#[derive(Debug)]
pub(super) struct Class {
    pub(super) grants: Vec<Grant>,
    users: usize,
}

/// A group that some class names.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) text: String,
    pub(super) members: HashSet<IpAddr>,
    users: usize,
}

/// What has changed since it was last compared.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// Everything.
    pub(super) all: bool,
    pub(super) addresses: HashSet<IpAddr>,
    pub(super) members: HashSet<(u64, IpAddr)>,
    pub(super) classes: HashSet<u64>,
    pub(super) groups: HashSet<u64>,
    pub(super) hosts: bool,
}

impl Touched {
    /// Whether there is something.
    pub(super) fn is_some(&self) -> bool {
        let Self { all, addresses, members, classes, groups, hosts } = self;
        *all || *hosts
            || !(addresses.is_empty() && members.is_empty() && classes.is_empty() && groups.is_empty())
    }
}

#[derive(Debug)]
pub(super) struct Wanted {
    pool6: Option<Ipv6Net>,
    parties: HashMap<String, (Party, u64)>,
    /// Who has an address: one, but for moments in which it changes hands. The newest is last, and counts.
    holders: ByAddress<Vec<String>>,
    pub(super) classes: HashMap<u64, Class>,
    pub(super) groups: HashMap<u64, Group>,
    /// How many parties are in each group, also in those that no class names.
    sizes: HashMap<u64, u32>,
    pub(super) hosts: BTreeSet<IpAddr>,
    pub(super) touched: Touched,
}

impl Wanted {
    pub(super) fn new(pool6: Option<Ipv6Net>) -> Self {
        Self {
            pool6,
            parties: HashMap::new(),
            holders: HashMap::new(),
            classes: HashMap::new(),
            groups: HashMap::new(),
            sizes: HashMap::new(),
            hosts: BTreeSet::new(),
            touched: Touched::default(),
        }
    }

    pub(super) fn put(&mut self, id: &str, party: Party) {
        if self.parties.get(id).is_some_and(|(known, _)| *known == party) {
            return;
        }
        let class = class_hash(&party.grants);
        self.hold_class(class, &party.grants);
        let addresses = self.addresses(&party);
        self.remove(id);
        for address in addresses {
            self.leave_groups(address);
            self.holders.entry(address).or_default().push(id.to_owned());
        }
        for group in hashes(&party) {
            *self.sizes.entry(group).or_default() += 1;
        }
        self.parties.insert(id.to_owned(), (party, class));
        self.enter_groups(id);
    }

    pub(super) fn remove(&mut self, id: &str) {
        let Some((party, class)) = self.parties.get(id).cloned() else { return };
        for address in self.addresses(&party) {
            self.leave_groups(address);
            let Some(holders) = self.holders.get_mut(&address) else { continue };
            holders.retain(|holder| holder != id);
            let next = holders.last().cloned();
            if next.is_none() {
                self.holders.remove(&address);
            }
            // Who had the address before has it again.
            next.iter().for_each(|next| self.enter_groups(next));
            self.touched.addresses.insert(address);
        }
        for group in hashes(&party) {
            if let Some(size) = self.sizes.get_mut(&group).filter(|size| **size > 1) {
                *size -= 1;
            } else {
                self.sizes.remove(&group);
            }
        }
        self.parties.remove(id);
        self.release_class(class);
    }

    pub(super) fn set_hosts(&mut self, hosts: &BTreeSet<Ipv4Addr>) {
        let six = |four: &Ipv4Addr| self.pool6.map(|pool6| IpAddr::V6(address6(pool6, *four)));
        let hosts = hosts.iter().flat_map(|four| [Some(IpAddr::V4(*four)), six(four)]).flatten().collect();
        if self.hosts != hosts {
            self.hosts = hosts;
            self.touched.hosts = true;
        }
    }

    pub(super) fn touch_all(&mut self) {
        self.touched.all = true;
    }

    /// The class by which callers of this address are judged.
    pub(super) fn class_of(&self, address: IpAddr) -> Option<u64> {
        let id = holder(&self.holders, address)?;
        self.parties.get(id).map(|(_, class)| *class)
    }

    /// All addresses of containers.
    pub(super) fn all_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.holders.keys().copied()
    }

    fn addresses(&self, party: &Party) -> Vec<IpAddr> {
        let six = self.pool6.map(|pool6| IpAddr::V6(address6(pool6, party.address)));
        let aliases =
            party.aliases.iter().map(IpAddr::to_canonical).filter(|address| !address.is_unspecified());
        let mut addresses: Vec<IpAddr> =
            [IpAddr::V4(party.address)].into_iter().chain(six).chain(aliases).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    /// The addresses of a party that are its own now are members of its groups.
    fn enter_groups(&mut self, id: &str) {
        let Some((party, _)) = self.parties.get(id) else { return };
        let is_its = |address: &IpAddr| holder(&self.holders, *address) == Some(id);
        let addresses: Vec<IpAddr> = self.addresses(party).into_iter().filter(is_its).collect();
        for group in hashes(party) {
            let Some(known) = self.groups.get_mut(&group) else { continue };
            let new = addresses.iter().filter(|address| known.members.insert(**address));
            self.touched.members.extend(new.map(|address| (group, *address)));
        }
        self.touched.addresses.extend(addresses);
    }

    /// The address belongs to no party for a moment.
    fn leave_groups(&mut self, address: IpAddr) {
        let Some(id) = holder(&self.holders, address) else { return };
        let Some((party, _)) = self.parties.get(id) else { return };
        for group in hashes(party) {
            if self.groups.get_mut(&group).is_some_and(|known| known.members.remove(&address)) {
                self.touched.members.insert((group, address));
            }
        }
    }

    fn hold_class(&mut self, class: u64, grants: &[Grant]) {
        let known = self.classes.entry(class).or_insert_with(|| Class { grants: grants.to_vec(), users: 0 });
        known.users += 1;
        if known.users > 1 {
            return;
        }
        self.touched.classes.insert(class);
        for text in groups_of(grants) {
            self.hold_group(text);
        }
    }

    fn release_class(&mut self, class: u64) {
        let Some(known) = self.classes.get_mut(&class) else { return };
        known.users -= 1;
        if known.users > 0 {
            return;
        }
        let grants = self.classes.remove(&class).map(|class| class.grants).unwrap_or_default();
        self.touched.classes.insert(class);
        for text in groups_of(&grants) {
            self.release_group(text);
        }
    }

    fn hold_group(&mut self, text: &str) {
        let group = hash(text.as_bytes());
        if let Some(known) = self.groups.get_mut(&group) {
            known.users += 1;
            return;
        }
        // The first rule that speaks of it: now its members matter. Mostly it has none: a tenant begins like that.
        let is_in = |address: &IpAddr| {
            let id = holder(&self.holders, *address);
            id.and_then(|id| self.parties.get(id)).is_some_and(|(party, _)| party.groups.contains(text))
        };
        let members = match self.sizes.contains_key(&group) {
            true => self.holders.keys().copied().filter(is_in).collect(),
            false => HashSet::new(),
        };
        self.groups.insert(group, Group { text: text.to_owned(), members, users: 1 });
        self.touched.groups.insert(group);
    }

    fn release_group(&mut self, text: &str) {
        let group = hash(text.as_bytes());
        let Some(known) = self.groups.get_mut(&group) else { return };
        known.users -= 1;
        if known.users == 0 {
            self.groups.remove(&group);
            self.touched.groups.insert(group);
        }
    }
}

/// Who has the address now.
fn holder(holders: &ByAddress<Vec<String>>, address: IpAddr) -> Option<&str> {
    holders.get(&address)?.last().map(String::as_str)
}

/// The groups that these grants speak of, each once.
fn groups_of(grants: &[Grant]) -> BTreeSet<&str> {
    fn group(grant: &Grant) -> Option<&str> {
        match &grant.who {
            Who::Group(text) => Some(text.as_str()),
            Who::Network(_) | Who::Anyone => None,
        }
    }
    grants.iter().filter_map(group).collect()
}

fn hashes(party: &Party) -> impl Iterator<Item = u64> + use<'_> {
    party.groups.iter().map(|text| hash(text.as_bytes()))
}
