//! Only the container that has an address of the pool sends with it, on its wire; and only peers send by VXLAN.

use std::net::Ipv4Addr;

use selvedge_netsetup::{Datapath, Network, Settings};

use crate::lab::{Container, next_worker, on_a_host, settings, sh, try_sh};
use crate::landscape::{Underlay, acquaint, hosts_with};

/// The table of the rules in all tests.
const TABLE: &str = "inet selvedge_src_00001b59";

/// How many echo requests a container has received, by IPv4 and by IPv6.
fn echos(container: &Container) -> u64 {
    let four = container.sh("awk '/^Icmp: [0-9]/ {print $10}' /proc/net/snmp");
    let six = container.sh("awk '/^Icmp6InEchos / {print $2}' /proc/net/snmp6");
    four.trim().parse::<u64>().unwrap() + six.trim().parse::<u64>().unwrap()
}

/// Whether an echo request with this source, sent by `from` over its own interface, comes to `to`.
fn arrives(from: &Container, source: &str, to: &Container, target: &str) -> bool {
    let before = echos(to);
    let length = if source.contains(':') { "128 nodad" } else { "32" };
    from.try_sh(&format!("ip addr add {source}/{length} dev eth0"));
    from.try_sh(&format!("busybox ping -c 1 -W 1 -I {source} {target}"));
    echos(to) > before
}

/// A container on a bridge of the engine's, without a wire; its way out is that bridge.
fn on_a_bridge(bridge: &str) -> Container {
    let container = Container::start();
    let (pid, end) = (container.pid(), format!("v{}", container.pid()));
    sh(&format!(
        "ip link add {end} type veth peer name eth0 netns {pid} && ip link set {end} master {bridge} up"
    ));
    container.sh("ip link set eth0 up");
    container.sh("ip addr add 172.20.0.2/16 dev eth0");
    container.sh("ip -6 addr add fd99::2/64 dev eth0 nodad");
    container.sh("ip route add default via 172.20.0.1");
    container.sh("ip -6 route add default via fd99::1");
    container
}

async fn guarded() -> Network {
    let network =
        Network::open(Settings { pool6: Some("fd53:1::/96".parse().unwrap()), ..settings() }).await.unwrap();
    network.prepare_host().await.unwrap();
    network.is_alone().await.unwrap();
    network
}

async fn attached(network: &Network) -> Container {
    let container = Container::start();
    network.connect(&container.spec()).await.unwrap();
    network.release(&container.spec()).await.unwrap();
    container
}

fn six(address: Ipv4Addr) -> String {
    selvedge_netsetup::address6("fd53:1::/96".parse().unwrap(), address).to_string()
}

#[test]
fn a_container_sends_with_its_own_address_on_every_interface() {
    on_a_host(|| async {
        sh(
            "ip link add br0 type bridge && ip addr add 172.20.0.1/16 dev br0 && ip -6 addr add fd99::1/64 dev br0 nodad",
        );
        sh("ip link set br0 up");
        let network = guarded().await;
        let (victim, other) = (attached(&network).await, attached(&network).await);
        let (victim4, victim6) = (victim.address.to_string(), six(victim.address));
        // Honest ones come: over wires, and from the engine's bridge with the address that is there.
        assert!(other.try_sh(&format!("busybox ping -c 1 -W 2 {victim4}")));
        assert!(other.try_sh(&format!("busybox ping -c 1 -W 2 {victim6}")));
        let thief = on_a_bridge("br0");
        assert!(arrives(&thief, "172.20.0.2", &victim, &victim4));
        let stolen = [other.address.to_string(), "10.32.200.9".to_owned(), "10.47.0.1".to_owned()];
        for source in &stolen {
            assert!(!arrives(&thief, source, &victim, &victim4), "{source} over the engine's bridge");
        }
        for source in [six(other.address), six(Ipv4Addr::new(10, 32, 200, 9))] {
            assert!(!arrives(&thief, &source, &victim, &victim6), "{source} over the engine's bridge");
        }
        // With the default route over the bridge too, an address that nobody has is nobody's.
        sh("ip route add default via 172.20.0.2");
        network.mind_firewalls().await.unwrap();
        assert!(!arrives(&thief, "10.32.200.10", &victim, &victim4), "over the default route's interface");
        assert!(arrives(&thief, "172.20.0.2", &victim, &victim4));
        // And the check that sees nothing would pass all of this.
        sh(&format!("nft delete table {TABLE}"));
        assert!(arrives(&thief, "10.32.200.10", &victim, &victim4), "without the rules it comes");
        network.mind_firewalls().await.unwrap();
        assert!(!arrives(&thief, "10.32.200.10", &victim, &victim4), "they are back");
    });
}

#[test]
fn rules_that_are_right_are_left_alone_and_others_are_mended() {
    on_a_host(|| async {
        let network = guarded().await;
        let before = network.changes();
        network.mind_firewalls().await.unwrap();
        assert_eq!(network.changes(), before);
        let next = next_worker().await;
        next.is_alone().await.unwrap();
        let listed = sh(&format!("nft list table {TABLE}"));
        for damage in [
            format!("nft flush chain {TABLE} prerouting"),
            format!("nft insert rule {TABLE} prerouting accept"),
            format!("nft delete table {TABLE}"),
            format!("nft add element {TABLE} blocks4 '{{ 10.40.0.0/24 }}'"),
        ] {
            sh(&damage);
            next.mind_firewalls().await.unwrap();
            assert_eq!(sh(&format!("nft list table {TABLE}")), listed, "{damage}");
        }
        // A worker that finds all right writes nothing.
        let third = next_worker().await;
        third.is_alone().await.unwrap();
        assert_eq!(third.changes(), 0);
    });
}

#[test]
fn frames_of_strangers_are_not_taken_for_a_peers() {
    on_a_host(|| async {
        let room = Settings { encapsulated: true, ..settings() };
        let mut hosts = hosts_with(3, Underlay::Bridge4, room).await;
        let stranger = hosts.pop().unwrap();
        acquaint(&mut hosts, Datapath::Vxlan).await;
        let (victim, honest) = (hosts[0].container(5).await, hosts[1].container(5).await);
        assert!(honest.try_sh(&format!("busybox ping -c 1 -W 2 {}", victim.address)));
        // A device like ours, whose frames are for the first host, from an address of the second one's.
        let mac = hosts[0].sh("ip -br link show type vxlan | cut -c34-50");
        stranger
            .sh("ip link add forged type vxlan id 7 dstport 4789 remote 192.0.2.1 && ip link set forged up");
        stranger.sh(&format!("ip addr add {}/32 dev lo", honest.address));
        stranger.sh(&format!(
            "ip route add {} dev forged && ip neigh add {} lladdr {} dev forged",
            victim.address,
            victim.address,
            mac.trim()
        ));
        let before = echos(&victim);
        stranger.try_sh(&format!("busybox ping -c 2 -W 1 -I {} {}", honest.address, victim.address));
        assert_eq!(echos(&victim), before, "a stranger's frame came through");
        hosts[0].sh(&format!("nft delete table {TABLE}"));
        stranger.try_sh(&format!("busybox ping -c 2 -W 1 -I {} {}", honest.address, victim.address));
        assert!(echos(&victim) > before, "without the rules it comes");
        assert!(!try_sh("ip link show forged"), "all of it in its own namespace");
    });
}
