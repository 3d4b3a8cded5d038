//! Tests of the short way, above all that it agrees with the long one.

use std::collections::HashSet;
use std::net::IpAddr;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, Record as HickoryRecord};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use proptest::prelude::*;
use selvedge_registry::record::Record;
use selvedge_registry::table::Table;

use super::*;
use crate::general;
use crate::query::Transport;
use crate::zone::zones::Zones;

fn table() -> Table {
    table_with(Some("fd00:5::/64"), false)
}

fn table_with(pool6: Option<&str>, partial: bool) -> Table {
    let mut table = Table::new(Name::parse("selvedge.internal").unwrap());
    if let Some(pool6) = pool6 {
        table = table.with_pool6(pool6.parse().unwrap());
    }
    table.set_partial(partial);
    for last in 1..=90 {
        let names = ["web", "db.shop", &format!("n{last}")].map(|text| Name::parse(text).unwrap());
        // All share `web`, a few `db.shop`.
        let names =
            names.into_iter().enumerate().filter(|(place, _)| *place != 1 || last < 4).map(|(_, name)| name);
        let address = Ipv4Addr::new(10, 32, 0, last);
        table.put(Record::new(last.to_string(), address, names.collect()));
    }
    table
}

fn zones() -> Zones {
    Zones::new("169.254.1.1:53".parse().unwrap(), "10.32.0.0/12".parse().unwrap())
}

fn terms(table: &Table) -> Terms<'_> {
    Terms { ttl: 5, negative_ttl: 3, serial: 7, domain: table.domain() }
}

/// A query as bytes.
fn query(id: u16, flags: u16, name: &[u8], kind: u16, class: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_header(&mut bytes, id, flags, [1, 0, 0, 0]);
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&class.to_be_bytes());
    bytes
}

fn with_opt(mut bytes: Vec<u8>, opt: Option<(u16, u8, u8, Vec<u8>)>) -> Vec<u8> {
    let Some((size, version, flags, data)) = opt else { return bytes };
    bytes[11] = 1;
    bytes.extend_from_slice(&[0, 0, 41]);
    bytes.extend_from_slice(&size.to_be_bytes());
    bytes.extend_from_slice(&[0, version, flags, 0]);
    bytes.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(&data);
    bytes
}

/// A name as text, its case mixed by `capitals`, as wire bytes.
fn wire(text: &str, capitals: u64) -> Vec<u8> {
    let mut bytes = Name::parse(text).unwrap().into_absolute().wire().to_vec();
    for (place, byte) in bytes.iter_mut().enumerate() {
        if capitals >> (place % 64) & 1 == 1 {
            byte.make_ascii_uppercase();
        }
    }
    bytes
}

fn arbitrary_name() -> impl Strategy<Value = Vec<u8>> {
    let texts = prop::sample::select(vec![
        "web.selvedge.internal",
        "db.shop.selvedge.internal",
        "shop.selvedge.internal",
        "n7.selvedge.internal",
        "nope.selvedge.internal",
        "selvedge.internal",
        "7.0.32.10.in-addr.arpa",
        "200.0.32.10.in-addr.arpa",
        "0.32.10.in-addr.arpa",
        "32.10.in-addr.arpa",
        "7.0.0.0.0.2.a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.5.0.0.0.0.0.d.f.ip6.arpa",
        "f.f.0.0.0.2.a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.5.0.0.0.0.0.d.f.ip6.arpa",
        "0.a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.5.0.0.0.0.0.d.f.ip6.arpa",
        "0.0.0.0.0.0.0.0.5.0.0.0.0.0.d.f.ip6.arpa",
        "0.0.0.0.0.0.0.5.0.0.0.0.0.d.f.ip6.arpa",
        "localhost",
        "web",
        "internal",
        "com",
        "example.com",
        ".",
    ]);
    (texts, any::<u64>()).prop_map(|(text, capitals)| wire(text, capitals))
}

fn arbitrary_opt() -> impl Strategy<Value = Option<(u16, u8, u8, Vec<u8>)>> {
    let data = prop_oneof![
        3 => Just(vec![]),
        2 => Just([&[0, 10, 0, 8][..], &[1; 8]].concat()),
        1 => prop::collection::vec(any::<u8>(), 0..12),
    ];
    prop::option::of((any::<u16>(), prop_oneof![9 => Just(0u8), 1 => any::<u8>()], any::<u8>(), data))
}

