//! The answers that there can be to a question about our names. It must never look anything up by name.

use std::borrow::Cow;
use std::net::Ipv4Addr;

use ipnet::Ipv6Net;
use selvedge_registry::name::Name;
use selvedge_registry::table::sight::{Service, Sight};

use crate::query::kind;

/// A zone, as a suffix of the question's name: its length in wire bytes.
pub(crate) type Apex = usize;

/// The answer to a question.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer<'t> {
    /// These addresses, in any order.
    Addresses(Cow<'t, [Ipv4Addr]>),
    /// The IPv6 addresses derived from these in this network, in any order.
    Derived(Cow<'t, [Ipv4Addr]>, Ipv6Net),
    /// Both these addresses and the IPv6 ones derived from them, in any order.
    Both(Cow<'t, [Ipv4Addr]>, Ipv6Net),
    /// `::1`.
    Loopback6,
    /// This name.
    Pointer(Name),
    /// These instances of a service, in any order, together with their addresses; IPv6 ones too in this network.
    Services(Vec<Service>, Option<Ipv6Net>),
    /// The zone's SOA, NS or both.
    Apex { zone: Apex, soa: bool, ns: bool },
    /// The name exists, without such a record. Without a zone there is no SOA to send.
    NoData(Option<Apex>),
    /// There is no such name.
    NxDomain(Option<Apex>),
    /// The table lacks the name, but is still incomplete: there is no answer yet. Perhaps the asker's own servers have
    /// one, if the name is not certainly ours.
    Unread { ours: bool },
}

/// The answer for a name that is missing from the table, which proves nothing while the table is incomplete.
pub(super) fn missing<'t>(table: Sight<'_>, zone: Option<Apex>) -> Answer<'t> {
    if table.is_partial() { Answer::Unread { ours: zone.is_some() } } else { Answer::NxDomain(zone) }
}

/// The answer at a zone's own name, which has no records but SOA and NS.
pub(super) fn at_apex<'t>(zone: Apex, asked: u16) -> Answer<'t> {
    let (soa, ns) = (matches!(asked, kind::SOA | kind::ANY), matches!(asked, kind::NS | kind::ANY));
    if soa || ns { Answer::Apex { zone, soa, ns } } else { Answer::NoData(Some(zone)) }
}
