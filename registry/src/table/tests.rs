//! Tests of the table, against a model that searches through all records.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn table() -> Table {
    Table::new(name("selvedge.internal"))
}

fn within(table: &Table, network: &str) -> bool {
    table.any_within(network.parse().unwrap())
}

fn record(id: &str, last: u8, names: &[&str]) -> Record {
    Record::new(id, Ipv4Addr::new(10, 32, 0, last), names.iter().map(|text| name(text)).collect())
}

#[test]
fn names_above_a_name_exist_and_go_with_it() {
    let mut table = table();
    assert_eq!(table.put(record("a", 1, &["db.eu.shop"])), []);
    assert_eq!(
        table.lookup(name("db.eu.shop.selvedge.internal.").wire()),
        Found::Addresses(vec![Ipv4Addr::new(10, 32, 0, 1)].into())
    );
    assert_eq!(table.lookup(name("eu.shop.selvedge.internal.").wire()), Found::Empty);
    assert_eq!(table.lookup(name("shop.selvedge.internal.").wire()), Found::Empty);
    assert_eq!(table.lookup(name("selvedge.internal.").wire()), Found::Empty);
    assert_eq!(table.lookup(name("x.db.eu.shop.selvedge.internal.").wire()), Found::Missing);
    assert_eq!(table.lookup(name("internal.").wire()), Found::Outside);
    assert!(table.is_above_domain(name("internal.").wire()));
    assert!(!table.is_above_domain(name("selvedge.internal.").wire()));
    assert!(!table.is_above_domain(name("external.").wire()));
    assert_eq!(table.lookup(name("db.eu.shop.xselvedge.internal.").wire()), Found::Outside);
    assert!(table.remove("a") && !table.remove("a"));
    assert_eq!(table.lookup(name("shop.selvedge.internal.").wire()), Found::Missing);
    assert!(table.nodes.is_empty() && table.by_address.is_empty() && table.by_prefix.is_empty());
}

#[test]
fn two_may_share_a_name_and_an_address_may_change_hands() {
    let mut table = table();
    table.put(record("a", 1, &["web", "one"]));
    table.put(record("b", 2, &["web", "two"]));
    let Found::Addresses(both) = table.lookup(name("web.selvedge.internal.").wire()) else { panic!() };
    assert_eq!(both.len(), 2);
    table.put(record("c", 1, &["three"]));
    assert_eq!(table.reverse(Ipv4Addr::new(10, 32, 0, 1)), Some(name("three.selvedge.internal.")));
    table.remove("a");
    assert_eq!(table.reverse(Ipv4Addr::new(10, 32, 0, 1)), Some(name("three.selvedge.internal.")));
    table.remove("c");
    assert_eq!(table.reverse(Ipv4Addr::new(10, 32, 0, 1)), None);
    for network in ["0.0.0.0/0", "10.0.0.0/8", "10.32.0.0/16", "10.32.0.0/20", "10.32.0.0/28", "10.32.0.2/32"]
    {
        assert!(within(&table, network), "{network}");
    }
    for network in ["16.0.0.0/4", "10.33.0.0/16", "10.32.16.0/20", "10.32.0.16/28", "10.32.0.1/32"] {
        assert!(!within(&table, network), "{network}");
    }
    table.remove("b");
    assert!(!within(&table, "0.0.0.0/0") && !within(&table, "0.0.0.0/4"));
}

#[test]
fn an_ipv6_address_is_the_pool_and_the_ipv4_address() {
    assert_eq!(table().pool6(), None);
    let derived = |network: &str| {
        let pool6 = table().with_pool6(network.parse().unwrap()).pool6().unwrap();
        (pool6.to_string(), pool6::derived(pool6, Ipv4Addr::new(10, 32, 0, 1)).to_string())
    };
    let both = |pool6: &str, address: &str| (pool6.to_owned(), address.to_owned());
    assert_eq!(derived("fd00:5::/64"), both("fd00:5::/64", "fd00:5::a20:1"));
    assert_eq!(derived("fd00:5::7:0:9/64"), both("fd00:5::/64", "fd00:5::a20:1"));
    assert_eq!(derived("fd00:5::7:0:0/96"), both("fd00:5::7:0:0/96", "fd00:5::7:a20:1"));
    assert_eq!(derived("fd00:5::7:ffff:ffff/112"), both("fd00:5::7:0:0/96", "fd00:5::7:a20:1"));
    assert_eq!(derived("::/0"), both("::/0", "::a20:1"));
}

#[test]
fn what_is_missing_is_no_record() {
    let mut table = table();
    table.put(record("a", 1, &["web"]));
    let before = table.version();
    assert!(!table.is_partial());
    table.set_partial(true);
    assert!(table.is_partial());
    assert_eq!(table.version(), before);
    table.set_partial(false);
    assert!(!table.is_partial());
}

#[test]
fn a_record_of_another_host_is_one_like_any_other() {
    let mut table = table();
    // The same container id on two hosts: two records.
    table.put(record("0a1b", 1, &["web"]));
    table.put(record("host-b.example/0a1b", 2, &["web", "there"]));
    table.put(record("Host C/not hexadecimal", 2, &["late"]));
    assert_eq!(table.len(), 3);
    let Found::Addresses(both) = table.lookup(name("web.selvedge.internal.").wire()) else { panic!() };
    assert_eq!(both.len(), 2);
    assert_eq!(table.reverse(Ipv4Addr::new(10, 32, 0, 2)), Some(name("late.selvedge.internal.")));
    assert!(table.remove("Host C/not hexadecimal"));
    assert_eq!(table.reverse(Ipv4Addr::new(10, 32, 0, 2)), Some(name("web.selvedge.internal.")));
    assert!(table.remove("host-b.example/0a1b"));
    assert_eq!(table.get("0a1b"), table.owner(Ipv4Addr::new(10, 32, 0, 1)));
    assert_eq!(table.lookup(name("there.selvedge.internal.").wire()), Found::Missing);
}

