//! The general path: reads any query and writes any answer of ours, using hickory-proto. It must give the same answers
//! as `plain` where both can, and never panic on input from the network.

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::op::{Edns as HickoryEdns, Message, OpCode, Query as HickoryQuery, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsCode;
use hickory_proto::rr::rdata::{A, AAAA, NS, PTR, SOA, SRV};
use hickory_proto::rr::{DNSClass, Name as HickoryName, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, BinEncodable, BinEncoder};
use ipnet::Ipv6Net;
use rand::seq::SliceRandom;
use selvedge_registry::table::pool6;
use selvedge_registry::table::sight::Service;

use crate::identity;
use crate::plain::{HOSTMASTER, SOA_TIMES, Terms};
use crate::query::{Edns, IN, OUR_SIZE, PLAIN_SIZE, Query, WireName, flag, kind, put_header, rcode, word};
use crate::zone::answer::{Answer, Apex};
use crate::zone::wire::wire_labels;

/// A query, or the answer to a message that is not a valid query.
pub(crate) enum Read {
    Query(Box<Query>),
    /// The server is asked for its own name.
    Identity(Box<Query>),
    /// The message is unreadable or not for us: a complete answer that says so, with its code.
    Bad {
        reply: Vec<u8>,
        code: u16,
    },
}

/// BADVERS (RFC 6891 section 9) has the code 16: the header holds its lower bits, 0, and the OPT record the rest.
const BADVERS: u16 = 16;

/// Reads a message that is at least as long as a header and not a response.
pub(crate) fn read(message: &[u8]) -> Read {
    let (id, flags) = (word(message, 0).unwrap_or(0), word(message, 2).unwrap_or(0));
    if flags & flag::OPCODE != 0 {
        return bad(id, flags, rcode::NOTIMP);
    }
    let Some(parsed) = parse(message) else { return bad(id, flags, rcode::FORMERR) };
    if let Some(edns) = parsed.edns.as_ref().filter(|edns| edns.version() != 0) {
        return bad_version(&parsed, edns);
    }
    // A query has one question (RFC 9619). Records that some clients put into the other sections mean nothing to us.
    let [question] = &parsed.queries[..] else { return bad(id, flags, rcode::FORMERR) };
    let Some(name) = WireName::from_labels(question.name().iter()) else {
        return bad(id, flags, rcode::FORMERR);
    };
    let edns = parsed.edns.as_ref().map(|edns| Edns {
        size: edns.max_payload().max(PLAIN_SIZE),
        dnssec_ok: edns.flags().dnssec_ok,
        asks_server: edns.option(EdnsCode::NSID).is_some(),
    });
    let (kind, class) = (u16::from(question.query_type()), u16::from(question.query_class()));
    let query = Query { id, flags, name, lower: name.lower(), kind, class, edns };
    // Zone transfers, meta types (RFC 6895 section 3.1), and classes other than the Internet's.
    let meta = kind == 0 || kind == kind::OPT || (kind::TKEY..=kind::MAILA).contains(&kind);
    if identity::is_asked(&query.lower, kind, class) {
        return Read::Identity(Box::new(query));
    }
    if class != IN || meta {
        let mut reply = Vec::new();
        query.bare_reply(query.reply_flags(rcode::REFUSED), &mut reply);
        return Read::Bad { reply, code: rcode::REFUSED };
    }
    Read::Query(Box::new(query))
}

/// The message, if all of its bytes parse.
fn parse(message: &[u8]) -> Option<Message> {
    // hickory has places that "should never" panic: a datagram that reaches one must not end our thread.
    let parsed = std::panic::catch_unwind(|| {
        let mut decoder = BinDecoder::new(message);
        Message::read(&mut decoder).ok().filter(|_| decoder.is_empty())
    });
    parsed.ok().flatten()
}

/// An answer of just a header.
fn bad(id: u16, flags: u16, code: u16) -> Read {
    let kept = flags & (flag::OPCODE | flag::RECURSION_DESIRED | flag::CHECKING_DISABLED);
    let mut reply = Vec::new();
    put_header(&mut reply, id, flag::RESPONSE | flag::RECURSION_AVAILABLE | kept | code, [0; 4]);
    Read::Bad { reply, code }
}

fn bad_version(query: &Message, edns: &HickoryEdns) -> Read {
    let mut message = Message::response(query.metadata.id, OpCode::Query);
    message.metadata.recursion_desired = query.metadata.recursion_desired;
    message.metadata.recursion_available = true;
    message.metadata.response_code = ResponseCode::BADVERS;
    message.add_queries(query.queries.iter().cloned());
    message.set_edns(our_edns(edns.flags().dnssec_ok));
    Read::Bad { reply: encode(&message).unwrap_or_default(), code: BADVERS }
}

/// The answer as bytes, at most `limit`; none only if hickory cannot encode it, which no test has seen.
pub(crate) fn write(query: &Query, answer: &Answer<'_>, terms: &Terms<'_>, limit: usize) -> Option<Vec<u8>> {
    let owner = hickory_name(query.name.wire())?;
    let mut message = Message::response(query.id, OpCode::Query);
    message.metadata.recursion_desired = query.flags & flag::RECURSION_DESIRED != 0;
    message.metadata.checking_disabled = query.flags & flag::CHECKING_DISABLED != 0;
    message.metadata.recursion_available = true;
    // Without a zone this is only our opinion, see `zone::dotless`.
    message.metadata.authoritative =
        !matches!(answer, Answer::NoData(None) | Answer::NxDomain(None) | Answer::Unread { .. });
    message.metadata.response_code = match answer {
        Answer::NxDomain(_) => ResponseCode::NXDomain,
        Answer::Unread { .. } => ResponseCode::ServFail,
        _ => ResponseCode::NoError,
    };
    let mut question = HickoryQuery::query(owner.clone(), RecordType::from(query.kind));
    question.set_query_class(DNSClass::IN);
    message.add_query(question);
    message.answers = answers(query, &owner, answer, terms)?;
    if let Answer::Services(services, pool6) = answer {
        message.additionals = targets(services, *pool6, terms)?;
    }
    if let Answer::NoData(Some(zone)) | Answer::NxDomain(Some(zone)) = answer {
        message.add_authority(soa(query, *zone, terms)?);
    }
    if let Some(edns) = query.edns {
        message.set_edns(our_edns(edns.dnssec_ok));
    }
    fit(message, limit)
}

fn answers(
    query: &Query,
    owner: &HickoryName,
    answer: &Answer<'_>,
    terms: &Terms<'_>,
) -> Option<Vec<Record>> {
    let record = |data| Record::from_rdata(owner.clone(), terms.ttl, data);
    let a = |address: &Ipv4Addr| record(RData::A(A(*address)));
    let aaaa = |pool6, address: &Ipv4Addr| record(RData::AAAA(AAAA(pool6::derived(pool6, *address))));
    let mut records: Vec<Record> = match answer {
        Answer::Addresses(addresses) => addresses.iter().map(a).collect(),
        Answer::Derived(addresses, pool6) => addresses.iter().map(|one| aaaa(*pool6, one)).collect(),
        Answer::Both(addresses, pool6) => {
            addresses.iter().flat_map(|one| [a(one), aaaa(*pool6, one)]).collect()
        }
        Answer::Loopback6 => vec![record(RData::AAAA(AAAA(Ipv6Addr::LOCALHOST)))],
        Answer::Pointer(name) => vec![record(RData::PTR(PTR(hickory_name(name.wire())?)))],
        Answer::Services(services, _) => {
            // The same weight for all: any order is as good (RFC 2782).
            let srv = |one: &Service| {
                Some(record(RData::SRV(SRV::new(0, 0, one.port, hickory_name(one.target.wire())?))))
            };
            services.iter().map(srv).collect::<Option<_>>()?
        }
        Answer::Apex { zone, soa: with_soa, ns } => {
            let mut records = Vec::new();
            if *with_soa {
                records.push(soa(query, *zone, terms)?);
            }
            if *ns {
                records.push(record(RData::NS(NS(hickory_name(terms.domain.wire())?))));
            }
            records
        }
        Answer::NoData(_) | Answer::NxDomain(_) | Answer::Unread { .. } => vec![],
    };
    records.shuffle(&mut rand::rng());
    Some(records)
}

/// The addresses of a service's instances, which a client would ask for next.
fn targets(services: &[Service], pool6: Option<Ipv6Net>, terms: &Terms<'_>) -> Option<Vec<Record>> {
    let mut records = Vec::new();
    for service in services {
        let owner = hickory_name(service.target.wire())?;
        records.push(Record::from_rdata(owner.clone(), terms.ttl, RData::A(A(service.address))));
        if let Some(pool6) = pool6 {
            let address = AAAA(pool6::derived(pool6, service.address));
            records.push(Record::from_rdata(owner, terms.ttl, RData::AAAA(address)));
        }
    }
    Some(records)
}

fn soa(query: &Query, zone: Apex, terms: &Terms<'_>) -> Option<Record> {
    let owner = hickory_name(query.name.wire().get(query.name.len() - zone..)?)?;
    let server = hickory_name(terms.domain.wire())?;
    let master = hickory_name_of(std::iter::once(HOSTMASTER).chain(wire_labels(terms.domain.wire())))?;
    let [refresh, retry, expire] = SOA_TIMES.map(u32::cast_signed);
    let data = SOA::new(server, master, terms.serial, refresh, retry, expire, terms.negative_ttl);
    Some(Record::from_rdata(owner, terms.negative_ttl, RData::SOA(data)))
}

/// Drops answers until the message fits, and sets the truncation bit.
fn fit(mut message: Message, limit: usize) -> Option<Vec<u8>> {
    loop {
        let bytes = encode(&message)?;
        if bytes.len() <= limit {
            return Some(bytes);
        }
        // Additional records go first, and are no loss (RFC 2181 section 9).
        if !message.additionals.is_empty() {
            message.additionals.clear();
            continue;
        }
        message.metadata.truncation = true;
        // hickory limits how many names it compresses, so a record's length is not known beforehand.
        let fits = message.answers.len() * limit / bytes.len();
        match message.answers.len().checked_sub(1) {
            Some(fewer) => message.answers.truncate(fits.min(fewer)),
            // A question always fits: 12 + 259 + 11 bytes at most.
            None => message.authorities.pop().map(|_| ())?,
        }
    }
}

fn encode(message: &Message) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(512);
    message.emit(&mut BinEncoder::new(&mut bytes)).ok()?;
    Some(bytes)
}

fn our_edns(dnssec_ok: bool) -> HickoryEdns {
    let mut edns = HickoryEdns::new();
    edns.set_max_payload(OUR_SIZE);
    edns.set_dnssec_ok(dnssec_ok);
    edns
}

fn hickory_name(wire: &[u8]) -> Option<HickoryName> {
    hickory_name_of(wire_labels(wire))
}

fn hickory_name_of<'a>(labels: impl Iterator<Item = &'a [u8]>) -> Option<HickoryName> {
    let labels: Vec<&[u8]> = labels.collect();
    // An absolute name, also for the root, which has no label.
    let mut name = HickoryName::from_labels(labels).ok()?;
    name.set_fqdn(true);
    Some(name)
}
