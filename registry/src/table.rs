//! All records of this host and its peers, indexed for what DNS asks: a name's addresses, an address's name, an asker's
//! own name servers. No lookup and no change may get slower because the table is large, or do I/O.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::error::Error;
use crate::name::{Name, parent};
use crate::record::Record;

mod addresses;
mod answered;
mod choice;
mod listener;
pub mod pool6;
pub mod services;
pub mod sight;
mod vips;

use addresses::Addresses;
use answered::Choice;
use listener::Listener;

/// What the table knows about a name.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// The name has these addresses: at least one, each once.
    Addresses(Cow<'a, [Ipv4Addr]>),
    /// The name has no address, but there are names below it, or it is a domain of ours: NODATA, not NXDOMAIN
    /// (RFC 8020).
    Empty,
    /// The name is in a domain of ours, and neither it nor anything below it exists.
    Missing,
    /// The name is in a domain that we share: what we cannot compute is for the domain's other servers to answer.
    Shared,
    /// The name is outside our domains.
    Outside,
}

/// Names and addresses of containers.
#[derive(Debug)]
pub struct Table {
    domains: Vec<Name>,
    records: HashMap<String, Record>,
    /// By the whole name's wire bytes; also holds the empty names between a domain and the names below it.
    nodes: HashMap<Box<[u8]>, Node>,
    /// The records with an address: one, except while an address changes hands. The newest is last.
    by_address: HashMap<Ipv4Addr, Vec<String>>,
    /// How many records there are in 0.0.0.0/4, 10.0.0.0/8, 10.32.0.0/12 and so on: the empty names of the reverse
    /// trees. in-addr.arpa descends by 8 bits, ip6.arpa by 4.
    by_prefix: HashMap<Ipv4Net, u32>,
    /// The ids of the records that stand behind virtual addresses.
    by_vip: BTreeSet<String>,
    /// The ids of those that take no new connections, whatever their records still say.
    aside: HashSet<String>,
    listener: Listener,
    pool6: Option<Ipv6Net>,
    /// By host name; this host's own is empty.
    hosts: HashMap<Box<str>, Ipv4Addr>,
    partial: bool,
    isolated: bool,
    version: u64,
}

#[derive(Debug, Default)]
struct Node {
    addresses: Addresses,
    /// How many names one label below exist.
    children: u32,
    /// Only for names with a record that is unhealthy or exclusive.
    choice: Option<Box<Choice>>,
}

impl Table {
    /// An empty table whose relative names are below `domain`.
    #[must_use]
    pub fn new(domain: Name) -> Self {
        Self {
            domains: vec![domain.into_absolute()],
            records: HashMap::new(),
            nodes: HashMap::new(),
            by_address: HashMap::new(),
            by_prefix: HashMap::new(),
            by_vip: BTreeSet::new(),
            aside: HashSet::new(),
            listener: Listener::default(),
            pool6: None,
            hosts: HashMap::new(),
            partial: false,
            isolated: false,
            version: 1,
        }
    }

    /// Makes the table accept absolute names within `domain` too (`mesos` for the DNS style of Mesos), in which others
    /// also have names. Call it while the table is empty: names refused earlier stay refused.
    #[must_use]
    pub fn with_shared_domain(mut self, domain: Name) -> Self {
        self.domains.push(domain.into_absolute());
        self
    }

    /// Gives containers IPv6 addresses too, derived by [`pool6::derived`]. A network of more than 96 bits has no room
    /// for that, so it is widened to 96 bits.
    #[must_use]
    pub fn with_pool6(mut self, pool6: Ipv6Net) -> Self {
        self.pool6 = Some(pool6::wide_enough(pool6));
        self
    }

    /// The network of the containers' IPv6 addresses, at most 96 bits long; none if they have none.
    #[must_use]
    pub fn pool6(&self) -> Option<Ipv6Net> {
        self.pool6
    }

    /// Sets whether records are still missing, for instance while the other hosts' have not been read yet. This is no
    /// change of the records, so the version stays.
    pub fn set_partial(&mut self, partial: bool) {
        self.partial = partial;
    }

