//! Questions for the name of an address, IPv4 (in-addr.arpa) and IPv6 (ip6.arpa): which addresses a reverse name means,
//! and how to answer. It must never forward a question within a pool, nor answer one outside.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use selvedge_registry::name::parent;
use selvedge_registry::table::sight::Sight;

use super::answer::{Answer, Apex, at_apex, missing};
use super::wire::{is_below, wire_labels};
use super::zones::Zones;
use crate::query::kind;

/// The suffix of each IPv4 reverse name (RFC 1035 section 3.5).
const REVERSE: &[u8] = b"\x07in-addr\x04arpa\0";
/// The suffix of each IPv6 reverse name (RFC 3596 section 2.5).
const REVERSE6: &[u8] = b"\x03ip6\x04arpa\0";

/// Whether it is a reverse name, for [`answer`] to answer.
pub(super) fn is_reverse(wire: &[u8]) -> bool {
    is_below(wire, REVERSE) || is_below(wire, REVERSE6)
}

/// The answer for a reverse name, or none when the question is not ours.
pub(super) fn answer<'t>(zones: &Zones, table: Sight<'t>, wire: &[u8], asked: u16) -> Option<Answer<'t>> {
    if wire.ends_with(REVERSE) { of_ipv4(zones, table, wire, asked) } else { of_ipv6(table, wire, asked) }
}

fn of_ipv4<'t>(zones: &Zones, table: Sight<'t>, wire: &[u8], asked: u16) -> Option<Answer<'t>> {
    let Reverse { address, octets, more } = Reverse::read(wire);
    if octets == 4 && !more && is_pointer(asked) {
        // Includes addresses outside the pool: a container can have one, and our own is always outside.
        let own = zones.apex.contains(&address).then(|| table.domain().clone());
        if let Some(name) = own.or_else(|| table.reverse(address)) {
            return Some(Answer::Pointer(name));
        }
    }
    if octets < zones.reverse_octets || !zones.pool.contains(&address) {
        return None;
    }
    let zone = apex_of_reverse(wire, zones.reverse_octets)?;
    let meant = [0, 8, 16, 24, 32][octets];
    let meant = Ipv4Net::new(address, meant).ok().filter(|_| !more);
    Some(in_zone(table, wire, (zone, meant), asked))
}

fn of_ipv6<'t>(table: Sight<'t>, wire: &[u8], asked: u16) -> Option<Answer<'t>> {
    let pool6 = table.pool6()?;
    let name = Reverse6::read(wire);
    // As for IPv4: a pool of 62 bits has four zones of 16 nibbles each.
    let apex = usize::from(pool6.prefix_len()).div_ceil(4).max(1);
    if name.nibbles < apex || !pool6.contains(&name.address) {
        return None;
    }
    // A length byte and a digit for each nibble.
    let zone = REVERSE6.len() + 2 * apex;
    Some(in_zone(table, wire, (zone, name.meant(pool6)), asked))
}

/// The answer for a name within a reverse zone of ours, which stands for the containers with these IPv4 addresses; none
/// if there can never be one.
fn in_zone<'t>(
    table: Sight<'t>,
    wire: &[u8],
    (zone, meant): (Apex, Option<Ipv4Net>),
    asked: u16,
) -> Answer<'t> {
    if zone == wire.len() {
        return at_apex(zone, asked);
    }
    let Some(meant) = meant else { return Answer::NxDomain(Some(zone)) };
    if meant.prefix_len() < 32 {
        let exists = table.any_within(meant);
        return if exists { Answer::NoData(Some(zone)) } else { missing(table, Some(zone)) };
    }
    match table.reverse(meant.addr()) {
        Some(name) if is_pointer(asked) => Answer::Pointer(name),
        Some(_) => Answer::NoData(Some(zone)),
        None => missing(table, Some(zone)),
    }
}

fn is_pointer(asked: u16) -> bool {
    matches!(asked, kind::PTR | kind::ANY)
}

/// A parsed name below in-addr.arpa.
struct Reverse {
    /// The address's first bytes, the others zero.
    address: Ipv4Addr,
    /// How many bytes of it the name has.
    octets: usize,
    /// Whether there are labels in front that are not a byte of an address.
    more: bool,
}

impl Reverse {
    fn read(wire: &[u8]) -> Self {
        let mut bytes = [0; 4];
        let mut octets = 0;
        let mut labels =
            wire_labels(&wire[..wire.len() - REVERSE.len()]).collect::<Vec<_>>().into_iter().rev();
        for label in labels.by_ref().take(4) {
            let Some(octet) = octet(label) else { return Self { address: bytes.into(), octets, more: true } };
            bytes[octets] = octet;
            octets += 1;
        }
        Self { address: bytes.into(), octets, more: labels.next().is_some() }
    }
}

/// A decimal number from 0 to 255 as it is written in a reverse name: without leading zeros.
fn octet(label: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(label).ok()?;
    let number = text.parse().ok()?;
    (label[0].is_ascii_digit() && (label.len() == 1 || label[0] != b'0')).then_some(number)
}

fn apex_of_reverse(wire: &[u8], octets: usize) -> Option<Apex> {
    let count = wire_labels(wire).count();
    let skip = count.checked_sub(octets + 2)?;
    std::iter::successors(Some(wire), |wire| parent(wire)).nth(skip).map(<[u8]>::len)
}

/// A parsed name below ip6.arpa.
struct Reverse6 {
    /// The address's first nibbles, the others zero.
    address: Ipv6Addr,
    /// How many nibbles of it the name has.
    nibbles: usize,
    /// Whether there are labels in front that are not a nibble of an address.
    more: bool,
}

impl Reverse6 {
    fn read(wire: &[u8]) -> Self {
        let (mut bits, mut nibbles, mut more) = (0u128, 0, false);
        // The first label is the last nibble: each label shifts the earlier ones down, and the 33rd shifts the first
        // one out.
        for label in wire_labels(&wire[..wire.len() - REVERSE6.len()]) {
            match nibble(label) {
                Some(nibble) => {
                    bits = bits >> 4 | u128::from(nibble) << 124;
                    more |= nibbles == 32;
                    nibbles = 32.min(nibbles + 1);
                }
                None => (bits, nibbles, more) = (0, 0, true),
            }
        }
        Self { address: bits.into(), nibbles, more }
    }

    /// The IPv4 addresses behind the derived addresses that the name means; none if there are none.
    fn meant(&self, pool6: Ipv6Net) -> Option<Ipv4Net> {
        let length = u8::try_from(4 * self.nibbles).ok().filter(|_| !self.more)?;
        // The part of the first 96 bits that the name has must match the pool's; bits that the pool leaves open must be
        // zero.
        let first = Ipv6Net::new(pool6.network(), length.min(96)).ok()?;
        if !first.contains(&self.address) {
            return None;
        }
        let [.., a, b, c, d] = self.address.octets();
        Ipv4Net::new([a, b, c, d].into(), length.saturating_sub(96)).ok()
    }
}

/// A hexadecimal digit, in lower case as all names here: one character.
fn nibble(label: &[u8]) -> Option<u8> {
    match label {
        [digit @ b'0'..=b'9'] => Some(digit - b'0'),
        [digit @ b'a'..=b'f'] => Some(digit - b'a' + 10),
        _ => None,
    }
}
