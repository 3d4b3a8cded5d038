//! Tests of what is read from upstreams' answers. The answers are made by hickory.

use std::net::Ipv4Addr;

use hickory_proto::op::{Edns as HickoryEdns, Message, OpCode, Query as HickoryQuery, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use proptest::prelude::*;

use super::*;
use crate::query::{Edns, IN};

fn query() -> Query {
    let name = WireName::read(b"\x01a\x07eXample\0", 0).unwrap();
    let edns = Some(Edns { size: 1232, dnssec_ok: false, asks_server: false });
    Query { id: 77, flags: 0x0100, name, lower: name.lower(), kind: kind::A, class: IN, edns }
}

fn name() -> Name {
    Name::from_ascii("a.example.").unwrap()
}

fn address(ttl: u32) -> Record {
    Record::from_rdata(name(), ttl, RData::A(A(Ipv4Addr::new(192, 0, 2, 1))))
}

fn soa(ttl: u32, minimum: u32) -> Record {
    let data = SOA::new(name(), name(), 1, 2, 3, 4, minimum);
    Record::from_rdata(Name::from_ascii("example.").unwrap(), ttl, RData::SOA(data))
}

fn message(answers: &[Record], authorities: &[Record], code: ResponseCode) -> Vec<u8> {
    let mut message = Message::response(1, OpCode::Query);
    message.metadata.response_code = code;
    message.metadata.authoritative = true;
    message.add_query(HickoryQuery::query(name(), RecordType::A));
    message.add_answers(answers.iter().cloned());
    message.add_authorities(authorities.iter().cloned());
    let mut edns = HickoryEdns::new();
    edns.set_max_payload(4096);
    edns.options_mut().insert(EdnsOption::Unknown(10, vec![7; 24]));
    edns.options_mut().insert(EdnsOption::Unknown(15, vec![0, 22]));
    message.set_edns(edns);
    message.to_vec().unwrap()
}

fn keep(answers: &[Record], authorities: &[Record], code: ResponseCode) -> Option<u64> {
    let mut bytes = message(answers, authorities, code);
    Shape::read(&mut bytes, &query()).unwrap().keep().map(|keep| keep.as_secs())
}

#[test]
fn the_least_ttl_counts() {
    assert_eq!(keep(&[address(60), address(30)], &[], ResponseCode::NoError), Some(30));
    assert_eq!(keep(&[address(60)], &[soa(20, 90)], ResponseCode::NoError), Some(20));
    assert_eq!(keep(&[address(1_000_000)], &[], ResponseCode::NoError), Some(86_400));
    assert_eq!(keep(&[address(60), address(0)], &[], ResponseCode::NoError), None);
    assert_eq!(keep(&[address(0x8000_0001)], &[], ResponseCode::NoError), None);
}

#[test]
fn negative_answers_are_kept_only_with_a_soa() {
    assert_eq!(keep(&[], &[soa(300, 40)], ResponseCode::NXDomain), Some(40));
    assert_eq!(keep(&[], &[soa(30, 400)], ResponseCode::NoError), Some(30));
    assert_eq!(keep(&[], &[], ResponseCode::NXDomain), None);
    assert_eq!(keep(&[], &[address(50)], ResponseCode::NoError), None);
    assert_eq!(keep(&[], &[soa(300, 40)], ResponseCode::ServFail), None);
    assert_eq!(keep(&[address(60)], &[], ResponseCode::BADVERS), None);
}

#[test]
fn an_answer_is_made_the_askers_own() {
    let query = query();
    let mut bytes = message(&[address(60)], &[soa(30, 400)], ResponseCode::NoError);
    let shape = Shape::read(&mut bytes, &query).unwrap();
    let mut out = Vec::new();
    shape.write(&bytes, &query, 512, &mut out);
    let fresh = Message::from_vec(&out).unwrap();
    assert_eq!((fresh.metadata.id, fresh.metadata.authoritative), (77, true));
    assert_eq!(fresh.queries[0].name().to_string(), "a.eXample.");
    assert_eq!(fresh.answers[0].name.to_string(), "a.eXample.");
    let edns = fresh.edns.unwrap();
    assert_eq!(edns.max_payload(), OUR_SIZE);
    // The cookie was between the upstream and us; the explanation is for the client.
    assert!(edns.option(10.into()).is_none() && edns.option(15.into()).is_some());
    shape.grow_old(&bytes, Duration::from_secs(25), &mut out);
    let old = Message::from_vec(&out).unwrap();
    assert_eq!((old.answers[0].ttl, old.authorities[0].ttl, old.metadata.authoritative), (35, 5, false));
    let mut out = Vec::new();
    shape.write(&bytes, &query, 60, &mut out);
    shape.grow_old(&bytes, Duration::from_secs(25), &mut out);
    let cut = Message::from_vec(&out).unwrap();
    assert!(cut.metadata.truncation && cut.answers.is_empty() && cut.edns.is_some());
}

#[test]
fn answers_to_other_questions_are_known() {
    let good = message(&[address(60)], &[], ResponseCode::NoError);
    assert!(answers(&good, &query()));
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    assert!(!answers(&changed(2, 0), &query()), "a query");
    assert!(!answers(&changed(2, 0xa8), &query()), "an update's answer");
    assert!(!answers(&changed(13, b'b'), &query()), "another name");
    let kind_at = HEADER + query().name.len() + 1;
    assert!(!answers(&changed(kind_at, 28), &query()), "another type");
    assert!(!answers(&changed(kind_at + 2, 3), &query()), "another class");
    assert!(answers(&changed(13, b'A'), &query()), "another case");
}

proptest! {
    #[test]
    fn garbage_is_walked_without_panic(
        tail in prop::collection::vec(any::<u8>(), 0..200),
        counts in prop::collection::vec(any::<u8>(), 8),
    ) {
        let mut bytes = message(&[], &[], ResponseCode::NoError);
        bytes.truncate(HEADER + query().name.len() + 4);
        bytes[4..12].copy_from_slice(&counts);
        bytes.extend(tail);
        if let Some(shape) = Shape::read(&mut bytes, &query()) {
            let mut out = Vec::new();
            shape.write(&bytes, &query(), 4096, &mut out);
            shape.grow_old(&bytes, Duration::from_secs(9), &mut out);
        }
    }

    #[test]
    fn a_changed_byte_does_no_harm(place in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = message(&[address(60)], &[soa(30, 400)], ResponseCode::NoError);
        let at = place.index(bytes.len());
        bytes[at] = byte;
        answers(&bytes, &query());
        if let Some(shape) = Shape::read(&mut bytes, &query()) {
            let mut out = Vec::new();
            shape.write(&bytes, &query(), 4096, &mut out);
        }
    }
}
