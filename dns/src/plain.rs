//! The plain path: reads the ordinary query (one question, at most a simple OPT record) and writes answers to A, AAAA
//! and PTR questions, by hand and without allocation. It must never accept what it does not fully understand: that goes
//! to `general`, and both have to agree (a test compares them).

use std::net::Ipv4Addr;

use rand::{Rng, RngExt};
use selvedge_registry::name::Name;
use selvedge_registry::table::pool6;

use crate::query::{
    Edns, HEADER, IN, OPT_LENGTH, PLAIN_SIZE, Query, WireName, flag, kind, put_header, rcode, word,
};
use crate::zone::answer::{Answer, Apex};

/// The option by which clients recognise their server (RFC 7873). We set no cookies, and may ignore it.
const COOKIE: u16 = 10;
/// A pointer to the question's name, which always begins right after the header (RFC 1035 section 4.1.4).
const QUESTION_NAME: [u8; 2] = [0xc0, HEADER as u8];
/// Pointer, type, class, TTL and length: everything before a record's data.
const RECORD_HEAD: usize = 12;

/// How long our answers may be kept, and the content of our SOA.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms<'t> {
    /// Seconds.
    pub(crate) ttl: u32,
    /// Seconds, for negative answers.
    pub(crate) negative_ttl: u32,
    pub(crate) serial: u32,
    /// The domain, which is also the name of its name server.
    pub(crate) domain: &'t Name,
}

/// The SOA's times, in seconds: refresh, retry, expire. Our zones are never transferred, so they only have to look
/// sane.
pub(crate) const SOA_TIMES: [u32; 3] = [3600, 600, 86_400];
/// The contact for the domain, as a label in front of its name (RFC 2142).
pub(crate) const HOSTMASTER: &[u8] = b"hostmaster";

/// The query, if it is an ordinary one.
pub(crate) fn read(message: &[u8]) -> Option<Query> {
    let flags = word(message, 2)?;
    let counts = [word(message, 4)?, word(message, 6)?, word(message, 8)?, word(message, 10)?];
    if flags & (flag::RESPONSE | flag::OPCODE) != 0 || counts[..3] != [1, 0, 0] || counts[3] > 1 {
        return None;
    }
    let name = WireName::read(message, HEADER)?;
    let after = HEADER + name.len();
    let (kind, class) = (word(message, after)?, word(message, after + 2)?);
    let rest = message.get(after + 4..)?;
    let edns = match counts[3] {
        0 if rest.is_empty() => None,
        1 => Some(read_opt(rest)?),
        _ => return None,
    };
    let ordinary =
        class == IN && kind != 0 && kind != kind::OPT && !(kind::TKEY..=kind::MAILA).contains(&kind);
    ordinary.then_some(Query { id: word(message, 0)?, flags, name, lower: name.lower(), kind, class, edns })
}

/// An OPT record that is the whole rest of the message, of version 0, with nothing in it but a cookie.
fn read_opt(record: &[u8]) -> Option<Edns> {
    let (head, data) = record.split_at_checked(OPT_LENGTH)?;
    let length = usize::from(word(head, 9)?);
    let version = *head.get(6)?;
    if head[0] != 0 || word(head, 1)? != kind::OPT || version != 0 || length != data.len() {
        return None;
    }
    let cookie = || word(data, 0) == Some(COOKIE) && word(data, 2).map(usize::from) == Some(data.len() - 4);
    if !(data.is_empty() || data.len() >= 4 && cookie()) {
        return None;
    }
    Some(Edns { size: word(head, 3)?.max(PLAIN_SIZE), dnssec_ok: head[7] & 0x80 != 0, asks_server: false })
}

/// Writes the answer into `out`, which must be empty, in at most `limit` bytes; false if the plain path cannot write
/// it.
pub(crate) fn write(
    query: &Query,
    answer: &Answer<'_>,
    terms: &Terms<'_>,
    limit: usize,
    out: &mut Vec<u8>,
) -> bool {
    match answer {
        Answer::Addresses(addresses) if query.kind == kind::A => {
            write_addresses(query, (&**addresses, |address| address.octets()), terms, limit, out);
        }
        Answer::Derived(addresses, pool6) if query.kind == kind::AAAA => {
            let octets = |address| pool6::derived(*pool6, address).octets();
            write_addresses(query, (&**addresses, octets), terms, limit, out);
        }
        Answer::Pointer(name) if query.kind == kind::PTR => write_pointer(query, name, terms, out),
        Answer::NoData(Some(zone)) => write_negative(query, rcode::NOERROR, *zone, terms, out),
        Answer::NxDomain(Some(zone)) => write_negative(query, rcode::NXDOMAIN, *zone, terms, out),
        // No SOA, so that it is not cached as long as a denial.
        Answer::Unread { .. } => query.bare_reply(query.reply_flags(rcode::SERVFAIL), out),
        _ => return false,
    }
    out.len() <= limit
}

