//! Tests of what is ours and what the answer is.

use selvedge_registry::name::Name;
use selvedge_registry::record::{NamedPort, Record};
use selvedge_registry::table::Table;

use super::*;

const LISTEN: &str = "169.254.1.1:53";

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn table() -> Table {
    let mut table = Table::new(name("selvedge.internal")).with_shared_domain(name("marathon.mesos"));
    let record = |id: &str, address: [u8; 4], names: &[&str]| {
        Record::new(id, address.into(), names.iter().map(|text| name(text)).collect())
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
        Some(Answer::Derived(addresses, pool6)) => format!("{addresses:?} in {pool6}"),
        Some(Answer::Both(addresses, pool6)) => format!("{addresses:?} and in {pool6}"),
        Some(Answer::Loopback6) => "::1".to_owned(),
        Some(Answer::Pointer(name)) => name.to_string(),
        Some(Answer::Services(services, _)) => {
            services.iter().map(|one| format!("{}:{}", one.target, one.port)).collect::<Vec<_>>().join(" ")
        }
        Some(Answer::Apex { zone, soa, ns }) => format!("soa {soa} ns {ns} of {}", end(&zone)),
        Some(Answer::NoData(Some(zone))) => format!("nodata of {}", end(&zone)),
        Some(Answer::NxDomain(Some(zone))) => format!("nxdomain of {}", end(&zone)),
        Some(Answer::NoData(None)) => "nodata".to_owned(),
        Some(Answer::NxDomain(None)) => "nxdomain".to_owned(),
        Some(Answer::Unread { ours: true }) => "unread".to_owned(),
        Some(Answer::Unread { ours: false }) => "unread, or elsewhere".to_owned(),
    }
}

#[track_caller]
fn check(cases: &[(&str, u16, &str)]) {
    check_in(&table(), cases);
}

#[track_caller]
fn check_in(table: &Table, cases: &[(&str, u16, &str)]) {
    for (text, asked, want) in cases {
        assert_eq!(ask(table, "10.32.0.0/12", text, *asked), *want, "{text} {asked}");
    }
}

fn table6(pool6: &str) -> Table {
    table().with_pool6(pool6.parse().unwrap())
}

