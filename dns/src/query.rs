//! A question as both readers (`plain` and `general`) pass it on. It must never hold more than the one question that a
//! query has (RFC 9619), or a name longer than 255 bytes.

use selvedge_registry::name::{MAX_LABEL, MAX_WIRE};

/// The header's length (RFC 1035 section 4.1.1).
pub(crate) const HEADER: usize = 12;
/// The datagram size that we advertise to clients and upstreams: the value of DNS flag day 2020, which is never
/// fragmented on any sane path.
pub(crate) const OUR_SIZE: u16 = 1232;
/// The size of a datagram if the client has not said otherwise (RFC 1035 section 4.2.1).
pub(crate) const PLAIN_SIZE: u16 = 512;
/// The largest datagram that we send, whatever the client accepts. More than flag day's 1232, as our clients are on
/// this same host, one veth away.
const MAX_SIZE: u16 = 4096;

/// Bits of the header's second word.
pub(crate) mod flag {
    pub(crate) const RESPONSE: u16 = 0x8000;
    pub(crate) const OPCODE: u16 = 0x7800;
    pub(crate) const AUTHORITATIVE: u16 = 0x0400;
    pub(crate) const TRUNCATED: u16 = 0x0200;
    pub(crate) const RECURSION_DESIRED: u16 = 0x0100;
    pub(crate) const RECURSION_AVAILABLE: u16 = 0x0080;
    pub(crate) const AUTHENTIC: u16 = 0x0020;
    pub(crate) const CHECKING_DISABLED: u16 = 0x0010;
    pub(crate) const RCODE: u16 = 0x000f;
}

/// Response codes (RFC 1035 section 4.1.1, RFC 6891 section 9).
pub(crate) mod rcode {
    pub(crate) const NOERROR: u16 = 0;
    pub(crate) const FORMERR: u16 = 1;
    pub(crate) const SERVFAIL: u16 = 2;
    pub(crate) const NXDOMAIN: u16 = 3;
    pub(crate) const NOTIMP: u16 = 4;
    pub(crate) const REFUSED: u16 = 5;
}

/// Record types.
pub(crate) mod kind {
    pub(crate) const A: u16 = 1;
    pub(crate) const NS: u16 = 2;
    pub(crate) const SOA: u16 = 6;
    pub(crate) const PTR: u16 = 12;
    pub(crate) const TXT: u16 = 16;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const SRV: u16 = 33;
    pub(crate) const OPT: u16 = 41;
    pub(crate) const DS: u16 = 43;
    pub(crate) const RRSIG: u16 = 46;
    pub(crate) const NSEC: u16 = 47;
    pub(crate) const DNSKEY: u16 = 48;
    pub(crate) const TKEY: u16 = 249;
    pub(crate) const MAILA: u16 = 254;
    pub(crate) const ANY: u16 = 255;
}

/// The class of the Internet.
pub(crate) const IN: u16 = 1;

/// A name's wire bytes, with the root's zero.
#[derive(Clone, Copy)]
pub(crate) struct WireName {
    bytes: [u8; MAX_WIRE],
    length: u8,
}

impl WireName {
    /// The uncompressed name at `at`; none if it is compressed, too long or cut off.
    pub(crate) fn read(message: &[u8], at: usize) -> Option<Self> {
        let rest = message.get(at..)?;
        let mut length = 0usize;
        loop {
            let label = usize::from(*rest.get(length)?);
            length += 1 + label;
            if label > MAX_LABEL || length > MAX_WIRE {
                return None;
            }
            if label == 0 {
                return Self::copy(rest.get(..length)?);
            }
        }
    }