#[test]
fn bad_names_cost_nothing_but_themselves() {
    let mut table = table().with_shared_domain(name("marathon.mesos"));
    let refused = table.put(record(
        "a",
        1,
        &["evil.example.", "selvedge.internal.", "good", "db-shop.marathon.mesos.", &["a"; 120].join(".")],
    ));
    assert_eq!(refused.len(), 3);
    assert!(matches!(table.lookup(name("good.selvedge.internal.").wire()), Found::Addresses(_)));
    assert!(matches!(table.lookup(name("db-shop.marathon.mesos.").wire()), Found::Addresses(_)));
    for others in ["x.marathon.mesos.", "marathon.mesos.", "x.db-shop.marathon.mesos."] {
        assert_eq!(table.lookup(name(others).wire()), Found::Shared, "{others}");
    }
    assert_eq!(table.lookup(name("evil.example.").wire()), Found::Outside);
    assert_eq!(table.reverse(Ipv4Addr::new(10, 32, 0, 1)), Some(name("good.selvedge.internal.")));
}

#[test]
fn the_version_counts_changes_only() {
    let mut table = table();
    let start = table.version();
    table.put(record("a", 1, &["web"]));
    table.put(record("a", 1, &["web"]));
    table.remove("b");
    assert_eq!(table.version(), start + 1);
    table.put(record("a", 1, &["web", "www"]));
    table.remove("a");
    assert_eq!(table.version(), start + 3);
}

#[derive(Debug, Clone)]
enum Step {
    Put(Record),
    Remove(String),
}

fn arbitrary_record() -> impl Strategy<Value = Record> {
    let id = "(h/)?[a-e]";
    let name = "[a-c](\\.[a-c]){0,3}".prop_map(|text| Name::parse(&text).unwrap());
    let servers = prop::collection::vec((1u8..3).prop_map(|n| SocketAddr::from(([9, 9, 9, n], 53))), 0..2);
    (id, 1u8..6, prop::collection::vec(name, 0..4), servers).prop_map(|(id, last, names, upstreams)| Record {
        upstreams,
        ..Record::new(id, Ipv4Addr::new(10, 32, last % 2, last), names)
    })
}

fn arbitrary_step() -> impl Strategy<Value = Step> {
    prop_oneof![3 => arbitrary_record().prop_map(Step::Put), 1 => "(h/)?[a-e]".prop_map(Step::Remove)]
}

/// What the table should answer for a name of the test's small alphabet, by looking through all records.
fn model(records: &BTreeMap<String, Record>, asked: &Name) -> Option<BTreeSet<Ipv4Addr>> {
    let domain = Name::parse("selvedge.internal").unwrap();
    let whole = asked.within(&domain).unwrap();
    let mut exists = false;
    let mut addresses = BTreeSet::new();
    for record in records.values() {
        for name in &record.names {
            let name = name.within(&domain).unwrap();
            exists |= name.is_within(&whole);
            if name == whole {
                addresses.insert(record.address);
            }
        }
    }
    exists.then_some(addresses)
}

proptest! {
    #[test]
    fn any_sequence_of_changes_equals_the_model(
        steps in prop::collection::vec(arbitrary_step(), 0..40),
        questions in prop::collection::vec("[a-c](\\.[a-c]){0,3}", 20),
    ) {
        let mut table = table();
        let mut records = BTreeMap::new();
        for step in steps {
            match step {
                Step::Put(record) => {
                    prop_assert_eq!(table.put(record.clone()), vec![]);
                    records.insert(record.id.clone(), record);
                }
                Step::Remove(id) => prop_assert_eq!(table.remove(&id), records.remove(&id).is_some()),
            }
        }
        prop_assert_eq!(table.len(), records.len());
        for question in &questions {
            let asked = Name::parse(question).unwrap();
            let whole = asked.within(table.domain()).unwrap();
            let found = match table.lookup(whole.wire()) {
                Found::Addresses(addresses) => {
                    let set: BTreeSet<Ipv4Addr> = addresses.iter().copied().collect();
                    prop_assert_eq!(set.len(), addresses.len());
                    Some(set)
                }
                Found::Empty => Some(BTreeSet::new()),
                Found::Missing => None,
                Found::Shared | Found::Outside => panic!("{whole} is in the domain"),
            };
            prop_assert_eq!(found, model(&records, &asked));
        }
        for last in 1u8..6 {
            let address = Ipv4Addr::new(10, 32, last % 2, last);
            let owners: Vec<&Record> = records.values().filter(|record| record.address == address).collect();
            prop_assert_eq!(table.owner(address).is_some(), !owners.is_empty());
            prop_assert!(table.owner(address).is_none_or(|owner| owners.contains(&owner)));
            for length in (0..=32).step_by(4) {
                let network = Ipv4Net::new(address, length).unwrap();
                let any = records.values().any(|record| network.contains(&record.address));
                prop_assert_eq!(table.any_within(network), any);
            }
        }
        for id in records.keys() {
            prop_assert!(table.remove(id));
        }
        prop_assert!(table.nodes.is_empty() && table.by_address.is_empty() && table.by_prefix.is_empty());
    }
}
