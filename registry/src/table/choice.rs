//! Which of a name's addresses are answered: all of them, except for health, and for names that only one container may
//! have.
//!
//! Decided when a record comes or goes, never at a lookup. Must give the same result on every host, in whatever order
//! the records came; so it does not use ids, which a container's own host writes differently from the others.

use std::net::Ipv4Addr;

use super::answered::chosen;
use super::{Node, Table};
use crate::name::Name;
use crate::record::{Record, Traits};

impl Traits {
    /// Whether the record affects what its names are answered with.
    pub(super) fn is_special(&self) -> bool {
        self.unhealthy || self.exclusive
    }
}

impl Node {
    /// The answered addresses.
    pub(super) fn answered(&self) -> &[Ipv4Addr] {
        let chosen = self.choice.as_ref().and_then(|choice| choice.chosen.as_deref());
        chosen.unwrap_or_else(|| self.addresses.all())
    }
}

impl Table {
    /// A record with this name was added (`more`) or removed: counts it if it is special, and chooses again.
    pub(super) fn choose(&mut self, name: &Name, special: bool, more: bool) {
        let Some(node) = self.nodes.get_mut(name.wire()) else { return };
        if special {
            let count = &mut node.choice.get_or_insert_default().special;
            *count = if more { *count + 1 } else { count.saturating_sub(1) };
        }
        // Usually there is nothing to choose.
        if node.choice.as_ref().is_none_or(|choice| choice.special == 0) {
            node.choice = None;
            return;
        }
        let chosen = chosen(&self.holders(name));
        let Some(node) = self.nodes.get_mut(name.wire()) else { return };
        let fewer = chosen.len() < node.addresses.all().len();
        node.choice.get_or_insert_default().chosen = fewer.then(|| chosen.into());
    }

    /// The records with the name (absolute), in no order.
    fn holders(&self, name: &Name) -> Vec<&Record> {
        let addresses = self.nodes.get(name.wire()).map_or(&[][..], |node| node.addresses.all());
        let ids = addresses.iter().filter_map(|address| self.by_address.get(address)).flatten();
        let has = |record: &&Record| record.names.iter().any(|own| self.absolute(own).as_ref() == Ok(name));
        ids.filter_map(|id| self.records.get(id)).filter(has).collect()
    }

    /// The names meant for one container that several have, with the ids of those.
    #[must_use]
    pub fn doubles(&self) -> Vec<(Name, Vec<String>)> {
        let exclusive = self.records.values().filter(|record| record.traits.exclusive);
        let mut names: Vec<Name> =
            exclusive.flat_map(|record| &record.names).filter_map(|name| self.absolute(name).ok()).collect();
        names.sort_unstable();
        names.dedup();
        let ids = |name: &Name| {
            let mut ids: Vec<String> = self.holders(name).iter().map(|record| record.id.clone()).collect();
            ids.sort_unstable();
            ids
        };
        names
            .into_iter()
            .map(|name| (ids(&name), name))
            .filter(|(ids, _)| ids.len() > 1)
            .map(|(ids, name)| (name, ids))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Found;
    use super::*;

    fn record(last: u8, name: &str, traits: Traits) -> Record {
        let address = Ipv4Addr::new(10, 32, 0, last);
        Record { traits, ..Record::new(format!("h/{last}"), address, vec![Name::parse(name).unwrap()]) }
    }

    fn table() -> Table {
        Table::new(Name::parse("d").unwrap())
    }

    fn answered(table: &Table, name: &str) -> Vec<u8> {
        let name = Name::parse(&format!("{name}.d.")).unwrap();
        let Found::Addresses(found) = table.lookup(name.wire()) else { return Vec::new() };
        let mut last: Vec<u8> = found.iter().map(|address| address.octets()[3]).collect();
        last.sort_unstable();
        last
    }

    fn ill() -> Traits {
        Traits { unhealthy: true, ..Traits::default() }
    }

    fn alone(since: u64) -> Traits {
        Traits { exclusive: true, since, ..Traits::default() }
    }

    #[test]
    fn the_unhealthy_are_left_out_while_there_is_a_healthy_one() {
        let mut table = table();
        table.put(record(1, "web", ill()));
        assert_eq!(answered(&table, "web"), [1], "better than nothing");
        table.put(record(2, "web", Traits::default()));
        assert_eq!(answered(&table, "web"), [2]);
        table.put(record(1, "web", Traits::default()));
        assert_eq!(answered(&table, "web"), [1, 2]);
        table.put(record(2, "web", ill()));
        assert_eq!(answered(&table, "web"), [1]);
        table.remove("h/1");
        assert_eq!(answered(&table, "web"), [2]);
    }

    #[test]
    fn of_exclusive_ones_the_newest_healthy_one_is_answered() {
        let mut table = table();
        table.put(record(1, "db", alone(100)));
        table.put(record(2, "db", alone(200)));
        assert_eq!(answered(&table, "db"), [2]);
        assert_eq!(table.doubles(), [(Name::parse("db.d.").unwrap(), vec!["h/1".into(), "h/2".into()])]);
        table.put(record(2, "db", Traits { unhealthy: true, ..alone(200) }));
        assert_eq!(answered(&table, "db"), [1]);
        table.put(record(1, "db", Traits { unhealthy: true, ..alone(100) }));
        assert_eq!(answered(&table, "db"), [2]);
        table.remove("h/2");
        assert_eq!(answered(&table, "db"), [1]);
        assert!(table.doubles().is_empty());
    }

    fn arbitrary_record() -> impl Strategy<Value = Record> {
        let traits = (any::<bool>(), prop::bool::weighted(0.2), 0_u64..4);
        (1_u8..6, "[ab]", traits).prop_map(|(last, name, (unhealthy, exclusive, since))| {
            record(last, &name, Traits { unhealthy, exclusive, since, ..Traits::default() })
        })
    }

    proptest! {
        #[test]
        fn the_order_in_which_records_came_does_not_matter(
            steps in prop::collection::vec((arbitrary_record(), prop::bool::weighted(0.3)), 0..40),
        ) {
            let mut table = table();
            for (record, gone) in steps {
                if gone { _ = table.remove(&record.id) } else { _ = table.put(record) }
                let mut rebuilt = self::table();
                let mut all: Vec<Record> = table.iter().cloned().collect();
                all.sort_by(|a, b| b.id.cmp(&a.id));
                all.into_iter().for_each(|record| _ = rebuilt.put(record));
                for name in ["a", "b"] {
                    prop_assert_eq!(answered(&table, name), answered(&rebuilt, name));
                }
            }
        }
    }
}
