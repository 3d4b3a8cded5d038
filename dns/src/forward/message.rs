//! Extracts from an upstream's answer what is needed to cache it and to pass it on, by walking over its records, whose
//! bytes otherwise stay as they are. It must never trust a length or a count in them.

use std::time::Duration;

use crate::options::{EXTENDED_ERROR, Opt};
use crate::query::{HEADER, OUR_SIZE, Query, WireName, flag, kind, rcode, word};

/// No answer is kept longer, whatever its TTLs say (RFC 8767 section 4 suggests so).
const LONGEST: u32 = 86_400;
/// The TTL of an answer past its time, in seconds (RFC 8767 section 4).
const STALE_TTL: u32 = 30;
/// Padding (RFC 7830). Explanations of errors (RFC 8914) are for the client; all other options are between us and the
/// upstream (RFC 6891 section 6.1.1), and are turned into it.
const PADDING: u16 = 12;
/// Codes of a server that does not know better, so the next one is asked.
const UNHELPFUL: [u16; 4] = [rcode::FORMERR, rcode::SERVFAIL, rcode::NOTIMP, rcode::REFUSED];

/// The second of the three sections of records.
const AUTHORITY: usize = 1;

/// Where things are in a message.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Shape {
    /// The offsets of the TTLs, except for the OPT record's.
    ttls: Vec<usize>,
    /// The offset of the OPT record's class, which holds the sender's buffer size.
    opt_size: Option<usize>,
    /// How long the message may be kept.
    keep: Option<Duration>,
}

/// One record's offsets and numbers.
struct Head {
    kind: u16,
    ttl: u32,
    /// The offset of the class; the TTL follows 2 bytes later.
    class_at: usize,
    data_at: usize,
    end: usize,
}

impl Head {
    fn read(message: &[u8], at: usize) -> Option<Self> {
        let after = skip_name(message, at)?;
        let ttl = u32::from_be_bytes(message.get(after + 4..after + 8)?.try_into().ok()?);
        let length = usize::from(word(message, after + 8)?);
        let end = after + 10 + length;
        message.get(..end)?;
        Some(Self { kind: word(message, after)?, ttl, class_at: after + 2, data_at: after + 10, end })
    }
}

/// Whether this is an answer to the query: a response with the same question. The case may differ, as some servers
/// write names in lower case.
pub(crate) fn answers(message: &[u8], query: &Query) -> bool {
    let response =
        word(message, 2).is_some_and(|flags| flags & (flag::RESPONSE | flag::OPCODE) == flag::RESPONSE);
    let after = HEADER + query.name.len();
    response
        && word(message, 4) == Some(1)
        && WireName::read(message, HEADER).is_some_and(|name| name.lower() == query.lower)
        && word(message, after) == Some(query.kind)
        && word(message, after + 2) == Some(query.class)
}

/// The code in the header.
pub(crate) fn code(message: &[u8]) -> u16 {
    word(message, 2).map_or(rcode::SERVFAIL, |flags| flags & flag::RCODE)
}

/// Whether another server may know better.
pub(crate) fn is_unhelpful(message: &[u8]) -> bool {
    UNHELPFUL.contains(&code(message))
}

/// The meaning of an answer for a resolver with more than one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// There are records.
    Yes,
    /// There is no such name, or no record of that type.
    No,
    /// Another server may know better: an error, a referral that is not ours to follow, or a truncated message.
    Useless,
}

/// As glibc judges it (`send_dg` in res_send.c).
pub(crate) fn verdict(message: &[u8]) -> Verdict {
    let count = |at| word(message, at).unwrap_or(0);
    let said_by_nobody =
        word(message, 2).is_some_and(|flags| flags & (flag::AUTHORITATIVE | flag::RECURSION_AVAILABLE) == 0);
    let refers = code(message) == rcode::NOERROR && count(6) == 0 && count(10) == 0 && said_by_nobody;
    match code(message) {
        _ if is_unhelpful(message) || is_truncated(message) || refers => Verdict::Useless,
        rcode::NOERROR if count(6) > 0 => Verdict::Yes,
        _ => Verdict::No,
    }
}

/// Whether the message says that it is truncated.
pub(crate) fn is_truncated(message: &[u8]) -> bool {
    word(message, 2).is_some_and(|flags| flags & flag::TRUNCATED != 0)
}

impl Shape {
    /// Walks over an answer to the query, and removes what was meant for us only; none if it is malformed.
    pub(crate) fn read(message: &mut Vec<u8>, query: &Query) -> Option<Self> {
        let sections = [word(message, 6)?, word(message, 8)?, word(message, 10)?];
        let mut walk = Walk { shape: Self::default(), least: LONGEST, negative: None, extended: false };
        let mut at = HEADER + query.name.len() + 4;
        for (section, count) in sections.into_iter().enumerate() {
            for _ in 0..count {
                at = walk.record(message, section, at)?;
            }
        }
        message.truncate(at);
        let code = code(message);
        let whole = !is_truncated(message) && !walk.extended;
        let positive = code == rcode::NOERROR && sections[0] > 0;
        let negative = walk.negative.filter(|_| matches!(code, rcode::NOERROR | rcode::NXDOMAIN));
        if whole && (positive || negative.is_some()) {
            let least = walk.least.min(negative.unwrap_or(LONGEST));
            walk.shape.keep = (least > 0).then(|| Duration::from_secs(u64::from(least)));
        }
        Some(walk.shape)
    }

