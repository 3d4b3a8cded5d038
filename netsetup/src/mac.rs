//! MAC addresses of wires: derived from the IP address, so that both sides know the other's without asking.

use std::net::Ipv4Addr;

/// The host's end of every wire. Locally administered; point to point, so it may be the same everywhere.
pub(crate) const HOST: [u8; 6] = [0x02, 0x53, 0x45, 0x4c, 0x56, 0x01];

/// The container's end: a locally administered prefix and the four bytes of the address.
pub(crate) fn of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x58, a, b, c, d]
}

/// The MAC address of a container's wire, as text: `0a:58:0a:20:00:05`.
#[must_use]
pub fn container_mac(address: Ipv4Addr) -> String {
    of(address).map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_is_its_address() {
        assert_eq!(container_mac(Ipv4Addr::new(10, 32, 0, 5)), "0a:58:0a:20:00:05");
    }
}
