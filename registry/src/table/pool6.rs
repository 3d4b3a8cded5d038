//! How a container's IPv6 address follows from its IPv4 address: the one place that knows. It must never need more than
//! pool and IPv4 address: IPv6 addresses are never handed out, stored or freed.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv6Net;

/// The longest prefix that leaves room for an IPv4 address at the end.
const LONGEST: u8 = 96;

/// The IPv6 address that belongs to this IPv4 address: the pool's, with the IPv4 address in the last 32 bits.
#[must_use]
pub fn derived(pool6: Ipv6Net, address: Ipv4Addr) -> Ipv6Addr {
    // The last 32 bits are cleared even if the given network is too small: the same container still gets the same
    // answer.
    let prefix = pool6.network().to_bits() & !u128::from(u32::MAX);
    Ipv6Addr::from_bits(prefix | u128::from(address.to_bits()))
}

/// The network without bits beyond its prefix, widened to 96 bits if it is smaller.
pub(super) fn wide_enough(pool6: Ipv6Net) -> Ipv6Net {
    let length = pool6.prefix_len().min(LONGEST);
    Ipv6Net::new(pool6.addr(), length).unwrap_or(pool6).trunc()
}
