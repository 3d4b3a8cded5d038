//! Tests of what is ours and what the answer is.

use selvedge_registry::record::Record;

use super::*;

const LISTEN: &str = "169.254.1.1:53";

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn table() -> Table {
    let mut table = Table::new(name("selvedge.internal")).with_domain(name("marathon.mesos"));
    let record = |id: &str, address: [u8; 4], names: &[&str]| Record {
        id: id.to_owned(),
        address: address.into(),
        names: names.iter().map(|text| name(text)).collect(),
        upstreams: vec![],
    };
    table.put(record("a", [10, 32, 5, 7], &["db.shop", "db", "db-shop.marathon.mesos."]));
    table.put(record("b", [10, 47, 0, 1], &["localhost"]));
    table.put(record("c", [172, 16, 0, 9], &["odd"]));
    table
}

/// The answer in words.
fn ask(table: &Table, pool: &str, text: &str, asked: u16) -> String {
    let zones = Zones::new(LISTEN.parse().unwrap(), pool.parse().unwrap());
    let wire = name(text);
    let wire = WireName::read(wire.wire(), 0).unwrap();
    let end = |zone: &Apex| {
        let labels = wire_labels(&wire.wire()[wire.len() - zone..]);
        labels.map(|label| String::from_utf8(label.to_vec()).unwrap()).collect::<Vec<_>>().join(".")
    };
    match zones.answer(table, &wire, asked) {
        None => "elsewhere".to_owned(),
        Some(Answer::Addresses(addresses)) => format!("{addresses:?}"),
        Some(Answer::Loopback6) => "::1".to_owned(),
        Some(Answer::Pointer(name)) => name.to_string(),
        Some(Answer::Apex { zone, soa, ns }) => format!("soa {soa} ns {ns} of {}", end(&zone)),
        Some(Answer::NoData(Some(zone))) => format!("nodata of {}", end(&zone)),
        Some(Answer::NxDomain(Some(zone))) => format!("nxdomain of {}", end(&zone)),
        Some(Answer::NoData(None)) => "nodata".to_owned(),
        Some(Answer::NxDomain(None)) => "nxdomain".to_owned(),
    }
}

fn check(cases: &[(&str, u16, &str)]) {
    let table = table();
    for (text, asked, want) in cases {
        assert_eq!(ask(&table, "10.32.0.0/12", text, *asked), *want, "{text} {asked}");
    }
}

#[test]
fn names_of_ours() {
    check(&[
        ("db.shop.selvedge.internal.", kind::A, "[10.32.5.7]"),
        ("db.shop.selvedge.internal.", kind::ANY, "[10.32.5.7]"),
        ("db.shop.selvedge.internal.", kind::AAAA, "nodata of selvedge.internal"),
        ("shop.selvedge.internal.", kind::A, "nodata of selvedge.internal"),
        ("x.shop.selvedge.internal.", kind::A, "nxdomain of selvedge.internal"),
        ("x.db.shop.selvedge.internal.", kind::A, "nxdomain of selvedge.internal"),
        ("db-shop.marathon.mesos.", kind::A, "[10.32.5.7]"),
        ("db-shop.marathon.mesos.", kind::AAAA, "nodata of marathon.mesos"),
        ("leader.mesos.", kind::A, "elsewhere"),
        ("example.com.", kind::A, "elsewhere"),
        (".", kind::NS, "elsewhere"),
    ]);
}

#[test]
fn the_domain_itself() {
    check(&[
        ("selvedge.internal.", kind::SOA, "soa true ns false of selvedge.internal"),
        ("selvedge.internal.", kind::NS, "soa false ns true of selvedge.internal"),
        ("selvedge.internal.", kind::ANY, "soa true ns true of selvedge.internal"),
        ("selvedge.internal.", kind::A, "[169.254.1.1]"),
        ("selvedge.internal.", kind::AAAA, "nodata of selvedge.internal"),
    ]);
}

