//! How our things in the kernel are told from others': names, hardware addresses, the route protocol, the marks.
//!
//! Must never change between versions without a way to read the old form: wires outlive the process that made them.

use std::net::Ipv4Addr;

/// rtm_protocol of every route that we write, in containers and on the host. The container's first program waits
/// for a route with this number. 5 to 255 are for daemons; iproute2's rt_protos gives 83 to nobody.
pub const SIGN_PROTOCOL: u8 = 83;

/// The name of the container's end of its wire.
pub const CONTAINER_INTERFACE: &str = "selvedge0";

const HOST_PREFIX: &str = "sv";
const CONTAINER_DIGITS: usize = 12;
const COMPLETE_MARK: &str = "selvedge complete netns=";
/// Links with this bit in their group are about to be deleted, all in one request. Not bit 31: the kernel keeps the
/// group as a signed number, and iproute2 cannot show it then.
const DOOMED_BIT: u32 = 1 << 30;

/// The name of the host's end: `sv` and twelve hex digits, 14 of the 15 characters that Linux allows.
pub fn host_interface(container: &str) -> String {
    format!("{HOST_PREFIX}{}", prefix(container))
}

/// The short form of a container id, as Docker shows it.
pub(crate) fn prefix(container: &str) -> &str {
    container.get(..CONTAINER_DIGITS).unwrap_or(container)
}

/// The container digits in a host end's name, if it is one.
pub(crate) fn container_of(interface: &str) -> Option<&str> {
    let digits = interface.strip_prefix(HOST_PREFIX)?;
    (digits.len() == CONTAINER_DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .then_some(digits)
}

/// The hardware address of a container's end: locally administered, from its address.
///
/// Given at birth, which also keeps systemd-udevd (MACAddressPolicy=persistent) from choosing another one.
pub(crate) fn container_mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x58, a, b, c, d]
}

/// The same as text, as Docker shows it: `0a:58:0a:20:00:05`.
#[must_use]
pub fn container_mac_text(address: Ipv4Addr) -> String {
    container_mac(address).map(|byte| format!("{byte:02x}")).join(":")
}

/// The hardware address of every host's end: the gateway is the same one on each wire.
pub(crate) fn host_mac(gateway: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = gateway.octets();
    [0x0a, 0x59, a, b, c, d]
}

/// The group of links that are about to be deleted.
pub(crate) fn doomed(group: u32) -> u32 {
    group | DOOMED_BIT
}

/// The mark of a complete wire: the link's alias, with the inode of the namespace that its other end is in.
///
/// The kernel gives a namespace's inode number to another one only when the first is wholly gone, and with it the
/// veth pair: as long as the link exists, the number tells this incarnation of a container from the next.
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
    fn the_mark_is_read_back() {
        assert_eq!(marked_namespace(&complete_mark(4_026_532_000)), Some(4_026_532_000));
        assert_eq!(marked_namespace("uplink to rack 7"), None);
    }

    #[test]
    fn hardware_addresses_are_local_and_unicast() {
        for mac in [container_mac(Ipv4Addr::new(10, 32, 0, 5)), host_mac(Ipv4Addr::new(169, 254, 1, 1))] {
            assert_eq!(mac[0] & 0b11, 0b10);
        }
    }
}
