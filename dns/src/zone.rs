//! What the answer to a question about our own names is: the one place that decides it, for both encoders. It must
//! never write a message, and never answer for a name that is not ours.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::{Ipv4Net, Ipv6Net};
use selvedge_registry::name::{Name, parent};
use selvedge_registry::table::Found;
use selvedge_registry::table::sight::{Computed, Service, Sight};

use crate::query::{WireName, kind};

mod reverse;

/// RFC 6761 section 6.3: names that are the asker's own host, whatever any server says.
const LOCALHOST: &[u8] = b"\x09localhost\0";
const LOOPBACK: &[Ipv4Addr] = &[Ipv4Addr::LOCALHOST];

/// What is the same for all questions.
#[derive(Debug, Clone)]
pub(crate) struct Zones {
    /// The address of the domain itself, which is also its name server's.
    apex: Vec<Ipv4Addr>,
    pool: Ipv4Net,
    /// Of how many of the address's bytes the names of our reverse zones are made: 2 for a /12, that is
    /// 32.10.in-addr.arpa to 47.10.in-addr.arpa.
    reverse_octets: usize,
}

/// A zone, as the end of the name that was asked for: so many bytes of its wire form.
pub(crate) type Apex = usize;

/// What is to be answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer<'t> {
    /// These addresses, in any order.
    Addresses(Cow<'t, [Ipv4Addr]>),
    /// The IPv6 addresses that follow from these in this network, in any order.
    Derived(Cow<'t, [Ipv4Addr]>, Ipv6Net),
    /// Both these addresses and the IPv6 ones that follow from them, in any order.
    Both(Cow<'t, [Ipv4Addr]>, Ipv6Net),
    /// `::1`.
    Loopback6,
    /// This name.
    Pointer(Name),
    /// These instances of a service, in any order, and their addresses beside them; IPv6 ones too in this network.
    Services(Vec<Service>, Option<Ipv6Net>),
    /// The zone's SOA, NS or both.
    Apex { zone: Apex, soa: bool, ns: bool },
    /// The name exists, without such a record. Without a zone there is no SOA to tell.
    NoData(Option<Apex>),
    /// There is no such name.
    NxDomain(Option<Apex>),
    /// The table lacks it, but is not whole yet: nobody can say now. Perhaps the asker's own servers can, if the name is
    /// not surely ours.
    Unread { ours: bool },
}

impl Zones {
    pub(crate) fn new(listen: SocketAddr, pool: Ipv4Net) -> Self {
        let apex = match listen.ip() {
            IpAddr::V4(address) => vec![address],
            IpAddr::V6(_) => vec![],
        };
        let reverse_octets = usize::from(pool.prefix_len()).div_ceil(8).clamp(1, 3);
        Self { apex, pool: pool.trunc(), reverse_octets }
    }

    /// The answer, or nothing when the question is not ours: it is to be forwarded.
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

    /// A domain of ours itself, or an empty name in it.
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

    /// Whether a question from there comes from this host itself.
    pub(crate) fn is_host(&self, asker: IpAddr) -> bool {
        asker.is_loopback() || matches!(asker, IpAddr::V4(asker) if self.apex.contains(&asker))
    }
}

/// What a name with these addresses has of the kind that is asked for.
fn of_addresses<'t>(table: Sight<'t>, addresses: Cow<'t, [Ipv4Addr]>, asked: u16) -> Option<Answer<'t>> {
    match (asked, table.pool6()) {
        (kind::A, _) | (kind::ANY, None) => Some(Answer::Addresses(addresses)),
        (kind::AAAA, Some(pool6)) => Some(Answer::Derived(addresses, pool6)),
        (kind::ANY, Some(pool6)) => Some(Answer::Both(addresses, pool6)),
        _ => None,
    }
}

/// The answer for a name in a domain of ours that no container has: an instance's own name, a service's, or none.
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

/// The answer for a name in a domain that others have names in too. What we do not know is theirs to say, but not while it
/// may be unread, nor what the asker must not know of.
fn shared<'t>(table: Sight<'t>, wire: &[u8], asked: u16) -> Option<Answer<'t>> {
    let meaning = table.compute(wire);
    let is_theirs = meaning.is_none() && !table.is_partial() && !table.hides(wire);
    (!is_theirs).then(|| computed(table, wire, (asked, meaning)))
}

/// The answer for a name that is not in the table, which is no proof while the table is not whole.
fn missing<'t>(table: Sight<'_>, zone: Option<Apex>) -> Answer<'t> {
    if table.is_partial() { Answer::Unread { ours: zone.is_some() } } else { Answer::NxDomain(zone) }
}

/// The answer for a name that exists only because others are below it. While the table is not whole, there may be a
/// container that is called so: its addresses cannot be denied, all else can.
fn without_address<'t>(table: Sight<'_>, zone: Option<Apex>, asked: u16) -> Answer<'t> {
    let could_have = table.is_partial() && of_addresses(table, Cow::Borrowed(&[]), asked).is_some();
    if could_have { Answer::Unread { ours: true } } else { Answer::NoData(zone) }
}

fn zone_of(table: Sight<'_>, wire: &[u8]) -> Option<Apex> {
    table.domain_of(wire).map(|domain| domain.wire().len())
}

fn at_apex<'t>(zone: Apex, asked: u16) -> Answer<'t> {
    let (soa, ns) = (matches!(asked, kind::SOA | kind::ANY), matches!(asked, kind::NS | kind::ANY));
    if soa || ns { Answer::Apex { zone, soa, ns } } else { Answer::NoData(Some(zone)) }
}

/// `localhost` and all below it (RFC 6761 section 6.3): never forwarded, and never a container that is called so.
fn localhost<'t>(asked: u16) -> Answer<'t> {
    match asked {
        kind::A | kind::ANY => Answer::Addresses(Cow::Borrowed(LOOPBACK)),
        kind::AAAA => Answer::Loopback6,
        _ => Answer::NoData(Some(LOCALHOST.len())),
    }
}

/// Whether the name is `ancestor` or below it. The bytes alone do not tell: they could be the end of one long label.
fn is_below(wire: &[u8], ancestor: &[u8]) -> bool {
    wire.ends_with(ancestor)
        && std::iter::successors(Some(wire), |wire| parent(wire)).any(|wire| wire == ancestor)
}

/// A name of one label, such as `db`. Containers have our domain as their search list, so libc asks for
/// `db.selvedge.internal` first; `db` alone comes when that failed, from tools that know no search list (busybox
/// nslookup), and from containers with a search list of the user's. So one that is in our table is answered.
///
/// One that is not is mostly a container that does not run: an upstream could only make that slow (or leak it to the
/// world), so it is NXDOMAIN without SOA, that is: not to be kept in a cache. dnsmasq does so too (`domain-needed`).
/// The caller forwards it after all for askers with upstreams of their own. What resolvers ask about top-level
/// domains (NS, DS, ...) is always forwarded.
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
        // `internal` is there, as the domain is below it: a resolver that goes down label by label must not stop here.
        Found::Missing | Found::Shared | Found::Outside if table.is_above_domain(wire) => {
            Answer::NoData(None)
        }
        Found::Missing | Found::Shared | Found::Outside => missing(table, None),
    })
}

/// The labels of wire bytes, without the root's empty one.
pub(crate) fn wire_labels(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(wire), |wire| parent(wire))
        .filter_map(|wire| wire.get(1..1 + usize::from(*wire.first()?)))
        .filter(|label| !label.is_empty())
}

#[cfg(test)]
mod tests;
