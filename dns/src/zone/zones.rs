//! What is the same for all questions about our zones. It must never hold a name or an address of a container.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::Ipv4Net;

/// What is the same for all questions.
#[derive(Debug, Clone)]
pub(crate) struct Zones {
    /// The address of the domain itself, which is also its name server's.
    pub(super) apex: Vec<Ipv4Addr>,
    pub(super) pool: Ipv4Net,
    /// How many bytes of an address the names of our reverse zones consist of: 2 for a /12, that is 32.10.in-addr.arpa
    /// to 47.10.in-addr.arpa.
    pub(super) reverse_octets: usize,
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

    /// Whether a question from that address comes from this host itself.
    pub(crate) fn is_host(&self, asker: IpAddr) -> bool {
        asker.is_loopback() || matches!(asker, IpAddr::V4(asker) if self.apex.contains(&asker))
    }
}