/// Writes the addresses; `octets` makes the data of a record: 4 bytes for A, 16 for AAAA.
fn write_addresses<const LENGTH: usize>(
    query: &Query,
    (addresses, octets): (&[Ipv4Addr], impl Fn(Ipv4Addr) -> [u8; LENGTH]),
    terms: &Terms<'_>,
    limit: usize,
    out: &mut Vec<u8>,
) {
    let opt = query.edns.map_or(0, |_| OPT_LENGTH);
    let room = limit.saturating_sub(HEADER + query.name.len() + 4 + opt) / (RECORD_HEAD + LENGTH);
    let count = addresses.len().min(room);
    let mut flags = query.reply_flags(rcode::NOERROR) | flag::AUTHORITATIVE;
    if count < addresses.len() {
        flags |= flag::TRUNCATED;
    }
    let answers = u16::try_from(count).unwrap_or(u16::MAX);
    put_header(out, query.id, flags, [1, answers, 0, u16::from(query.edns.is_some())]);
    query.put_question(out);
    let first = out.len();
    let mut rng = rand::rng();
    // Any of them may be left out if they do not all fit, so start at a random place; then shuffle what fits.
    let start = if addresses.len() > 1 { rng.random_range(..addresses.len()) } else { 0 };
    for address in addresses.iter().cycle().skip(start).take(count) {
        put_record_head(out, query.kind, terms.ttl);
        put_length(out, LENGTH);
        out.extend_from_slice(&octets(*address));
    }
    if let Some(records) = out.get_mut(first..) {
        shuffle::<LENGTH>(records, &mut rng);
    }
    query.put_opt(out);
}

/// Fisher–Yates on the addresses, the last bytes of each record: everything else is the same in each.
fn shuffle<const LENGTH: usize>(records: &mut [u8], rng: &mut impl Rng) {
    let whole = RECORD_HEAD + LENGTH;
    for last in (1..records.len() / whole).rev() {
        let other = rng.random_range(..=last);
        for byte in RECORD_HEAD..whole {
            records.swap(last * whole + byte, other * whole + byte);
        }
    }
}

fn write_pointer(query: &Query, name: &Name, terms: &Terms<'_>, out: &mut Vec<u8>) {
    let flags = query.reply_flags(rcode::NOERROR) | flag::AUTHORITATIVE;
    put_header(out, query.id, flags, [1, 1, 0, u16::from(query.edns.is_some())]);
    query.put_question(out);
    put_record_head(out, kind::PTR, terms.ttl);
    put_length(out, name.wire().len());
    out.extend_from_slice(name.wire());
    query.put_opt(out);
}

/// NODATA or NXDOMAIN with the zone's SOA (RFC 2308 sections 2.1 and 2.2).
fn write_negative(query: &Query, code: u16, zone: Apex, terms: &Terms<'_>, out: &mut Vec<u8>) {
    let flags = query.reply_flags(code) | flag::AUTHORITATIVE;
    put_header(out, query.id, flags, [1, 0, 1, u16::from(query.edns.is_some())]);
    query.put_question(out);
    // The zone is a suffix of the question's name: point there.
    let [high, low] = u16::try_from(HEADER + query.name.len() - zone).unwrap_or(0).to_be_bytes();
    out.extend_from_slice(&[0xc0 | high, low]);
    out.extend_from_slice(&kind::SOA.to_be_bytes());
    out.extend_from_slice(&IN.to_be_bytes());
    // Current caches use the SOA's own TTL, RFC 2308 section 5 says the MINIMUM: the lower one counts.
    out.extend_from_slice(&terms.negative_ttl.to_be_bytes());
    put_soa(out, terms);
    query.put_opt(out);
}

fn put_soa(out: &mut Vec<u8>, terms: &Terms<'_>) {
    let domain = terms.domain.wire();
    put_length(out, domain.len() + 1 + HOSTMASTER.len() + 2 + 20);
    let [high, low] = u16::try_from(out.len()).unwrap_or(0).to_be_bytes();
    out.extend_from_slice(domain);
    put_label(out, HOSTMASTER);
    out.extend_from_slice(&[0xc0 | high, low]);
    let [refresh, retry, expire] = SOA_TIMES;
    for number in [terms.serial, refresh, retry, expire, terms.negative_ttl] {
        out.extend_from_slice(&number.to_be_bytes());
    }
}

fn put_record_head(out: &mut Vec<u8>, kind: u16, ttl: u32) {
    let ([k0, k1], [c0, c1], [t0, t1, t2, t3]) = (kind.to_be_bytes(), IN.to_be_bytes(), ttl.to_be_bytes());
    out.extend_from_slice(&[QUESTION_NAME[0], QUESTION_NAME[1], k0, k1, c0, c1, t0, t1, t2, t3]);
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    // Only names and SOAs get here: below 300 bytes.
    out.extend_from_slice(&u16::try_from(length).unwrap_or(0).to_be_bytes());
}

fn put_label(out: &mut Vec<u8>, label: &[u8]) {
    out.push(u8::try_from(label.len()).unwrap_or(0));
    out.extend_from_slice(label);
}

#[cfg(test)]
mod tests;