#[test]
fn addresses_of_the_pool_are_never_forwarded() {
    check(&[
        ("7.5.32.10.in-addr.arpa.", kind::PTR, "db.shop.selvedge.internal."),
        ("7.5.32.10.in-addr.arpa.", kind::A, "nodata of 32.10.in-addr.arpa"),
        ("8.5.32.10.in-addr.arpa.", kind::PTR, "nxdomain of 32.10.in-addr.arpa"),
        ("5.32.10.in-addr.arpa.", kind::PTR, "nodata of 32.10.in-addr.arpa"),
        ("6.32.10.in-addr.arpa.", kind::PTR, "nxdomain of 32.10.in-addr.arpa"),
        ("32.10.in-addr.arpa.", kind::SOA, "soa true ns false of 32.10.in-addr.arpa"),
        ("40.10.in-addr.arpa.", kind::A, "nodata of 40.10.in-addr.arpa"),
        ("lb._dns-sd._udp.0.0.32.10.in-addr.arpa.", kind::PTR, "nxdomain of 32.10.in-addr.arpa"),
        ("x.7.5.32.10.in-addr.arpa.", kind::PTR, "nxdomain of 32.10.in-addr.arpa"),
        ("07.5.32.10.in-addr.arpa.", kind::PTR, "nxdomain of 32.10.in-addr.arpa"),
        ("1.0.48.10.in-addr.arpa.", kind::PTR, "elsewhere"),
        ("10.in-addr.arpa.", kind::SOA, "elsewhere"),
        ("in-addr.arpa.", kind::SOA, "elsewhere"),
        ("9.0.16.172.in-addr.arpa.", kind::PTR, "odd.selvedge.internal."),
        ("9.0.16.172.in-addr.arpa.", kind::A, "elsewhere"),
        ("8.0.16.172.in-addr.arpa.", kind::PTR, "elsewhere"),
        ("1.1.254.169.in-addr.arpa.", kind::PTR, "selvedge.internal."),
    ]);
}

#[test]
fn pools_of_any_size_have_reverse_zones() {
    let table = table();
    let ask = |pool, text| ask(&table, pool, text, kind::PTR);
    assert_eq!(ask("10.0.0.0/8", "1.2.3.10.in-addr.arpa."), "nxdomain of 10.in-addr.arpa");
    assert_eq!(ask("10.32.5.0/24", "8.5.32.10.in-addr.arpa."), "nxdomain of 5.32.10.in-addr.arpa");
    assert_eq!(ask("10.32.5.0/26", "8.5.32.10.in-addr.arpa."), "nxdomain of 5.32.10.in-addr.arpa");
    assert_eq!(ask("10.32.5.0/26", "80.5.32.10.in-addr.arpa."), "elsewhere");
    assert_eq!(ask("10.32.5.9/12", "8.5.33.10.in-addr.arpa."), "nxdomain of 33.10.in-addr.arpa");
}

#[test]
fn names_of_one_label() {
    check(&[
        ("db.", kind::A, "[10.32.5.7]"),
        ("db.", kind::AAAA, "nodata"),
        ("shop.", kind::A, "nodata"),
        ("nope.", kind::A, "nxdomain"),
        ("internal.", kind::A, "nodata"),
        ("com.", kind::NS, "elsewhere"),
        ("db.", kind::DS, "elsewhere"),
        ("localhost.", kind::A, "[127.0.0.1]"),
        ("localhost.", kind::AAAA, "::1"),
        ("db.localhost.", kind::A, "[127.0.0.1]"),
        ("localhost.", kind::PTR, "nodata of localhost"),
        ("localhost.selvedge.internal.", kind::A, "[10.47.0.1]"),
    ]);
}

#[test]
fn a_label_that_looks_like_the_end_of_a_name_is_none() {
    let zones = Zones::new(LISTEN.parse().unwrap(), "10.32.0.0/12".parse().unwrap());
    let table = table();
    for wire in [&b"\x0bx\x09localhost\0"[..], b"\x017\x015\x0232\x0210\x09x\x07in-addr\x04arpa\0"] {
        let name = WireName::read(wire, 0).unwrap();
        assert!(matches!(zones.answer(&table, &name, kind::PTR), None | Some(Answer::NxDomain(None))));
    }
}