    /// Whether records are still missing: then a name that is not here may exist all the same. A new table is complete.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.partial
    }

    /// Sets the addresses of the hosts themselves, by their names: `""` for this one.
    pub fn set_hosts(&mut self, hosts: HashMap<Box<str>, Ipv4Addr>) {
        self.hosts = hosts;
    }

    /// The address of the host on which a record's container runs.
    fn host_of(&self, record: &Record) -> Option<Ipv4Addr> {
        let host = record.id.split_once('/').map_or("", |(host, _)| host);
        self.hosts.get(host).copied()
    }

    /// Sets whether an asker sees only containers it may call; see [`sight::Sight`].
    pub fn set_isolated(&mut self, isolated: bool) {
        self.isolated = isolated;
    }

    /// Whether an asker sees only containers it may call.
    #[must_use]
    pub fn is_isolated(&self) -> bool {
        self.isolated
    }

    /// The domain of relative names; itself absolute.
    #[must_use]
    pub fn domain(&self) -> &Name {
        &self.domains[0]
    }

    /// A number that grows with each change: the serial of our SOA.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Adds a record, replacing the one with the same id. Names that the table cannot have are left out and returned as
    /// errors, so that one bad name does not cost a container the others. Adding the same record again changes nothing.
    pub fn put(&mut self, record: Record) -> Vec<Error> {
        let (names, refused) = self.absolute_names(&record);
        if self.records.get(&record.id) == Some(&record) {
            return refused;
        }
        let is_behind = !record.traits.vips.is_empty();
        let was_behind = self.by_vip.contains(&record.id);
        self.take_out(&record.id);
        if is_behind {
            self.by_vip.insert(record.id.clone());
        } else {
            self.aside.remove(&record.id);
        }
        for name in &names {
            self.hold(name, record.address);
        }
        self.by_address.entry(record.address).or_default().push(record.id.clone());
        for prefix in prefixes(record.address) {
            *self.by_prefix.entry(prefix).or_default() += 1;
        }
        let special = record.traits.is_special();
        self.records.insert(record.id.clone(), record);
        names.iter().for_each(|name| self.choose(name, special, true));
        self.version += 1;
        self.listener.tell(is_behind || was_behind);
        refused
    }

    /// Removes the record with this id; false if there is none.
    pub fn remove(&mut self, id: &str) -> bool {
        let was_behind = self.by_vip.contains(id);
        let removed = self.take_out(id);
        self.version += u64::from(removed);
        self.listener.tell(was_behind);
        removed
    }

    /// The record with this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Record> {
        self.records.get(id)
    }

    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// All records, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// What is known of an absolute name, given as wire bytes in lower case.
    #[must_use]
    pub fn lookup(&self, wire: &[u8]) -> Found<'_> {
        match self.nodes.get(wire) {
            Some(node) if !node.addresses.all().is_empty() => {
                Found::Addresses(Cow::Borrowed(node.answered()))
            }
            node => match self.domain_of(wire) {
                Some(domain) if domain != self.domain() => Found::Shared,
                Some(domain) if node.is_some() || domain.wire().len() == wire.len() => Found::Empty,
                Some(_) => Found::Missing,
                None => Found::Outside,
            },
        }
    }

    /// The domain of ours that the name (absolute, wire bytes in lower case) is in; the longest if there are several.
    #[must_use]
    pub fn domain_of(&self, wire: &[u8]) -> Option<&Name> {
        let holds = |domain: &&Name| suffix_of_length(wire, domain.wire().len()) == Some(domain.wire());
        self.domains.iter().filter(holds).max_by_key(|domain| domain.wire().len())
    }

    /// Whether a domain of ours is below the name (absolute, wire bytes in lower case): `internal.` is such a name.
    #[must_use]
    pub fn is_above_domain(&self, wire: &[u8]) -> bool {
        let below = |domain: &Name| {
            domain.wire().len() > wire.len() && suffix_of_length(domain.wire(), wire.len()) == Some(wire)
        };
        self.domains.iter().any(below)
    }

    /// The absolute primary name of the container with the address.
    #[must_use]
    pub fn reverse(&self, address: Ipv4Addr) -> Option<Name> {
        let record = self.owner(address)?;
        record.names.iter().find_map(|name| self.absolute(name).ok())
    }

    /// Whether any container has an address in this network, whose length must be a multiple of 4 bits.
    #[must_use]
    pub fn any_within(&self, network: Ipv4Net) -> bool {
        match network.prefix_len() {
            0 => !self.is_empty(),
            32 => self.by_address.contains_key(&network.addr()),
            _ => self.by_prefix.contains_key(&network.trunc()),
        }
    }

    /// The name servers that the user gave to the container with this address; empty if there are none.
    #[must_use]
    pub fn upstreams(&self, asker: Ipv4Addr) -> &[SocketAddr] {
        self.owner(asker).map_or(&[], |record| &record.upstreams)
    }

    /// The record with the address; the newest, if two claim it.
    #[must_use]
    pub fn owner(&self, address: Ipv4Addr) -> Option<&Record> {
        self.records.get(self.by_address.get(&address)?.last()?)
    }

    fn absolute(&self, name: &Name) -> Result<Name, Error> {
        let whole = name.within(self.domain())?;
        // A container cannot have the domain itself as its name.
        let inside = self.domain_of(whole.wire()).is_some_and(|domain| *domain != whole);
        if inside {
            Ok(whole)
        } else {
            Err(Error::OutsideDomain { name: whole.to_string(), domain: self.domain().to_string() })
        }
    }

    /// The record's names, absolute, each once, and the errors of the others.
    fn absolute_names(&self, record: &Record) -> (Vec<Name>, Vec<Error>) {
        let (mut names, mut refused) = (Vec::with_capacity(record.names.len()), Vec::new());
        for name in &record.names {
            match self.absolute(name) {
                Ok(whole) => names.push(whole),
                Err(error) => refused.push(error),
            }
        }
        names.sort_unstable();
        names.dedup();
        (names, refused)
    }

    fn take_out(&mut self, id: &str) -> bool {
        let Some(record) = self.records.remove(id) else { return false };
        self.by_vip.remove(id);
        let mut others = self.by_address.remove(&record.address).unwrap_or_default();
        others.retain(|other| other != id);
        // Another holder of both the name and the address keeps them, mostly while an address changes hands.
        let kept: Vec<Name> = others
            .iter()
            .filter_map(|id| self.records.get(id))
            .flat_map(|other| self.absolute_names(other).0)
            .collect();
        let names = self.absolute_names(&record).0;
        for name in names.iter().filter(|name| !kept.contains(name)) {
            self.release(name, record.address);
        }
        if !others.is_empty() {
            self.by_address.insert(record.address, others);
        }
        names.iter().for_each(|name| self.choose(name, record.traits.is_special(), false));
        for prefix in prefixes(record.address) {
            if let Some(count) = self.by_prefix.get_mut(&prefix).filter(|count| **count > 1) {
                *count -= 1;
            } else {
                self.by_prefix.remove(&prefix);
            }
        }
        true
    }

    /// Adds the address to the name; creates the name and the empty ones above it as needed.
    fn hold(&mut self, name: &Name, address: Ipv4Addr) {
        let mut wire = name.wire();
        let mut new = !self.nodes.contains_key(wire);
        self.nodes.entry(wire.into()).or_default().addresses.hold(address);
        while new {
            let Some(above) = parent(wire).filter(|above| !self.is_apex(above)) else { return };
            new = !self.nodes.contains_key(above);
            self.nodes.entry(above.into()).or_default().children += 1;
            wire = above;
        }
    }

    /// Removes the address from the name; removes the name and the empty ones above it if nothing is left of them.
    fn release(&mut self, name: &Name, address: Ipv4Addr) {
        let mut wire = name.wire();
        if let Some(node) = self.nodes.get_mut(wire) {
            node.addresses.release(address);
        }
        while self.nodes.get(wire).is_some_and(|node| node.addresses.all().is_empty() && node.children == 0) {
            self.nodes.remove(wire);
            let Some(above) = parent(wire).filter(|above| !self.is_apex(above)) else { return };
            if let Some(node) = self.nodes.get_mut(above) {
                node.children -= 1;
            }
            wire = above;
        }
    }

    fn is_apex(&self, wire: &[u8]) -> bool {
        self.domains.iter().any(|domain| domain.wire() == wire)
    }
}

/// The end of `wire` that begins at a label and has this length.
fn suffix_of_length(wire: &[u8], length: usize) -> Option<&[u8]> {
    std::iter::successors(Some(wire), |wire| parent(wire)).find(|suffix| suffix.len() <= length)
}

/// The networks of 4, 8, ... 28 bits that the address is in.
fn prefixes(address: Ipv4Addr) -> impl Iterator<Item = Ipv4Net> {
    (4..32).step_by(4).filter_map(move |length| Ipv4Net::new(address, length).ok()).map(|net| net.trunc())
}

#[cfg(test)]
mod tests;