/// The reverse name of the first so many nibbles of an address.
fn ip6(address: &str, nibbles: usize) -> String {
    let address = address.parse::<std::net::Ipv6Addr>().unwrap();
    let digits = format!("{:032x}", address.to_bits());
    let labels: Vec<String> = digits[..nibbles].chars().rev().map(String::from).collect();
    format!("{}.ip6.arpa.", labels.join("."))
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
fn names_have_ipv6_addresses_too() {
    check_in(
        &table6("fd00:5::/64"),
        &[
            ("db.shop.selvedge.internal.", kind::A, "[10.32.5.7]"),
            ("db.shop.selvedge.internal.", kind::AAAA, "[10.32.5.7] in fd00:5::/64"),
            ("db.shop.selvedge.internal.", kind::ANY, "[10.32.5.7] and in fd00:5::/64"),
            ("db.shop.selvedge.internal.", kind::PTR, "nodata of selvedge.internal"),
            ("db-shop.marathon.mesos.", kind::AAAA, "[10.32.5.7] in fd00:5::/64"),
            ("odd.selvedge.internal.", kind::AAAA, "[172.16.0.9] in fd00:5::/64"),
            ("shop.selvedge.internal.", kind::AAAA, "nodata of selvedge.internal"),
            ("x.shop.selvedge.internal.", kind::AAAA, "nxdomain of selvedge.internal"),
            ("selvedge.internal.", kind::AAAA, "nodata of selvedge.internal"),
            ("db.", kind::AAAA, "[10.32.5.7] in fd00:5::/64"),
            ("shop.", kind::AAAA, "nodata"),
            ("nope.", kind::AAAA, "nxdomain"),
            ("localhost.", kind::AAAA, "::1"),
            ("example.com.", kind::AAAA, "elsewhere"),
        ],
    );
}

#[test]
fn addresses_of_the_ipv6_pool_are_never_forwarded() {
    let table = table6("fd00:5::/64");
    let ask = |address: &str, nibbles, asked| ask(&table, "10.32.0.0/12", &ip6(address, nibbles), asked);
    let apex = ip6("fd00:5::", 16).trim_end_matches('.').to_owned();
    let (nodata, nxdomain) = (format!("nodata of {apex}"), format!("nxdomain of {apex}"));
    assert_eq!(ask("fd00:5::a20:507", 32, kind::PTR), "db.shop.selvedge.internal.");
    assert_eq!(ask("fd00:5::a20:507", 32, kind::ANY), "db.shop.selvedge.internal.");
    assert_eq!(ask("fd00:5::a20:507", 32, kind::A), nodata);
    assert_eq!(ask("fd00:5::172.16.0.9", 32, kind::PTR), "odd.selvedge.internal.");
    assert_eq!(ask("fd00:5::a20:508", 32, kind::PTR), nxdomain);
    // All between the zone and an address exist, and nothing else does.
    for nibbles in 17..32 {
        assert_eq!(ask("fd00:5::a20:507", nibbles, kind::PTR), nodata, "{nibbles}");
    }
    for nibbles in 28..=32 {
        assert_eq!(ask("fd00:5::a21:507", nibbles, kind::PTR), nxdomain, "{nibbles}");
    }
    for nibbles in 17..=32 {
        assert_eq!(ask("fd00:5::1000:0:a20:507", nibbles, kind::PTR), nxdomain, "{nibbles}");
        assert_eq!(ask("fd00:6::a20:507", nibbles, kind::PTR), "elsewhere", "{nibbles}");
    }
    assert_eq!(ask("fd00:5::1:a20:507", 24, kind::PTR), nxdomain);
    assert_eq!(ask("fd00:5::", 16, kind::SOA), format!("soa true ns false of {apex}"));
    assert_eq!(ask("fd00:5::", 16, kind::PTR), nodata);
    assert_eq!(ask("fd00:5::", 15, kind::SOA), "elsewhere");
    check_in(&table, &[("ip6.arpa.", kind::SOA, "elsewhere"), ("ip6.internal.", kind::PTR, "elsewhere")]);
    // Without a pool none of it is ours.
    check(&[(&ip6("fd00:5::a20:507", 32), kind::PTR, "elsewhere")]);
}

#[test]
fn ipv6_pools_of_any_size_have_reverse_zones() {
    let ask = |pool6: &str, address: &str, nibbles, asked| {
        ask(&table6(pool6), "10.32.0.0/12", &ip6(address, nibbles), asked)
    };
    let of = |address: &str, nibbles| ip6(address, nibbles).trim_end_matches('.').to_owned();
    let apex = of("fd00:5:0:f::", 16);
    assert_eq!(ask("fd00:5:0:c::/62", "fd00:5:0:f::", 16, kind::A), format!("nodata of {apex}"));
    assert_eq!(ask("fd00:5:0:c::/62", "fd00:5:0:f::1", 32, kind::PTR), format!("nxdomain of {apex}"));
    assert_eq!(ask("fd00:5:0:c::/62", "fd00:5:0:b::1", 32, kind::PTR), "elsewhere");
    assert_eq!(ask("fd00:5:0:c::/62", "fd00:5:0:c::a20:507", 32, kind::PTR), "db.shop.selvedge.internal.");
    let apex = of("fd00:5::7:0:0", 24);
    assert_eq!(
        ask("fd00:5::7:0:0/96", "fd00:5::7:0:0", 24, kind::NS),
        format!("soa false ns true of {apex}")
    );
    assert_eq!(ask("fd00:5::7:0:0/96", "fd00:5::7:a20:507", 25, kind::A), format!("nodata of {apex}"));
    assert_eq!(ask("fd00:5::7:0:0/96", "fd00:5::7:f000:0", 25, kind::A), format!("nxdomain of {apex}"));
    assert_eq!(ask("fd00:5::7:0:0/96", "fd00:5::8:a20:507", 32, kind::PTR), "elsewhere");
    assert_eq!(ask("::/0", "::a20:507", 32, kind::PTR), "db.shop.selvedge.internal.");
    assert_eq!(ask("::/0", "::a20:507", 1, kind::PTR), "nodata of 0.ip6.arpa");
    assert_eq!(ask("::/0", "4000::1", 32, kind::PTR), "nxdomain of 4.ip6.arpa");
}

#[test]
fn what_is_no_nibble_is_no_address() {
    let table = table6("fd00:5::/64");
    let whole = ip6("fd00:5::a20:507", 32);
    let rest = whole.strip_prefix("7.").unwrap();
    let nxdomain = format!("nxdomain of {}", ip6("fd00:5::", 16).trim_end_matches('.'));
    for first in ["07", "g", "-", "_", "70", "7.7", "0.7", "lb._dns-sd._udp", "x.7", "7.x"] {
        let asked = format!("{first}.{rest}");
        assert_eq!(ask(&table, "10.32.0.0/12", &asked, kind::PTR), nxdomain, "{asked}");
    }
    // What is none within the zone's own name: not of the zone.
    for asked in [whole.replace("d.f.ip6", "0d.f.ip6"), whole.replace("d.f.ip6", "d.x.f.ip6")] {
        assert_eq!(ask(&table, "10.32.0.0/12", &asked, kind::PTR), "elsewhere", "{asked}");
    }
}

#[test]
fn what_may_exist_is_not_denied_while_records_are_missing() {
    let mut table = table6("fd00:5::/64");
    table.set_partial(true);
    check_in(
        &table,
        &[
            ("db.shop.selvedge.internal.", kind::A, "[10.32.5.7]"),
            ("db.shop.selvedge.internal.", kind::AAAA, "[10.32.5.7] in fd00:5::/64"),
            ("db.shop.selvedge.internal.", kind::PTR, "nodata of selvedge.internal"),
            ("x.shop.selvedge.internal.", kind::A, "unread"),
            ("x.shop.selvedge.internal.", kind::SOA, "unread"),
            ("x.marathon.mesos.", kind::AAAA, "unread"),
            // A container may have this name, but none can have other records than addresses.
            ("shop.selvedge.internal.", kind::A, "unread"),
            ("shop.selvedge.internal.", kind::AAAA, "unread"),
            ("shop.selvedge.internal.", kind::ANY, "unread"),
            ("shop.selvedge.internal.", kind::SOA, "nodata of selvedge.internal"),
            ("selvedge.internal.", kind::A, "[169.254.1.1]"),
            ("selvedge.internal.", kind::AAAA, "nodata of selvedge.internal"),
            ("db.", kind::A, "[10.32.5.7]"),
            ("shop.", kind::A, "unread"),
            ("nope.", kind::A, "unread, or elsewhere"),
            ("internal.", kind::A, "nodata"),
            ("localhost.", kind::A, "[127.0.0.1]"),
            ("com.", kind::NS, "elsewhere"),
            ("example.com.", kind::A, "elsewhere"),
            ("7.5.32.10.in-addr.arpa.", kind::PTR, "db.shop.selvedge.internal."),
            ("8.5.32.10.in-addr.arpa.", kind::PTR, "unread"),
            ("6.32.10.in-addr.arpa.", kind::PTR, "unread"),
            ("5.32.10.in-addr.arpa.", kind::PTR, "nodata of 32.10.in-addr.arpa"),
            ("40.10.in-addr.arpa.", kind::A, "nodata of 40.10.in-addr.arpa"),
            ("x.7.5.32.10.in-addr.arpa.", kind::PTR, "nxdomain of 32.10.in-addr.arpa"),
            ("8.0.16.172.in-addr.arpa.", kind::PTR, "elsewhere"),
        ],
    );
    let apex = ip6("fd00:5::", 16).trim_end_matches('.').to_owned();
    let ask6 = |address: &str, nibbles| ask(&table, "10.32.0.0/12", &ip6(address, nibbles), kind::PTR);
    assert_eq!(ask6("fd00:5::a20:507", 32), "db.shop.selvedge.internal.");
    assert_eq!(ask6("fd00:5::a20:508", 32), "unread");
    assert_eq!(ask6("fd00:5::a21:0", 28), "unread");
    assert_eq!(ask6("fd00:5::1:a20:507", 32), format!("nxdomain of {apex}"));
    // Without a pool no container has an IPv6 address.
    let mut without_pool = self::table();
    without_pool.set_partial(true);
    check_in(&without_pool, &[("shop.selvedge.internal.", kind::AAAA, "nodata of selvedge.internal")]);
    // An empty one denies nothing either, and a whole one all.
    let mut empty = Table::new(name("selvedge.internal"));
    empty.set_partial(true);
    check_in(&empty, &[("db.selvedge.internal.", kind::A, "unread")]);
    empty.set_partial(false);
    check_in(&empty, &[("db.selvedge.internal.", kind::A, "nxdomain of selvedge.internal")]);
}

#[test]
fn a_label_that_looks_like_the_end_of_a_name_is_none() {
    let zones = Zones::new(LISTEN.parse().unwrap(), "10.32.0.0/12".parse().unwrap());
    let table = table6("::/0");
    for wire in [
        &b"\x0bx\x09localhost\0"[..],
        b"\x017\x015\x0232\x0210\x09x\x07in-addr\x04arpa\0",
        b"\x010\x010\x05x\x03ip6\x04arpa\0",
    ] {
        let name = WireName::read(wire, 0).unwrap();
        assert!(matches!(zones.answer(&table, &name, kind::PTR), None | Some(Answer::NxDomain(None))));
    }
}

#[test]
fn services_are_found_by_their_ports_names() {
    let mut table = table();
    let mut record = Record::new("w", [10, 32, 5, 9].into(), vec![name("web"), name("www")]);
    record.traits.ports = [NamedPort::parse("http:8080/tcp").unwrap()].into();
    table.put(record);
    let zone = "nodata of selvedge.internal";
    let none = "nxdomain of selvedge.internal";
    check_in(
        &table,
        &[
            ("_http._tcp.web.selvedge.internal.", kind::SRV, "10-32-5-9.web.selvedge.internal.:8080"),
            ("_http._tcp.www.selvedge.internal.", kind::ANY, "10-32-5-9.www.selvedge.internal.:8080"),
            ("_http._tcp.web.selvedge.internal.", kind::A, zone),
            ("_http._udp.web.selvedge.internal.", kind::SRV, none),
            ("_ftp._tcp.web.selvedge.internal.", kind::SRV, none),
            ("_tcp.web.selvedge.internal.", kind::SRV, zone),
            ("web.selvedge.internal.", kind::SRV, zone),
            ("10-32-5-9.web.selvedge.internal.", kind::A, "[10.32.5.9]"),
            ("10-32-5-9.web.selvedge.internal.", kind::SRV, zone),
            ("10-32-5-7.web.selvedge.internal.", kind::A, none),
        ],
    );
}
