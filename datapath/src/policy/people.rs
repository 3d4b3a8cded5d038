//! Which container has an address, or had it last: refusals are counted by address and shown by name, also when the caller has
//! ended.
//!
//! Must never blame the new owner of an address: what was counted for it is deleted when a container with another name gets
//! it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};

use selvedge_netsetup::address6;
use selvedge_registry::record::Record;
use selvedge_registry::table::Table;

/// How many ended containers are remembered.
const FORMER: usize = 4096;

/// Addresses and names that the table of names does not have, or not any more.
#[derive(Debug, Default)]
pub(super) struct People {
    /// Addresses on the engine's networks, each with the one on ours.
    aliases: HashMap<IpAddr, Ipv4Addr>,
    /// Containers of this host, by their ids.
    own: HashMap<String, (Ipv4Addr, String)>,
    former: HashMap<Ipv4Addr, String>,
    /// In the order in which they ended.
    ended: VecDeque<Ipv4Addr>,
    /// Former owners of addresses that were given out again, until their counts are deleted.
    reused: BTreeMap<Ipv4Addr, String>,
}

/// `TENANT/NAME`.
pub(super) fn called(record: &Record) -> String {
    let name = record.names.first().map(ToString::to_string).unwrap_or_default();
    format!("{}/{name}", record.tenant())
}

/// The tenant of `TENANT/NAME`.
pub(super) fn tenant(who: &str) -> &str {
    who.rsplit_once('/').map_or(who, |(tenant, _)| tenant)
}

impl People {
    /// A container of this host runs.
    pub(super) fn put(&mut self, record: &Record, aliases: &[IpAddr]) {
        self.came(record);
        self.own.insert(record.id.clone(), (record.address, called(record)));
        self.aliases.extend(aliases.iter().map(|alias| (*alias, record.address)));
    }

    /// A container runs, here or elsewhere.
    pub(super) fn came(&mut self, record: &Record) {
        if let Some(before) = self.former.remove(&record.address)
            && before != called(record)
        {
            self.reused.entry(record.address).or_insert(before);
        }
    }

    /// A container of this host has ended.
    pub(super) fn ended(&mut self, id: &str) {
        if let Some((address, who)) = self.own.remove(id) {
            self.remember(address, who);
        }
    }

    /// A container has ended, here or elsewhere.
    pub(super) fn gone(&mut self, record: &Record) {
        self.remember(record.address, called(record));
    }

    /// Notes the last owner of an address.
    pub(super) fn remember(&mut self, address: Ipv4Addr, who: String) {
        if self.former.insert(address, who).is_none() {
            self.ended.push_back(address);
        }
        while self.ended.len() > FORMER {
            let Some(oldest) = self.ended.pop_front() else { break };
            self.former.remove(&oldest);
        }
    }

    /// The owner of an address on our network or the engine's, or else the last one.
    pub(super) fn who(&self, table: &Table, address: IpAddr) -> Option<String> {
        let address = self.on_ours(table, address)?;
        let owner = || table.owner(address).map(called);
        self.reused.get(&address).cloned().or_else(owner).or_else(|| self.former.get(&address).cloned())
    }

    /// The last owner of an address that is free, with its address on our network.
    pub(super) fn former(&self, table: &Table, address: IpAddr) -> Option<(Ipv4Addr, String)> {
        let address = self.on_ours(table, address).filter(|address| table.owner(*address).is_none())?;
        self.former.get(&address).map(|who| (address, who.clone()))
    }

    /// The address on our network that stands for this one.
    fn on_ours(&self, table: &Table, address: IpAddr) -> Option<Ipv4Addr> {
        if let Some(ours) = self.aliases.get(&address) {
            return Some(*ours);
        }
        match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(address) => {
                let [.., a, b, c, d] = address.octets();
                table.pool6().is_some_and(|pool6| pool6.contains(&address)).then(|| Ipv4Addr::new(a, b, c, d))
            }
        }
    }

    /// All addresses whose counts may be a former owner's.
    pub(super) fn reused(&self, table: &Table) -> BTreeSet<IpAddr> {
        let aliases = self.aliases.iter().filter(|(_, ours)| self.reused.contains_key(ours));
        let mut all: BTreeSet<IpAddr> = aliases.map(|(alias, _)| *alias).collect();
        for address in self.reused.keys() {
            all.insert((*address).into());
            all.extend(table.pool6().map(|pool6| IpAddr::from(address6(pool6, *address))));
        }
        all
    }

    /// The counts of these addresses are deleted.
    pub(super) fn forgotten(&mut self, addresses: &BTreeSet<IpAddr>) {
        self.reused.retain(|address, _| !addresses.contains(&IpAddr::from(*address)));
    }
}

#[cfg(test)]
mod tests {
    use selvedge_registry::name::Name;
    use selvedge_registry::record::Traits;

    use super::*;

    fn record(id: &str, address: &str, name: &str) -> Record {
        let traits = Traits { tenant: Some("a/b".into()), ..Traits::default() };
        Record { traits, ..Record::new(id, address.parse().unwrap(), vec![Name::parse(name).unwrap()]) }
    }

    fn table() -> Table {
        Table::new(Name::parse("selvedge.internal").unwrap())
    }

    #[test]
    fn an_ended_container_is_known_until_another_one_has_its_address() {
        let (mut people, table) = (People::default(), table());
        let bridge: IpAddr = "172.17.0.2".parse().unwrap();
        people.put(&record("1", "10.32.0.1", "web"), &[bridge]);
        people.gone(&record("2", "10.32.9.1", "far"));
        people.ended("1");
        for (address, who) in [("10.32.0.1", "a/b/web"), ("172.17.0.2", "a/b/web"), ("10.32.9.1", "a/b/far")]
        {
            assert_eq!(people.who(&table, address.parse().unwrap()).as_deref(), Some(who));
        }
        assert_eq!(tenant("a/b/web"), "a/b");
        people.put(&record("3", "10.32.0.1", "web"), &[]);
        assert!(people.reused(&table).is_empty(), "it is the same one again");
        people.ended("3");
        people.put(&record("4", "10.32.0.1", "other"), &[]);
        let reused = people.reused(&table);
        assert_eq!(reused, ["10.32.0.1", "172.17.0.2"].map(|address| address.parse().unwrap()).into());
        let who = |people: &People| people.who(&table, bridge);
        assert_eq!(who(&people).as_deref(), Some("a/b/web"), "what is counted is still the former owner's");
        people.forgotten(&reused);
        assert_eq!(who(&people), None, "the table knows who it is");
    }

    #[test]
    fn the_memory_has_an_end() {
        let (mut people, table) = (People::default(), table());
        for number in 0..=4096_u32 {
            people.remember(Ipv4Addr::from(number), number.to_string());
        }
        assert_eq!(people.who(&table, Ipv4Addr::from(0).into()), None);
        assert_eq!(people.who(&table, Ipv4Addr::from(1).into()).as_deref(), Some("1"));
    }
}
