//! How our objects in the kernel are recognised: names, hardware addresses, the route protocol, the marks.
//!
//! Must never change between versions without a way to read the old form: wires outlive the process that made them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// rtm_protocol of every route that we write, in containers and on the host. The container's first program waits for a
/// route with this number. 5 to 255 are for daemons; 83 is unassigned in iproute2's rt_protos.
pub const SIGN_PROTOCOL: u8 = 83;

/// The name of the container's end of its wire.
pub const CONTAINER_INTERFACE: &str = "selvedge0";

/// The next hop of containers in IPv6: it stands for the host's end on every wire.
pub(crate) const WIRE_HOP6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x5e1);

const HOST_PREFIX: &str = "sv";
const CONTAINER_DIGITS: usize = 12;
const COMPLETE_MARK: &str = "selvedge complete netns=";
/// A link group with this bit marks links about to be deleted, all in one request. Not bit 31: the kernel stores the
/// group as a signed number, and iproute2 cannot show it then.
const DOOMED_BIT: u32 = 1 << 30;
/// The upper byte of the metric of our routes to blocks; the letter S.
const METRIC_PREFIX: u32 = 0x5300_0000;
const METRIC_GROUP_MASK: u32 = 0x00ff_ffff;
const TUNNEL_PREFIX: &str = "svx";

/// The name of the host's end: `sv` and twelve hex digits, 14 of the 15 characters that Linux allows.
pub fn host_interface(container: &str) -> String {
    format!("{HOST_PREFIX}{}", prefix(container))
}

/// The short form of a container id, as Docker shows it.
pub(crate) fn prefix(container: &str) -> &str {
    container.get(..CONTAINER_DIGITS).unwrap_or(container)
}

/// The container's digits in the name of a host end, if it is one.
pub(crate) fn container_of(interface: &str) -> Option<&str> {
    let digits = interface.strip_prefix(HOST_PREFIX)?;
    (digits.len() == CONTAINER_DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .then_some(digits)
}

/// The hardware address of a container's end: locally administered, derived from its address.
///
/// Set at creation, which also keeps systemd-udevd (MACAddressPolicy=persistent) from choosing another one.
pub(crate) fn container_mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x58, a, b, c, d]
}

/// The same as text, as Docker shows it: `0a:58:0a:20:00:05`.
#[must_use]
pub fn container_mac_text(address: Ipv4Addr) -> String {
    container_mac(address).map(|byte| format!("{byte:02x}")).join(":")
}

/// The hardware address of every host end: the gateway is the same on each wire.
pub(crate) fn host_mac(gateway: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = gateway.octets();
    [0x0a, 0x59, a, b, c, d]
}

/// The group of links about to be deleted.
pub(crate) fn doomed(group: u32) -> u32 {
    group | DOOMED_BIT
}

/// Whether a group, of whichever Selvedge, is one of links about to be deleted.
pub(crate) fn is_doomed(group: u32) -> bool {
    group & DOOMED_BIT != 0
}

/// The metric of every route to a block, our own and other hosts': it tells which Selvedge owns a route where several
/// share a host, since a route has no other free field. The lower 24 bits are the group's; other routes to the same
/// addresses win (0 has the highest priority), which is intended.
pub(crate) fn route_metric(group: u32) -> u32 {
    METRIC_PREFIX | (group & METRIC_GROUP_MASK)
}

/// The name of the VXLAN device: `svx` and the group in base 36. Too short to be a wire's name.
pub(crate) fn tunnel_interface(group: u32) -> String {
    format!("{TUNNEL_PREFIX}{}", base36(group))
}

/// The label of the host's own address in the pool: all kernels store one with an IPv4 address (IFA_PROTO came with
/// 5.18), and it must begin with the device's name, or old tools do not show it.
pub(crate) fn host_label(group: u32) -> String {
    format!("lo:{TUNNEL_PREFIX}{}", base36(group))
}

/// The hardware address of a host's VXLAN device, derived from its underlay address: so hosts need not announce it.
pub(crate) fn tunnel_mac(underlay: IpAddr) -> [u8; 6] {
    let [a, b, c, d] = match underlay {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => fnv(&address.octets()).to_be_bytes(),
    };
    [0x0a, 0x5a, a, b, c, d]
}

/// The next hop with that hardware address where it must be an IPv6 address: no host has it, only a permanent neighbour
/// resolves it. The kernel accepts a link-local next hop on any device, but one from another link's network only on
/// that link.
pub(crate) fn tunnel_hop(mac: [u8; 6]) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

fn fnv(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

fn base36(mut number: u32) -> String {
    let mut digits = Vec::new();
    loop {
        digits.extend(char::from_digit(number % 36, 36));
        number /= 36;
        if number == 0 {
            return digits.iter().rev().collect();
        }
    }
}

/// The mark of a complete wire: the link's alias, with the inode of the namespace at its other end.
///
/// The kernel reuses a namespace's inode number only when the namespace is entirely gone, and the veth pair with it: as
/// long as the link exists, the number tells this incarnation of a container from the next.
pub(crate) fn complete_mark(namespace: u64) -> String {
    format!("{COMPLETE_MARK}{namespace}")
}

/// The namespace in a mark, if it is one.
pub(crate) fn marked_namespace(alias: &str) -> Option<u64> {
    alias.strip_prefix(COMPLETE_MARK)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_are_read_back() {
        let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        let name = host_interface(id);
        assert_eq!(name, "sv0123456789ab");
        assert_eq!(container_of(&name), Some("0123456789ab"));
        assert_eq!(container_of("svc0"), None);
        assert_eq!(container_of("sv0123456789zz"), None);
    }

    #[test]
    fn names_of_the_tunnel_fit_and_are_no_wires() {
        let largest = tunnel_interface((1 << 30) - 1);
        assert_eq!(largest, "svxhra0hr");
        assert_eq!(container_of(&largest), None);
        assert_eq!(tunnel_interface(7001), "svx5eh");
        assert_eq!(tunnel_interface(0), "svx0");
        assert!(host_label((1 << 30) - 1).len() <= 15);
    }

    #[test]
    fn routes_of_two_selvedges_differ() {
        assert_eq!(route_metric(7001), 0x5300_1b59);
        assert_ne!(route_metric(7001), route_metric(7002));
    }

    #[test]
    fn the_mark_is_read_back() {
        assert_eq!(marked_namespace(&complete_mark(4_026_532_000)), Some(4_026_532_000));
        assert_eq!(marked_namespace("uplink to rack 7"), None);
    }

    #[test]
    fn hardware_addresses_are_local_and_unicast() {
        let six = tunnel_mac("2001:db8::1".parse().unwrap());
        let four = tunnel_mac("192.0.2.1".parse().unwrap());
        for mac in
            [container_mac(Ipv4Addr::new(10, 32, 0, 5)), host_mac(Ipv4Addr::new(169, 254, 1, 1)), six, four]
        {
            assert_eq!(mac[0] & 0b11, 0b10);
        }
    }
}