    /// How long the answer may be kept (RFC 2308 for negative ones); none if it must not be kept.
    pub(crate) fn keep(&self) -> Option<Duration> {
        self.keep
    }

    /// The same, to be kept no longer than this.
    pub(crate) fn kept_at_most(self, most: Duration) -> Self {
        Self { keep: self.keep.map(|keep| keep.min(most)).filter(|keep| !keep.is_zero()), ..self }
    }

    /// Approximate memory use.
    pub(crate) fn weight(&self) -> usize {
        size_of::<Self>() + self.ttls.len() * size_of::<usize>()
    }

    /// Writes the message as an answer to this query, which equals the original query except for the id and the case of
    /// its name.
    pub(crate) fn write(&self, message: &[u8], query: &Query, limit: usize, out: &mut Vec<u8>) {
        let flags = word(message, 2).unwrap_or(flag::RESPONSE | rcode::SERVFAIL);
        if message.len() > limit {
            query.bare_reply(flags | flag::TRUNCATED, out);
            return;
        }
        out.extend_from_slice(message);
        put(out, 0, &query.id.to_be_bytes());
        put(out, HEADER, query.name.wire());
        if let Some(at) = self.opt_size {
            put(out, at, &OUR_SIZE.to_be_bytes());
        }
    }

    /// The OPT record of the written answer, if something can be added to it.
    pub(crate) fn opt(&self, out: &[u8]) -> Option<Opt> {
        Opt::bare(out).or_else(|| Opt::last(out, self.opt_size?))
    }

    /// Marks the written answer `out` as one past its time: it is not to be kept longer than RFC 8767 section 4 says.
    pub(crate) fn make_stale(&self, message: &[u8], out: &mut [u8]) {
        clear_authority(out);
        if out.len() >= message.len() {
            self.ttls.iter().for_each(|at| put(out, *at, &STALE_TTL.to_be_bytes()));
        }
    }

    /// Updates the written answer `out` after its `message` was kept for `age`: reduces the TTLs by that time, and
    /// clears the authoritative bit.
    pub(crate) fn grow_old(&self, message: &[u8], age: Duration, out: &mut [u8]) {
        clear_authority(out);
        if out.len() < message.len() {
            return;
        }
        let age = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        for at in &self.ttls {
            let Some(bytes) = out.get(*at..*at + 4).and_then(|bytes| bytes.try_into().ok()) else { return };
            let left = u32::from_be_bytes(bytes).saturating_sub(age);
            put(out, *at, &left.to_be_bytes());
        }
    }
}

/// The findings of a walk over the records.
struct Walk {
    shape: Shape,
    /// The least TTL, in seconds.
    least: u32,
    /// How long the SOA lets "no such name" be kept, in seconds.
    negative: Option<u32>,
    /// Whether the OPT record has the upper bits of an error's code.
    extended: bool,
}

impl Walk {
    /// Examines the record at `at`, and returns the offset of the next one.
    fn record(&mut self, message: &mut [u8], section: usize, at: usize) -> Option<usize> {
        let head = Head::read(message, at)?;
        if head.kind == kind::OPT {
            self.extended |= head.ttl >> 24 != 0;
            self.shape.opt_size = Some(head.class_at);
            clean(message.get_mut(head.data_at..head.end)?);
            return Some(head.end);
        }
        self.shape.ttls.push(head.class_at + 2);
        // RFC 2181 section 8: a TTL with the highest bit set is zero.
        self.least = self.least.min(if head.ttl >> 31 == 0 { head.ttl } else { 0 });
        if section == AUTHORITY && head.kind == kind::SOA {
            self.negative = minimum(message.get(head.data_at..head.end)?);
        }
        Some(head.end)
    }
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = out.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

fn clear_authority(out: &mut [u8]) {
    let flags = word(out, 2).unwrap_or(0) & !flag::AUTHORITATIVE;
    put(out, 2, &flags.to_be_bytes());
}

/// The end of the name at `at`. A pointer ends it; its target does not matter here.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            0xc0.. => return message.get(at + 1).map(|_| at + 2),
            _ => return None,
        }
    }
}

/// How long "no such name" may be kept according to the SOA: the last of its numbers, the MINIMUM.
fn minimum(soa: &[u8]) -> Option<u32> {
    // Two names of at least a byte each, and five numbers.
    soa.last_chunk().filter(|_| soa.len() >= 22).map(|bytes| u32::from_be_bytes(*bytes))
}

/// Turns the options that are not for the client into padding: their place stays, so no other record moves.
fn clean(mut options: &mut [u8]) {
    while let Some((head, rest)) = options.split_at_mut_checked(4) {
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let Some((data, after)) = rest.split_at_mut_checked(length) else { return };
        if u16::from_be_bytes([head[0], head[1]]) != EXTENDED_ERROR {
            head[..2].copy_from_slice(&PADDING.to_be_bytes());
            data.fill(0);
        }
        options = after;
    }
}

#[cfg(test)]
mod tests;
