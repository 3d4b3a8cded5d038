//! All records of this host and its peers, indexed for what DNS asks: a name's addresses, an address's name, an asker's
//! own name servers. No lookup and no change may cost more because the table is large, or do I/O.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, RwLock};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::error::Error;
use crate::name::{Name, parent};
use crate::record::Record;

mod addresses;
mod choice;
pub mod pool6;
pub mod sight;
mod vips;

use addresses::Addresses;
pub(crate) use choice::chosen;
use vips::Listener;

/// The table as the writer of the names and the DNS thread share it. Both hold the lock for microseconds only.
pub type SharedTable = Arc<RwLock<Table>>;

/// What the table knows of a name.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// The name has these addresses: at least one, each once.
    Addresses(Cow<'a, [Ipv4Addr]>),
    /// The name has no address, but there are names below it, or it is a domain of ours: NODATA, not NXDOMAIN
    /// (RFC 8020).
    Empty,
    /// The name is in a domain of ours, and there is neither it nor anything below it.
    Missing,
    /// The name is in a domain of ours in which others have names too: what is not computed is theirs to know.
    Shared,
    /// The name is not ours to know.
    Outside,
}

/// Names and addresses of containers.
#[derive(Debug)]
pub struct Table {
    domains: Vec<Name>,
    records: HashMap<String, Record>,
    /// By the whole name's wire bytes; also holds the empty names between a domain and what is below it.
    nodes: HashMap<Box<[u8]>, Node>,
    /// Who has an address: one record, but for moments in which an address changes hands. The newest is last.
    by_address: HashMap<Ipv4Addr, Vec<String>>,
    /// How many records there are in 0.0.0.0/4, 10.0.0.0/8, 10.32.0.0/12 and so on: the empty names of the reverse
    /// trees, of which in-addr.arpa goes down by 8 bits and ip6.arpa by 4.
    by_prefix: HashMap<Ipv4Net, u32>,
    /// The ids of the records that stand behind virtual addresses.
    by_vip: BTreeSet<String>,
    listener: Listener,
    pool6: Option<Ipv6Net>,
    /// By their names; this host's own is empty.
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
    /// Only of names with a record that is unhealthy or exclusive.
    choice: Option<Box<choice::Choice>>,
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
            listener: Listener::default(),
            pool6: None,
            hosts: HashMap::new(),
            partial: false,
            isolated: false,
            version: 1,
        }
    }

    /// The same table that also knows absolute names within `domain` (`mesos` for the DNS style of Mesos), in which others
    /// have names too. To be called while the table is empty: names that were refused before stay refused.
    #[must_use]
    pub fn with_shared_domain(mut self, domain: Name) -> Self {
        self.domains.push(domain.into_absolute());
        self
    }

    /// The same table whose containers have IPv6 addresses too, as [`pool6::derived`] makes them. A network of more than
    /// 96 bits has no room for that, so the one of 96 bits around it is taken.
    #[must_use]
    pub fn with_pool6(mut self, pool6: Ipv6Net) -> Self {
        self.pool6 = Some(pool6::wide_enough(pool6));
        self
    }

    /// The network of the containers' IPv6 addresses, at most 96 bits long; nothing if they have none.
    #[must_use]
    pub fn pool6(&self) -> Option<Ipv6Net> {
        self.pool6
    }

    /// Says whether records are still missing, as when the other hosts' have not been read yet. It is no change of the
    /// records, so the version stays.
    pub fn set_partial(&mut self, partial: bool) {
        self.partial = partial;
    }

    /// Whether records are still missing: then a name that is not here may exist all the same. A new table is whole.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.partial
    }

    /// Says at which addresses the hosts themselves are found, by their names: `""` for this one.
    pub fn set_hosts(&mut self, hosts: HashMap<Box<str>, Ipv4Addr>) {
        self.hosts = hosts;
    }

    /// The address of the host on which a record's container runs.
    fn host_of(&self, record: &Record) -> Option<Ipv4Addr> {
        let host = record.id.split_once('/').map_or("", |(host, _)| host);
        self.hosts.get(host).copied()
    }

    /// Says whether an asker sees only whom it may call; see [`sight::Sight`].
    pub fn set_isolated(&mut self, isolated: bool) {
        self.isolated = isolated;
    }

    /// Whether an asker sees only whom it may call.
    #[must_use]
    pub fn is_isolated(&self) -> bool {
        self.isolated
    }

    /// The domain of relative names, absolute itself.
    #[must_use]
    pub fn domain(&self) -> &Name {
        &self.domains[0]
    }

    /// A number that grows with each change: the serial of our SOA.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Puts a record in, in place of the one of the same id. Names that cannot be in the table are left out and told in
    /// the answer, so that one bad name does not cost a container the others. The same record again changes nothing.
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

    /// Takes the record of this id out; false if there is none.
    pub fn remove(&mut self, id: &str) -> bool {
        let was_behind = self.by_vip.contains(id);
        let removed = self.take_out(id);
        self.version += u64::from(removed);
        self.listener.tell(was_behind);
        removed
    }

    /// The record of this id.
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

    /// The domain of ours that the name (absolute, wire bytes in lower case) is in; the longest if several are.
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

    /// The absolute primary name of who has the address.
    #[must_use]
    pub fn reverse(&self, address: Ipv4Addr) -> Option<Name> {
        let record = self.owner(address)?;
        record.names.iter().find_map(|name| self.absolute(name).ok())
    }

    /// Whether anybody has an address in this network, the length of which must be a multiple of 4 bits.
    #[must_use]
    pub fn any_within(&self, network: Ipv4Net) -> bool {
        match network.prefix_len() {
            0 => !self.is_empty(),
            32 => self.by_address.contains_key(&network.addr()),
            _ => self.by_prefix.contains_key(&network.trunc()),
        }
    }

    /// The name servers that the user gave to the container with this address; empty when there are none.
    #[must_use]
    pub fn upstreams(&self, asker: Ipv4Addr) -> &[SocketAddr] {
        self.owner(asker).map_or(&[], |record| &record.upstreams)
    }

    /// The record that has the address; the one that came last, if two claim it.
    #[must_use]
    pub fn owner(&self, address: Ipv4Addr) -> Option<&Record> {
        self.records.get(self.by_address.get(&address)?.last()?)
    }

    fn absolute(&self, name: &Name) -> Result<Name, Error> {
        let whole = name.within(self.domain())?;
        // The domain itself is not a container's to take.
        let inside = self.domain_of(whole.wire()).is_some_and(|domain| *domain != whole);
        if inside {
            Ok(whole)
        } else {
            Err(Error::OutsideDomain { name: whole.to_string(), domain: self.domain().to_string() })
        }
    }

    /// The record's names, absolute, each once, and what is wrong with the others.
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
        // Who has both the name and the address as well keeps them: while an address changes hands, mostly.
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

    /// Adds the address to the name, and makes the name and the empty ones above it where they are not there.
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

    /// Takes the address from the name, and the name and the empty ones above it away if nothing is left of them.
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
