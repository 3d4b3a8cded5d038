//! Deletes connection tracking entries whose target is gone, using ctnetlink.
//!
//! Only where clients would not notice by themselves: a UDP client that keeps asking from one port would be sent to the
//! same dead place for ever, and a TCP client whose first packet was lost would send the next one there. It must never
//! delete entries of live targets. Numbers are those of linux/netfilter/nfnetlink_conntrack.h.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{MsgFlags, NetlinkAddr, recv, sendto};

use crate::error::{Error, Failure};
use crate::generation::open;

/// NFNL_SUBSYS_CTNETLINK, in the upper byte of a message's type.
const SUBSYSTEM: u16 = 1 << 8;
const NEW: u16 = SUBSYSTEM;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
/// NLM_F_REQUEST, NLM_F_ACK and NLM_F_DUMP; NLMSG_ERROR and NLMSG_DONE.
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// The netlink header, and the netfilter header after it.
const NETLINK: usize = 16;
const HEADERS: usize = NETLINK + 4;
/// Attribute flag: the attribute holds others.
const NESTED: u16 = 0x8000;
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const ZONE: u16 = 18;
const STATUS_MASK: u16 = 26;
/// IPS_SEEN_REPLY: a packet has come back.
const SEEN_REPLY: u32 = 2;

/// Which connections to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    All,
    /// Those of which no packet has come back.
    Unanswered,
}

impl Which {
    /// What the kernel is to list. Kernels before 5.17 list all the same.
    fn filter(self) -> Vec<u8> {
        let attribute = |kind: u16, value: u32| {
            [&8_u16.to_ne_bytes()[..], &kind.to_ne_bytes(), &value.to_be_bytes()].concat()
        };
        match self {
            Self::All => Vec::new(),
            Self::Unanswered => [attribute(STATUS, 0), attribute(STATUS_MASK, SEEN_REPLY)].concat(),
        }
    }

    fn holds(self, status: u32) -> bool {
        self == Self::All || status & SEEN_REPLY == 0
    }
}

/// One direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tuple {
    pub(crate) from: (IpAddr, u16),
    pub(crate) to: (IpAddr, u16),
    pub(crate) protocol: u8,
}

/// Deletes those of the connections for which the predicate is true, given their original and reply directions. Works in
/// the network namespace of this thread; returns their number.
///
/// # Errors
/// The kernel does not list them.
pub(crate) fn forget(which: Which, is_over: impl Fn(Tuple, Tuple) -> bool) -> Result<u64, Error> {
    let failed = |error: io::Error| Failure::new("list the kernel's connections", &error).of_host();
    let doomed = list(which, is_over).map_err(failed)?;
    let netlink = open().map_err(failed)?;
    let mut forgotten = 0;
    for (family, attributes) in doomed {
        // A connection that ended meanwhile is gone anyway.
        forgotten += u64::from(delete(&netlink, family, &attributes).map_err(failed)?);
    }
    Ok(forgotten)
}

fn send(netlink: &OwnedFd, (kind, flags): (u16, u16), family: u8, attributes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(HEADERS + attributes.len()).unwrap_or(u32::MAX);
    let mut message = Vec::with_capacity(HEADERS + attributes.len());
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&flags.to_ne_bytes());
    message.resize(NETLINK, 0);
    message.extend_from_slice(&[family, 0, 0, 0]);
    message.extend_from_slice(attributes);
    sendto(netlink.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    Ok(())
}

/// For each connection to delete: its family and the identifying attributes.
fn list(which: Which, is_over: impl Fn(Tuple, Tuple) -> bool) -> io::Result<Vec<(u8, Vec<u8>)>> {
    let netlink = open()?;
    send(&netlink, (GET, REQUEST | DUMP), 0, &which.filter())?;
    let (mut doomed, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        while let Some((kind, message, next)) = message(rest) {
            match kind {
                NEW => doomed.extend(read(message, which, &is_over)),
                DONE => return Ok(doomed),
                ERROR => {
                    return Err(status(message).err().unwrap_or_else(|| io::ErrorKind::InvalidData.into()));
                }
                _ => {}
            }
            rest = next;
        }
    }
}

fn delete(netlink: &OwnedFd, family: u8, attributes: &[u8]) -> io::Result<bool> {
    send(netlink, (DELETE, REQUEST | ACK), family, attributes)?;
    let mut buffer = [0; 4096];
    let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    match message(buffer.get(..length).unwrap_or_default()) {
        Some((ERROR, message, _)) => match status(message) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        },
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Type and content of the first message, and the bytes after it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?)).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let content = bytes.get(NETLINK..length)?;
    Some((kind, content, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// The error of an answer: 0 means none, otherwise a negative errno.
fn status(content: &[u8]) -> io::Result<()> {
    let errno = content.get(..4).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_ne_bytes);
    if errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-errno)) }
}

fn read(content: &[u8], which: Which, is_over: &impl Fn(Tuple, Tuple) -> bool) -> Option<(u8, Vec<u8>)> {
    let (family, attributes) = (*content.first()?, content.get(4..)?);
    let attribute = |wanted: u16| {
        all(attributes).find(|(kind, ..)| kind & !NESTED == wanted).map(|(_, content, _)| content)
    };
    let tuple = |wanted: u16| self::tuple(attribute(wanted)?);
    which.holds(u32::from_be_bytes(attribute(STATUS)?.try_into().ok()?)).then_some(())?;
    is_over(tuple(TUPLE_ORIG)?, tuple(TUPLE_REPLY)?).then_some(())?;
    let is_needed = |kind: u16| matches!(kind & !NESTED, TUPLE_ORIG | ZONE);
    let needed =
        all(attributes).filter(|(kind, ..)| is_needed(*kind)).flat_map(|(_, _, whole)| whole.to_vec());
    Some((family, needed.collect()))
}

/// Each attribute: its type, its content, and its whole bytes including padding to a multiple of four.
fn all(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8], &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let content = bytes.get(4..length)?;
        let end = length.next_multiple_of(4).min(bytes.len());
        let (whole, rest) = bytes.split_at(end);
        bytes = rest;
        Some((kind, content, whole))
    })
}

fn tuple(content: &[u8]) -> Option<Tuple> {
    let part =
        |wanted: u16| all(content).find(|(kind, ..)| kind & !NESTED == wanted).map(|(_, part, _)| part);
    let (ip, proto) = (part(1)?, part(2)?);
    let address = |four: u16, six: u16| {
        all(ip).find_map(|(kind, bytes, _)| match kind & !NESTED {
            kind if kind == four => Some(IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?))),
            kind if kind == six => Some(IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?))),
            _ => None,
        })
    };
    let field = |wanted: u16| all(proto).find(|(kind, ..)| kind & !NESTED == wanted).map(|(_, part, _)| part);
    // ICMP has no ports.
    let port = |wanted| field(wanted).and_then(|part| part.try_into().ok()).map_or(0, u16::from_be_bytes);
    let protocol = *field(1)?.first()?;
    Some(Tuple { from: (address(1, 3)?, port(2)), to: (address(2, 4)?, port(3)), protocol })
}
