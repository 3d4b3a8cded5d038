//! What to answer to a question about our own names: the one place that decides it, for both encoders. It must never
//! write a message, and never answer for a name that is not ours.

use std::borrow::Cow;
use std::net::Ipv4Addr;

use selvedge_registry::name::parent;
use selvedge_registry::table::Found;
use selvedge_registry::table::sight::{Computed, Sight};

use crate::query::{WireName, kind};

pub(crate) mod answer;
mod reverse;
pub(crate) mod wire;
pub(crate) mod zones;

use answer::{Answer, Apex, at_apex, missing};
use wire::{is_below, wire_labels};
use zones::Zones;

/// RFC 6761 section 6.3: names that mean the asker's own host, whatever any server says.
const LOCALHOST: &[u8] = b"\x09localhost\0";
const LOOPBACK: &[Ipv4Addr] = &[Ipv4Addr::LOCALHOST];

impl Zones {
    /// The answer, or none when the question is not ours and must be forwarded.
    pub(crate) fn answer<'t>(
        &'t self,
        table: impl Into<Sight<'t>>,
        name: &WireName,
        asked: u16,
    ) -> Option<Answer<'t>> {
        let (wire, table) = (name.wire(), table.into());
        match table.lookup(wire) {
            Found::Addresses(addresses) => Some(
                of_addresses(table, addresses, asked).unwrap_or_else(|| Answer::NoData(zone_of(table, wire))),
            ),
            Found::Empty => Some(self.empty(table, wire, asked)),
            Found::Missing => Some(computed(table, wire, (asked, table.compute(wire)))),
            Found::Shared => shared(table, wire, asked),
            Found::Outside if reverse::is_reverse(wire) => reverse::answer(self, table, wire, asked),
            Found::Outside if is_below(wire, LOCALHOST) => Some(localhost(asked)),
            Found::Outside => dotless(table, wire, asked),
        }
    }

    /// The answer for a domain of ours itself, or for an empty name in it.
    fn empty<'t>(&'t self, table: Sight<'t>, wire: &[u8], asked: u16) -> Answer<'t> {
        let zone = zone_of(table, wire);
        match zone {
            Some(length) if length == wire.len() => match asked {
                kind::A if !self.apex.is_empty() => Answer::Addresses(Cow::Borrowed(&self.apex)),
                _ => at_apex(length, asked),
            },
            _ => without_address(table, zone, asked),
        }
    }
}

/// The records of the requested type for a name with these addresses.
fn of_addresses<'t>(table: Sight<'t>, addresses: Cow<'t, [Ipv4Addr]>, asked: u16) -> Option<Answer<'t>> {
    match (asked, table.pool6()) {
        (kind::A, _) | (kind::ANY, None) => Some(Answer::Addresses(addresses)),
        (kind::AAAA, Some(pool6)) => Some(Answer::Derived(addresses, pool6)),
        (kind::ANY, Some(pool6)) => Some(Answer::Both(addresses, pool6)),
        _ => None,
    }
}

/// The answer for a name in a domain of ours that no container has: an instance's own name, a service's, or no such
/// name.
fn computed<'t>(table: Sight<'t>, wire: &[u8], (asked, meaning): (u16, Option<Computed>)) -> Answer<'t> {
    let zone = zone_of(table, wire);
    match meaning {
        Some(Computed::Instance(address)) => {
            of_addresses(table, Cow::Owned(vec![address]), asked).unwrap_or(Answer::NoData(zone))
        }
        Some(Computed::Hosts(hosts)) if matches!(asked, kind::A | kind::ANY) => {
            Answer::Addresses(Cow::Owned(hosts))
        }
        Some(Computed::Services(services)) if matches!(asked, kind::SRV | kind::ANY) => {
            Answer::Services(services, table.pool6())
        }
        Some(Computed::Hosts(_) | Computed::Services(_) | Computed::Empty) => Answer::NoData(zone),
        None => missing(table, zone),
    }
}

/// The answer for a name in a shared domain. A name we do not know is for the other servers to answer, except while it
/// may be unread, or if the asker must not know of it.
fn shared<'t>(table: Sight<'t>, wire: &[u8], asked: u16) -> Option<Answer<'t>> {
    let meaning = table.compute(wire);
    let is_theirs = meaning.is_none() && !table.is_partial() && !table.hides(wire);
    (!is_theirs).then(|| computed(table, wire, (asked, meaning)))
}

/// The answer for a name that exists only because others are below it. While the table is incomplete, a container with
/// this name may exist: its addresses cannot be denied, all else can.
fn without_address<'t>(table: Sight<'_>, zone: Option<Apex>, asked: u16) -> Answer<'t> {
    let could_have = table.is_partial() && of_addresses(table, Cow::Borrowed(&[]), asked).is_some();
    if could_have { Answer::Unread { ours: true } } else { Answer::NoData(zone) }
}

fn zone_of(table: Sight<'_>, wire: &[u8]) -> Option<Apex> {
    table.domain_of(wire).map(|domain| domain.wire().len())
}

/// `localhost` and everything below it (RFC 6761 section 6.3): never forwarded, and never a container with that name.
fn localhost<'t>(asked: u16) -> Answer<'t> {
    match asked {
        kind::A | kind::ANY => Answer::Addresses(Cow::Borrowed(LOOPBACK)),
        kind::AAAA => Answer::Loopback6,
        _ => Answer::NoData(Some(LOCALHOST.len())),
    }
}

/// A name of one label, such as `db`. Containers have our domain in their search list, so libc asks for
/// `db.selvedge.internal` first; `db` alone comes when that failed, from tools without a search list (busybox
/// nslookup), and from containers with a search list of the user's. So one that is in our table is answered.
///
/// A missing one gets NXDOMAIN without SOA, which is not cached. The caller then asks upstreams for it, as libc would
/// without us: a LAN's server may know `printer`. What resolvers ask about top-level domains (NS, DS, ...) is always
/// forwarded.
fn dotless<'t>(table: Sight<'t>, wire: &[u8], asked: u16) -> Option<Answer<'t>> {
    let infrastructure = matches!(
        asked,
        kind::NS | kind::SOA | kind::DS | kind::RRSIG | kind::NSEC | kind::DNSKEY | kind::ANY
    );
    if parent(wire).is_none_or(|rest| rest != [0]) || infrastructure {
        return None;
    }
    let label = wire.get(1..wire.len() - 1)?;
    let domain = wire_labels(table.domain().wire());
    let whole = WireName::from_labels(std::iter::once(label).chain(domain))?;
    Some(match table.lookup(whole.wire()) {
        Found::Addresses(addresses) => of_addresses(table, addresses, asked).unwrap_or(Answer::NoData(None)),
        Found::Empty => without_address(table, None, asked),
        // `internal` exists, as the domain is below it: a resolver that descends label by label must not stop here.
        Found::Missing | Found::Shared | Found::Outside if table.is_above_domain(wire) => {
            Answer::NoData(None)
        }
        Found::Missing | Found::Shared | Found::Outside => missing(table, None),
    })
}

#[cfg(test)]
mod tests;
