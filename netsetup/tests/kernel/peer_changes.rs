//! Ways to other hosts that are damaged from outside, and hosts that go, move or change their address.

use std::net::IpAddr;

use selvedge_netsetup::Datapath;

use crate::lab::{Container, on_a_host};
use crate::landscape::{Host, Underlay, acquaint, block, hosts};
use crate::peers::ping;

/// Changes from outside, and whether a weave repairs them.
async fn repairs(hosts: &[Host], from: &Container, to: &Container, damages: &[&str]) {
    for damage in damages {
        assert!(ping(from, to.address), "before {damage}");
        hosts[0].sh(damage);
        let plan = hosts[0].network.plan(&hosts[0].fabric).await.unwrap();
        assert!(!plan.is_empty(), "{damage} is not noticed");
        hosts[0].weave().await;
        assert!(ping(from, to.address), "after {damage}");
    }
}

#[test]
fn damage_to_vxlan_is_repaired() {
    on_a_host(|| async {
        let mut hosts = hosts(3, Underlay::Router4).await;
        acquaint(&mut hosts, Datapath::Auto).await;
        let (one, two) = (hosts[0].container(5).await, hosts[1].container(5).await);
        let damages = [
            "ip route flush proto 83 metric 1392515929",
            "ip route flush dev svx5eh",
            "bridge fdb del 0a:5a:c6:33:02:02 dev svx5eh dst 198.51.2.2 self",
            "bridge fdb replace 0a:5a:c6:33:02:02 dev svx5eh dst 198.51.3.3 self permanent",
            "ip neigh flush dev svx5eh nud permanent",
            "ip neigh replace 198.51.2.2 lladdr 0a:5a:00:00:00:01 dev svx5eh nud permanent",
            "ip link del svx5eh",
            "ip link set svx5eh down",
            "ip link set svx5eh mtu 1300",
            "ip link del svx5eh; ip link add svx5eh type vxlan id 8 dstport 4790 local 198.51.1.1",
            "ip route replace unreachable 10.32.2.0/24 proto 83 metric 1392515929",
            "ip route append 10.32.2.0/24 via 198.51.1.254 dev up0 proto 83 metric 1392515929",
            "ip route del unreachable 10.32.1.0/24 metric 1392515929",
            "ip addr del 10.32.1.255/32 dev lo",
            "echo 0 > /proc/sys/net/ipv4/conf/svx5eh/forwarding",
            "echo 1 > /proc/sys/net/ipv4/conf/svx5eh/rp_filter",
        ];
        repairs(&hosts, &one, &two, &damages).await;
        // Everything of ours, the wire's route as well.
        hosts[0].sh("ip route flush proto 83");
        hosts[0].weave().await;
        hosts[0].network.connect(&one.spec()).await.unwrap();
        assert!(ping(&one, two.address));
    });
}

async fn straight_ways_are_repaired(underlay: Underlay) {
    let mut hosts = hosts(2, underlay).await;
    acquaint(&mut hosts, Datapath::Auto).await;
    let (one, two) = (hosts[0].container(5).await, hosts[1].container(5).await);
    let damages = [
        "ip route flush proto 83 metric 1392515929",
        "ip route replace 10.32.2.0/24 dev up0 proto 83 metric 1392515929",
        "ip addr del 10.32.1.255/32 dev lo",
    ];
    repairs(&hosts, &one, &two, &damages).await;
}

#[test]
fn damage_to_straight_ways_is_repaired() {
    on_a_host(|| straight_ways_are_repaired(Underlay::Bridge4));
    on_a_host(|| straight_ways_are_repaired(Underlay::Bridge6));
}

#[test]
fn a_peer_that_goes_leaves_nothing() {
    on_a_host(|| async {
        let mut hosts = hosts(3, Underlay::Router4).await;
        acquaint(&mut hosts, Datapath::Auto).await;
        let (one, three) = (hosts[0].container(5).await, hosts[2].container(5).await);
        hosts[0].fabric.peers.remove(0);
        // A route, a next hop, a way for frames.
        assert_eq!(hosts[0].weave().await, 3);
        assert!(!hosts[0].routes().contains("10.32.2.0/24"));
        assert!(!hosts[0].sh("bridge fdb show; ip neigh show nud all").contains("198.51.2.2"));
        assert!(ping(&one, three.address));
        hosts[0].fabric.peers.clear();
        hosts[0].weave().await;
        assert_eq!(hosts[0].tunnels(), "");
        hosts[0].fabric.own_blocks.clear();
        hosts[0].fabric.host_address = None;
        assert_eq!(hosts[0].weave().await, 2);
        assert!(!hosts[0].routes().contains("unreachable"));
        assert!(!hosts[0].sh("ip addr show dev lo").contains("10.32"));
        // The wire of the container is as it was.
        assert_eq!(hosts[0].network.wires().await.unwrap()[0].address, Some(one.address));
    });
}

#[test]
fn a_block_moves_and_ways_change() {
    on_a_host(|| async {
        let mut hosts = hosts(3, Underlay::Bridge4).await;
        acquaint(&mut hosts, Datapath::Auto).await;
        let one = hosts[0].container(5).await;
        // The block of the second host is now the third's, and a container's address with it.
        let mut two = hosts[1].container(5).await;
        assert!(ping(&one, two.address));
        hosts[1].network.disconnect(&hosts[1].network.wires().await.unwrap()).await.unwrap();
        two.restart();
        hosts[2].network.connect(&two.spec()).await.unwrap();
        hosts[2].network.release(&two.spec()).await.unwrap();
        hosts[0].fabric.peers[0].destinations.clear();
        hosts[0].fabric.peers[1].destinations.push(block(2));
        // Replaced in one step.
        assert_eq!(hosts[0].weave().await, 1);
        hosts[1].fabric.own_blocks.clear();
        hosts[1].fabric.host_address = None;
        hosts[1].weave().await;
        hosts[2].fabric.peers.retain(|peer| peer.name != "host2");
        hosts[2].fabric.own_blocks.push(block(2));
        assert_eq!(hosts[2].weave().await, 1);
        assert!(ping(&one, two.address));
        for datapath in [Datapath::Vxlan, Datapath::Direct] {
            for host in &mut hosts {
                host.fabric.peers.iter_mut().for_each(|peer| peer.datapath = datapath);
            }
            hosts[0].weave().await;
            hosts[2].weave().await;
            assert!(ping(&one, two.address));
        }
        assert_eq!(hosts[0].tunnels(), "");
    });
}

#[test]
fn a_peer_changes_its_address() {
    on_a_host(|| async {
        let mut hosts = hosts(2, Underlay::Router4).await;
        acquaint(&mut hosts, Datapath::Auto).await;
        let (one, two) = (hosts[0].container(5).await, hosts[1].container(5).await);
        hosts[1].sh("ip addr add 198.51.2.9/24 dev up0");
        let new: IpAddr = "198.51.2.9".parse().unwrap();
        hosts[1].fabric.underlay = new;
        hosts[0].fabric.peers[0].underlay = new;
        hosts[1].weave().await;
        // New next hop, new way for frames, a route replaced, and the old two away.
        assert_eq!(hosts[0].weave().await, 5);
        assert!(ping(&one, two.address));
    });
}