fn arbitrary_query() -> impl Strategy<Value = Vec<u8>> {
    let kinds = prop_oneof![
        9 => prop::sample::select(vec![kind::A, kind::AAAA, kind::PTR, kind::SOA, kind::NS, kind::ANY, 16, 33]),
        1 => any::<u16>(),
    ];
    let classes = prop_oneof![9 => Just(IN), 1 => any::<u16>()];
    let flags = any::<u16>().prop_map(|flags| flags & !(flag::RESPONSE | flag::OPCODE));
    (any::<u16>(), flags, arbitrary_name(), kinds, classes, arbitrary_opt())
        .prop_map(|(id, flags, name, kind, class, opt)| with_opt(query(id, flags, &name, kind, class), opt))
}

fn decode(bytes: &[u8]) -> Message {
    let mut decoder = BinDecoder::new(bytes);
    let message = Message::read(&mut decoder).unwrap();
    assert!(decoder.is_empty());
    message
}

/// The records with their order taken away, and the case of names in their data.
fn sorted(records: &[HickoryRecord]) -> Vec<String> {
    let mut lines: Vec<String> = records
        .iter()
        .map(|record| format!("{} {} {}", record.name, record.ttl, record.data.to_string().to_lowercase()))
        .collect();
    lines.sort();
    lines
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Both readers see the same query, both writers give the same answer.
    #[test]
    fn the_short_way_agrees_with_the_long_one(
        bytes in arbitrary_query(),
        tcp in any::<bool>(),
        pool6 in prop::sample::select(vec![Some("fd00:5::/64"), Some("fd00:5::/96"), None]),
        partial in any::<bool>(),
    ) {
        let Some(query) = read(&bytes) else { return Ok(()) };
        let general::Read::Query(same) = general::read(&bytes) else {
            return Err(TestCaseError::fail("only the short way takes it"));
        };
        prop_assert_eq!(query, *same);
        let (table, zones) = (table_with(pool6, partial), zones());
        let Some(answer) = zones.answer(&table, &query.lower, query.kind) else { return Ok(()) };
        let limit = query.limit(if tcp { Transport::Tcp } else { Transport::Udp });
        let long = general::write(&query, &answer, &terms(&table), limit).unwrap();
        prop_assert!(long.len() <= limit);
        let mut short = Vec::new();
        if !write(&query, &answer, &terms(&table), limit, &mut short) {
            return Ok(());
        }
        prop_assert!(short.len() <= limit);
        let (short, long) = (decode(&short), decode(&long));
        prop_assert_eq!(short.metadata, long.metadata);
        prop_assert_eq!(&short.queries, &long.queries);
        prop_assert!(short.queries[0].name().eq_case(long.queries[0].name()));
        prop_assert_eq!(&short.edns, &long.edns);
        prop_assert_eq!(short.answers.len(), long.answers.len());
        if !short.metadata.truncation {
            prop_assert_eq!(sorted(&short.answers), sorted(&long.answers));
        }
        prop_assert_eq!(sorted(&short.authorities), sorted(&long.authorities));
    }

    #[test]
    fn garbage_is_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = read(&bytes);
        if bytes.len() >= HEADER {
            general::read(&bytes);
        }
    }

    #[test]
    fn broken_queries_are_read_without_panic(
        mut bytes in arbitrary_query(),
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let at = place.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(HEADER + cut.index(bytes.len() - HEADER + 1));
        if let (Some(short), general::Read::Query(long)) = (read(&bytes), general::read(&bytes)) {
            prop_assert_eq!(short, *long);
        }
    }
}

/// Asks for the 90 addresses of `web` where `most` have room, 500 times.
fn addresses_in_any_order(asked: u16, most: usize) -> HashSet<IpAddr> {
    let (table, zones) = (table(), zones());
    let bytes = query(1, 0, &wire("web.selvedge.internal", 0), asked, IN);
    let query = read(&bytes).unwrap();
    let answer = zones.answer(&table, &query.lower, query.kind).unwrap();
    let (mut firsts, mut seen) = (HashSet::new(), HashSet::new());
    for _ in 0..500 {
        let mut out = Vec::new();
        assert!(write(&query, &answer, &terms(&table), 512, &mut out));
        let message = decode(&out);
        assert!(message.metadata.truncation && message.answers.len() == most);
        let addresses: Vec<IpAddr> = message
            .answers
            .iter()
            .map(|record| match &record.data {
                RData::A(address) => address.0.into(),
                RData::AAAA(address) => address.0.into(),
                other => panic!("{other}"),
            })
            .collect();
        firsts.insert(addresses[0]);
        seen.extend(addresses);
    }
    assert!(firsts.len() > 60, "{}", firsts.len());
    seen
}

