//! The settings of one Selvedge's network. Plain data; must never change while it is open.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// What all wires of one Selvedge have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// All container addresses of all hosts.
    pub pool: Ipv4Net,
    /// The address of this host as its containers see it: the same link-local one on every host (169.254.1.1).
    pub gateway: Ipv4Addr,
    /// Where the DNS server listens; usually the gateway's address.
    pub dns: Ipv4Addr,
    /// The link group (IFLA_GROUP) of our host ends, below 2^30: tells our wires from those of another Selvedge.
    pub group: u32,
    /// The MTU of a wire in bytes; `None` derives it from the link with the underlay's address, or else from that of
    /// the host's default route.
    pub mtu: Option<u32>,
    /// Whether packets to other hosts may travel in VXLAN: with `mtu` of `None`, this leaves room for its headers (50
    /// bytes, 70 over an IPv6 underlay).
    pub encapsulated: bool,
    /// This host's address on the network that connects the hosts.
    pub underlay: Option<IpAddr>,
    /// Also gives containers an IPv6 address: this network, with their IPv4 address in its last 32 bits. Its prefix has
    /// at most 96 bits.
    pub pool6: Option<Ipv6Net>,
}
