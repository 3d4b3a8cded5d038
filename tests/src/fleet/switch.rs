//! The links between hosts, the router between the links, and the faults: one namespace with bridges.

use crate::host::Host;

/// A namespace that is the links and the router. The registry's members are on the link 9.
#[derive(Debug)]
pub struct Switch {
    host: Host,
}

/// The link of the registry.
pub const STORE_LINK: usize = 9;

impl Switch {
    /// A switch with this many links for hosts, and one for the registry.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new(links: usize) -> Self {
        let host = Host::new();
        host.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1").ok();
        for link in (1..=links).chain([STORE_LINK]) {
            // No router advertisements and no duplicate address detection: nothing to wait for.
            host.sh(&format!(
                "ip link add br{link} type bridge mcast_snooping 0 && sysctl -qw net.ipv6.conf.br{link}.accept_dad=0 && \
                 ip link set br{link} up && ip addr add 192.168.{link}.254/24 dev br{link} && \
                 ip -6 addr add fd00:{link}::254/64 dev br{link} nodad"
            ))
            .ok();
        }
        Self { host }
    }

    /// Plugs a host into a link (from 0) with a number (from 1); the address by which others shall know it.
    ///
    /// # Panics
    /// When it cannot be plugged.
    #[must_use]
    pub fn plug(&self, host: &Host, link: usize, number: usize, by_ipv6: bool) -> String {
        self.join(host, link + 1, number);
        match by_ipv6 {
            true => format!("fd00:{}::{number}", link + 1),
            false => format!("192.168.{}.{number}", link + 1),
        }
    }

    /// Plugs a member of the registry in.
    pub(crate) fn plug_store(&self, host: &Host, number: usize) -> String {
        self.join(host, STORE_LINK, number);
        format!("192.168.{STORE_LINK}.{number}")
    }

    fn join(&self, host: &Host, link: usize, number: usize) {
        let port = format!("p{link}x{number}");
        // The hardware address tells the host: faults are by it.
        let mac = mac(link, number);
        self.host
            .sh(&format!(
                "ip link add {port} type veth peer name eth0 address {mac} netns {} && ip link set {port} master br{link} up",
                host.netns
            ))
            .ok();
        host.sh(&format!(
            "sysctl -qw net.ipv6.conf.eth0.accept_dad=0; ip link set eth0 up && ip addr add 192.168.{link}.{number}/24 dev eth0 && \
             ip -6 addr add fd00:{link}::{number}/64 dev eth0 nodad && ip route add default via 192.168.{link}.254 && \
             ip -6 route add default via fd00:{link}::254"
        ))
        .ok();
    }

    /// Drops all packets between two hosts: on one link by their hardware addresses, between links by the underlay's.
    pub fn cut(&self, one: &Host, other: &Host) {
        let (one, other) = (Place::of(one), Place::of(other));
        self.faults();
        for (from, to) in [(&one, &other), (&other, &one)] {
            self.rule(&format!("bridge faults link ether saddr {} ether daddr {} drop", from.mac, to.mac));
            self.rule(&format!("inet faults router ip saddr {} ip daddr {} drop", from.ip, to.ip));
            self.rule(&format!("inet faults router ip6 saddr {} ip6 daddr {} drop", from.ip6, to.ip6));
        }
    }

    /// Drops all packets between a host and the registry.
    pub fn cut_from_store(&self, host: &Host) {
        let host = Place::of(host);
        self.faults();
        let store = format!("192.168.{STORE_LINK}.0/24");
        self.rule(&format!("inet faults router ip saddr {} ip daddr {store} drop", host.ip));
        self.rule(&format!("inet faults router ip saddr {store} ip daddr {} drop", host.ip));
    }

    /// All packets pass again.
    pub fn heal(&self) {
        self.host.sh("nft delete table bridge faults; nft delete table inet faults");
    }

    fn faults(&self) {
        let chain = |family: &str, name: &str| {
            format!(
                "add table {family} faults\nadd chain {family} faults {name} {{ type filter hook forward priority 0; }}\n"
            )
        };
        let text = chain("bridge", "link") + &chain("inet", "router");
        crate::shell::run(self.host.command("nft").args(["-f", "-"]), text.as_bytes()).ok();
    }

    fn rule(&self, rule: &str) {
        self.host.sh(&format!("nft add rule {rule}")).ok();
    }
}

fn mac(link: usize, number: usize) -> String {
    format!("02:00:00:00:{link:02x}:{number:02x}")
}

/// Where a host is plugged in.
struct Place {
    mac: String,
    ip: String,
    ip6: String,
}

impl Place {
    fn of(host: &Host) -> Self {
        // Not from /sys, which is the machine's.
        let link = host.sh("ip -br link show dev eth0").stdout;
        let mac = link.split_whitespace().nth(2).unwrap_or("02:ff:ff:ff:ff:ff").to_owned();
        // A killed host's link is down, and its addresses are as they were.
        let own = host.sh("ip -4 -o addr show dev eth0").stdout;
        let ip = own.split_whitespace().nth(3).and_then(|net| net.split('/').next()).unwrap_or("0.0.0.0");
        let mut parts = ip.split('.').skip(2);
        let (link, number) = (parts.next().unwrap_or("0"), parts.next().unwrap_or("0"));
        Self { mac, ip: ip.to_owned(), ip6: format!("fd00:{link}::{number}") }
    }
}
