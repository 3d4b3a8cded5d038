//! How a container's IPv6 address follows from its IPv4 address: the one place that knows. It must never need more
//! than the two: nobody hands IPv6 addresses out, keeps them or frees them.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv6Net;

/// A network of IPv6 addresses needs so many bits less than all for an IPv4 address at the end.
const LONGEST: u8 = 96;

/// The IPv6 address of who has this IPv4 address: the pool's, with the IPv4 address in the last 32 bits.
#[must_use]
pub fn derived(pool6: Ipv6Net, address: Ipv4Addr) -> Ipv6Addr {
    // Without the last 32 bits also if somebody gives a network that is too small: the answer is then still the same
    // for the same container.
    let prefix = pool6.network().to_bits() & !u128::from(u32::MAX);
    Ipv6Addr::from_bits(prefix | u128::from(address.to_bits()))
}

/// The network without bits that are not its own, widened to 96 bits if it is smaller.
pub(super) fn wide_enough(pool6: Ipv6Net) -> Ipv6Net {
    let length = pool6.prefix_len().min(LONGEST);
    Ipv6Net::new(pool6.addr(), length).unwrap_or(pool6).trunc()
}