    /// The name with these labels; none if it is too long.
    pub(crate) fn from_labels<'a>(labels: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let mut name = Self { bytes: [0; MAX_WIRE], length: 0 };
        let mut at = 0;
        for label in labels {
            let length = u8::try_from(label.len()).ok().filter(|length| usize::from(*length) <= MAX_LABEL)?;
            *name.bytes.get_mut(at)? = length;
            name.bytes.get_mut(at + 1..at + 1 + label.len())?.copy_from_slice(label);
            at += 1 + label.len();
        }
        name.length = u8::try_from(at + 1).ok()?;
        Some(name)
    }

    fn copy(wire: &[u8]) -> Option<Self> {
        let mut name = Self { bytes: [0; MAX_WIRE], length: u8::try_from(wire.len()).ok()? };
        name.bytes.get_mut(..wire.len())?.copy_from_slice(wire);
        Some(name)
    }

    pub(crate) fn wire(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.length)
    }

    /// The same in lower case. Length bytes are below 64, so they cannot be capital letters.
    pub(crate) fn lower(mut self) -> Self {
        self.bytes[..usize::from(self.length)].make_ascii_lowercase();
        self
    }
}

impl PartialEq for WireName {
    fn eq(&self, other: &Self) -> bool {
        self.wire() == other.wire()
    }
}

impl Eq for WireName {}

impl std::fmt::Debug for WireName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.wire().escape_ascii())
    }
}

/// What the client said about itself by EDNS (RFC 6891).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Edns {
    /// The datagram size that it accepts: values below 512 count as 512 (RFC 6891 section 6.2.3).
    pub(crate) size: u16,
    /// The DO bit (RFC 3225).
    pub(crate) dnssec_ok: bool,
    /// Which server answers, it wants to know (RFC 5001).
    pub(crate) asks_server: bool,
}

/// One query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) id: u16,
    /// The header's second word as received.
    pub(crate) flags: u16,
    /// The name as written: the answer preserves its case.
    pub(crate) name: WireName,
    /// The name in lower case.
    pub(crate) lower: WireName,
    pub(crate) kind: u16,
    pub(crate) class: u16,
    pub(crate) edns: Option<Edns>,
}

/// The transport that a query arrived by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

impl Query {
    /// The maximum length of the answer.
    pub(crate) fn limit(&self, transport: Transport) -> usize {
        let size = match (transport, self.edns) {
            (Transport::Tcp, _) => u16::MAX,
            (Transport::Udp, None) => PLAIN_SIZE,
            (Transport::Udp, Some(edns)) => edns.size.min(MAX_SIZE),
        };
        usize::from(size)
    }

    /// The second word of an answer, without AA, TC and AD: RD and CD as asked, recursion available, this code.
    pub(crate) fn reply_flags(&self, code: u16) -> u16 {
        let kept = self.flags & (flag::RECURSION_DESIRED | flag::CHECKING_DISABLED);
        flag::RESPONSE | flag::RECURSION_AVAILABLE | kept | code
    }

    /// An answer without records: header, question, and OPT if the client sent one.
    pub(crate) fn bare_reply(&self, flags: u16, out: &mut Vec<u8>) {
        let opt = u16::from(self.edns.is_some());
        put_header(out, self.id, flags, [1, 0, 0, opt]);
        self.put_question(out);
        self.put_opt(out);
    }

    pub(crate) fn put_question(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.name.wire());
        out.extend_from_slice(&self.kind.to_be_bytes());
        out.extend_from_slice(&self.class.to_be_bytes());
    }

    /// Our OPT record, if the client sent one (RFC 6891 section 6.1.1), with its DO bit (RFC 3225 section 3).
    pub(crate) fn put_opt(&self, out: &mut Vec<u8>) {
        let Some(edns) = self.edns else { return };
        out.push(0);
        out.extend_from_slice(&kind::OPT.to_be_bytes());
        out.extend_from_slice(&OUR_SIZE.to_be_bytes());
        out.extend_from_slice(&[0, 0, if edns.dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]);
    }
}

/// The number of bytes that [`Query::put_opt`] writes.
pub(crate) const OPT_LENGTH: usize = 11;

/// A header: id, flags, and the number of questions, answers, authority and additional records that follow.
pub(crate) fn put_header(out: &mut Vec<u8>, id: u16, flags: u16, counts: [u16; 4]) {
    let words = [id, flags, counts[0], counts[1], counts[2], counts[3]];
    let mut header = [0; HEADER];
    for (bytes, word) in header.chunks_exact_mut(2).zip(words) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    out.extend_from_slice(&header);
}

/// The 16 bits at `at`.
pub(crate) fn word(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?))
}
