//! How IPv6 addresses follow from IPv4 ones: the pool's network, and the IPv4 address in its last 32 bits.
//!
//! So nothing has to be assigned twice. Must never change: other hosts compute the same.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// The longest prefix that leaves room for an IPv4 address.
pub(crate) const LONGEST: u8 = 96;

/// The IPv6 address of a container, from its IPv4 address.
#[must_use]
pub fn address6(pool6: Ipv6Net, address: Ipv4Addr) -> Ipv6Addr {
    let network = u128::from(pool6.network()) & !u128::from(u32::MAX);
    Ipv6Addr::from(network | u128::from(u32::from(address)))
}

/// The IPv6 addresses of a block: a /24 becomes a /120.
pub(crate) fn block6(pool6: Ipv6Net, block: Ipv4Net) -> Ipv6Net {
    // 96 and at most 32 more are at most 128.
    Ipv6Net::new_assert(address6(pool6, block.network()), LONGEST + block.prefix_len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ipv4_address_is_in_the_last_bits() {
        let pool6: Ipv6Net = "fd5e:1::/48".parse().unwrap();
        assert_eq!(
            address6(pool6, Ipv4Addr::new(10, 32, 1, 5)),
            "fd5e:1::a20:105".parse::<Ipv6Addr>().unwrap()
        );
        let block: Ipv4Net = "10.32.1.0/24".parse().unwrap();
        assert_eq!(block6(pool6, block).to_string(), "fd5e:1::a20:100/120");
        let all: Ipv4Net = "0.0.0.0/0".parse().unwrap();
        assert_eq!(block6(pool6, all).to_string(), "fd5e:1::/96");
    }
}