#[test]
fn addresses_come_in_any_order_and_all_are_left_out_at_times() {
    let all: HashSet<IpAddr> = (1..=90).map(|last| [10, 32, 0, last].into()).collect();
    assert_eq!(addresses_in_any_order(kind::A, 29), all);
    let all = (1..=90).map(|last| [0xfd00, 5, 0, 0, 0, 0, 0x0a20, last].into());
    assert_eq!(addresses_in_any_order(kind::AAAA, 16), all.collect());
}

#[test]
fn ipv6_addresses_are_written_the_short_way_without_more_room() {
    let (table, zones) = (table(), zones());
    let bytes = query(1, 0, &wire("n7.selvedge.internal", 0), kind::AAAA, IN);
    let query = read(&bytes).unwrap();
    let answer = zones.answer(&table, &query.lower, query.kind).unwrap();
    let mut out = Vec::with_capacity(512);
    let room = out.as_ptr();
    assert!(write(&query, &answer, &terms(&table), 512, &mut out));
    assert_eq!(out.as_ptr(), room);
    assert_eq!(out[out.len() - 28..out.len() - 16], [0xc0, 12, 0, 28, 0, 1, 0, 0, 0, 5, 0, 16]);
    assert_eq!(out[out.len() - 16..], [0xfd, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 10, 32, 0, 7]);
}

#[test]
fn any_is_answered_with_the_addresses_of_both_kinds() {
    let (table, zones) = (table(), zones());
    let bytes = query(1, 0, &wire("n7.selvedge.internal", 0), kind::ANY, IN);
    let query = read(&bytes).unwrap();
    let answer = zones.answer(&table, &query.lower, query.kind).unwrap();
    let message = decode(&general::write(&query, &answer, &terms(&table), 512).unwrap());
    let want = ["n7.selvedge.internal. 5 10.32.0.7", "n7.selvedge.internal. 5 fd00:5::a20:7"];
    assert_eq!(sorted(&message.answers), want);
}

#[test]
fn what_is_not_read_yet_is_a_failure_without_soa() {
    let (table, zones) = (table_with(None, true), zones());
    let bytes = query(1, 0x0100, &wire("nope.selvedge.internal", 0), kind::A, IN);
    let query = read(&bytes).unwrap();
    let answer = zones.answer(&table, &query.lower, query.kind).unwrap();
    let mut out = Vec::new();
    assert!(write(&query, &answer, &terms(&table), 512, &mut out));
    let message = decode(&out);
    assert_eq!(message.metadata.response_code, ResponseCode::ServFail);
    assert!(!message.metadata.authoritative && message.metadata.recursion_available);
    assert!(message.answers.is_empty() && message.authorities.is_empty());
}

#[test]
fn a_negative_answer_has_the_soa() {
    let (table, zones) = (table(), zones());
    let bytes = query(1, 0x0100, &wire("NoPe.selvedge.internal", 0x55), kind::A, IN);
    let query = read(&bytes).unwrap();
    let mut out = Vec::new();
    let answer = zones.answer(&table, &query.lower, query.kind).unwrap();
    assert!(write(&query, &answer, &terms(&table), 512, &mut out));
    let message = decode(&out);
    assert_eq!(message.metadata.response_code, ResponseCode::NXDomain);
    assert!(message.metadata.authoritative && message.metadata.recursion_desired);
    let RData::SOA(soa) = &message.authorities[0].data else { panic!() };
    assert_eq!((soa.minimum, soa.serial), (3, 7));
    assert_eq!(soa.rname.to_string(), "hostmaster.selvedge.internal.");
    assert_eq!(message.authorities[0].name.to_lowercase().to_string(), "selvedge.internal.");
}

#[test]
fn what_is_no_ordinary_query_is_left_to_the_long_way() {
    let name = wire("web.selvedge.internal", 0);
    let plain = query(1, 0, &name, kind::A, IN);
    assert!(read(&plain).is_some());
    assert!(read(&with_opt(plain.clone(), Some((1232, 0, 0x80, vec![])))).unwrap().edns.unwrap().dnssec_ok);
    assert!(read(&with_opt(plain.clone(), Some((1232, 1, 0, vec![])))).is_none());
    assert!(read(&[&plain[..], b"x"].concat()).is_none());
    assert!(read(&plain[..plain.len() - 1]).is_none());
    assert!(read(&query(1, flag::RESPONSE, &name, kind::A, IN)).is_none());
    assert!(read(&query(1, 0x2800, &name, kind::A, IN)).is_none());
    assert!(read(&query(1, 0, &name, kind::A, 3)).is_none());
    assert!(read(&query(1, 0, b"\xc0\x0c", kind::A, IN)).is_none());
}
