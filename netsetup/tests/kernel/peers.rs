//! Other hosts: packets between their containers, whatever is in between, and repair.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use nix::sys::socket::{setsockopt, sockopt};
use selvedge_netsetup::{Datapath, Error, Fabric, Network, Peer, Settings};

use crate::lab::{Container, on_a_host, settings, sh};
use crate::landscape::{PORT, Underlay, acquaint, block, hosts, hosts_with};

/// One echo, answered within a second.
pub(crate) fn ping(from: &Container, to: Ipv4Addr) -> bool {
    from.try_sh(&format!("busybox ping -c 1 -W 1 {to}"))
}

/// Whatever is in between, all of this holds.
async fn all_reach_all(underlay: Underlay, datapath: Datapath, way: &str) {
    let room = Settings { encapsulated: way.contains("svx"), ..settings() };
    let mut hosts = hosts_with(3, underlay, room).await;
    for host in &hosts {
        // Strict everywhere: only what comes the way that our routes go passes.
        host.sh("for d in all default up0; do echo 1 > /proc/sys/net/ipv4/conf/$d/rp_filter; done");
    }
    acquaint(&mut hosts, datapath).await;
    let mut containers = Vec::new();
    for host in &hosts {
        assert!(host.routes().contains(way), "{}", host.routes());
        assert_eq!(host.tunnels().contains("vxlan"), way.contains("svx"), "{}", host.tunnels());
        containers.push(host.container(5).await);
    }
    for (place, from) in containers.iter().enumerate() {
        for to in &containers {
            assert!(ping(from, to.address), "{} to {}", from.address, to.address);
            // The host itself, with its address in the pool.
            assert!(hosts[place].try_sh(&format!("busybox ping -c 1 -W 1 {}", to.address)));
        }
    }
    let source = hosts[0].sh(&format!("ip route get {}", containers[1].address));
    assert!(source.contains("src 10.32.1.255"), "{source}");
    // The other host's address in the pool is reached from a container.
    assert!(ping(&containers[0], Ipv4Addr::new(10, 32, 2, 255)));
    // A packet as large as the wire.
    let payload = hosts[0].network.mtu() - 28;
    let large = format!("busybox ping -c 1 -W 1 -s {payload} {}", containers[1].address);
    assert!(containers[0].try_sh(&large));
}

#[test]
fn straight_over_ipv4() {
    on_a_host(|| all_reach_all(Underlay::Bridge4, Datapath::Direct, "via 192.0.2."));
}

#[test]
fn straight_over_ipv6() {
    on_a_host(|| all_reach_all(Underlay::Bridge6, Datapath::Direct, "via inet6 2001:db8::"));
}

#[test]
fn vxlan_over_ipv4() {
    on_a_host(|| all_reach_all(Underlay::Bridge4, Datapath::Vxlan, "dev svx5eh"));
}

#[test]
fn vxlan_over_ipv6() {
    on_a_host(|| all_reach_all(Underlay::Bridge6, Datapath::Vxlan, "dev svx5eh"));
}

#[test]
fn hosts_on_one_link_are_reached_straight() {
    on_a_host(|| all_reach_all(Underlay::Bridge4, Datapath::Auto, "via 192.0.2."));
    on_a_host(|| all_reach_all(Underlay::Bridge6, Datapath::Auto, "via inet6 2001:db8::"));
}

#[test]
fn hosts_behind_a_router_are_reached_by_vxlan() {
    on_a_host(|| all_reach_all(Underlay::Router4, Datapath::Auto, "dev svx5eh"));
    on_a_host(|| all_reach_all(Underlay::Router6, Datapath::Auto, "dev svx5eh"));
}

#[test]
fn straight_through_a_router_that_knows_the_blocks() {
    on_a_host(|| async {
        let mut hosts = hosts(2, Underlay::Router4).await;
        acquaint(&mut hosts, Datapath::Direct).await;
        assert!(hosts[0].routes().contains("10.32.2.0/24 via 198.51.1.254 dev up0"), "{}", hosts[0].routes());
        let (one, two) = (hosts[0].container(5).await, hosts[1].container(5).await);
        assert!(!ping(&one, two.address));
        sh("ip route add 10.32.1.0/24 via 198.51.1.1; ip route add 10.32.2.0/24 via 198.51.2.2");
        assert!(ping(&one, two.address));
    });
}

#[test]
fn udp_goes_both_ways() {
    on_a_host(|| async {
        let mut hosts = hosts(2, Underlay::Router4).await;
        acquaint(&mut hosts, Datapath::Auto).await;
        let (one, two) = (hosts[0].container(5).await, hosts[1].container(5).await);
        let server = two.socket((IpAddr::V4(two.address), 5000));
        let client = one.socket((IpAddr::V4(one.address), 0));
        client.send_to(b"there", (two.address, 5000)).unwrap();
        let mut buffer = [0; 16];
        let (length, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from.ip()), (&b"there"[..], IpAddr::V4(one.address)));
        server.send_to(b"back", from).unwrap();
        assert_eq!(client.recv(&mut buffer).unwrap(), 4);
    });
}

#[test]
fn packets_have_room_for_the_headers_of_vxlan() {
    on_a_host(|| async {
        let encapsulated = Settings { encapsulated: true, ..settings() };
        let mut hosts = hosts_with(2, Underlay::Router4, encapsulated).await;
        assert_eq!(hosts[0].network.mtu(), 1450);
        acquaint(&mut hosts, Datapath::Auto).await;
        let (one, two) = (hosts[0].container(5).await, hosts[1].container(5).await);
        assert!(one.sh("ip link show selvedge0").contains("mtu 1450"));
        assert!(hosts[0].tunnels().contains("mtu 1450"));
        // The largest packet is not cut on the way, neither inside nor outside.
        let sent = one.socket((IpAddr::V4(one.address), 0)).send_to(&[7; 1422], (two.address, 9)).unwrap();
        assert_eq!(sent, 1422);
        assert!(one.try_sh(&format!("busybox ping -c 1 -W 1 -s 1422 {}", two.address)));
        let statistics = hosts[0].sh("cat /proc/net/snmp");
        let line = statistics.lines().filter(|line| line.starts_with("Ip:")).nth(1).unwrap().to_owned();
        assert_eq!(line.split_whitespace().nth(19), Some("0"), "packets were cut: {line}");
    });
    on_a_host(|| async {
        let encapsulated = Settings { encapsulated: true, ..settings() };
        let hosts = hosts_with(1, Underlay::Router6, encapsulated.clone()).await;
        assert_eq!(hosts[0].network.mtu(), 1430);
        // Told nothing of the underlay, and without a default route: as IPv4 on Ethernet.
        assert_eq!(hosts[0].reopen(encapsulated).mtu(), 1450);
        assert_eq!(hosts[0].reopen(settings()).mtu(), 1500);
    });
}

#[test]
fn own_blocks_are_remembered() {
    on_a_host(|| async {
        let mut hosts = hosts(1, Underlay::Bridge4).await;
        hosts[0].fabric.own_blocks = vec![block(9), block(3)];
        hosts[0].weave().await;
        let next = hosts[0].reopen(settings());
        assert_eq!(next.own_blocks().await.unwrap(), [block(3), block(9)]);
        // Another Selvedge on the same host remembers its own.
        let other = hosts[0].reopen(Settings { group: 7002, ..settings() });
        assert_eq!(other.own_blocks().await.unwrap(), []);
        let theirs = Fabric { own_blocks: vec![block(77)], host_address: None, ..hosts[0].fabric.clone() };
        other.weave(&theirs).await.unwrap();
        assert_eq!(other.own_blocks().await.unwrap(), [block(77)]);
        assert_eq!(next.plan(&hosts[0].fabric).await.unwrap(), Vec::<String>::new());
        assert!(hosts[0].routes().contains("unreachable 10.32.77.0/24"));
    });
}

#[test]
fn a_free_address_of_an_own_block_is_refused_at_once() {
    on_a_host(|| async {
        let mut hosts = hosts(2, Underlay::Bridge4).await;
        acquaint(&mut hosts, Datapath::Auto).await;
        let (one, two) = (hosts[0].container(5).await, hosts[1].container(5).await);
        // Also from the other host, to which its packet would come back without the route.
        for from in [&one, &two] {
            let socket = from.socket((IpAddr::V4(from.address), 0));
            // The kernel tells of it only who asked for that.
            setsockopt(&socket, sockopt::Ipv4RecvErr, &true).unwrap();
            socket.connect(("10.32.1.77", 9)).unwrap();
            socket.send(b"x").unwrap();
            let refused = socket.recv(&mut [0; 8]).unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::HostUnreachable, "{refused}");
        }
    });
}

#[test]
fn who_cannot_be_reached_keeps_nobody_waiting() {
    on_a_host(|| async {
        let mut hosts = hosts(2, Underlay::Bridge4).await;
        let good = hosts[1].as_peer(Datapath::Auto);
        let bad = |name: &str, underlay: &str, blocks: &[&str]| Peer {
            name: name.to_owned(),
            underlay: underlay.parse().unwrap(),
            datapath: Datapath::Auto,
            destinations: blocks.iter().map(|block| block.parse().unwrap()).collect(),
        };
        hosts[0].sh("ip route add prohibit 203.0.114.0/24; ip route add blackhole 203.0.115.0/24");
        let mut sixth = bad("other family", "2001:db8::6", &["10.32.6.0/24"]);
        sixth.datapath = Datapath::Vxlan;
        hosts[0].fabric.peers = vec![
            bad("no route", "203.0.113.9", &["10.32.9.0/24"]),
            bad("refused", "203.0.114.9", &["10.32.10.0/24"]),
            bad("blackhole", "203.0.115.9", &["10.32.11.0/24"]),
            bad("itself", "192.0.2.1", &["10.32.8.0/24"]),
            sixth,
            good,
            bad("everything", "192.0.2.3", &["0.0.0.0/0", "10.32.1.0/24", "10.32.2.0/24", "10.32.7.7/32"]),
        ];
        hosts[0].weave().await;
        let routes = hosts[0].routes();
        assert!(routes.contains("10.32.2.0/24 via 192.0.2.2"), "{routes}");
        assert!(routes.contains("unreachable 10.32.1.0/24"), "{routes}");
        assert!(routes.contains("10.32.7.7 via 192.0.2.3"), "{routes}");
        assert_eq!(routes.lines().count(), 3, "{routes}");
    });
}

#[test]
fn two_at_once_do_not_disturb_each_other() {
    on_a_host(|| async {
        let mut hosts = hosts(2, Underlay::Router4).await;
        hosts[0].fabric.peers = vec![hosts[1].as_peer(Datapath::Auto)];
        let host = &hosts[0];
        let (one, two) = tokio::join!(host.network.weave(&host.fabric), host.network.weave(&host.fabric));
        assert_eq!([one.unwrap(), two.unwrap()].iter().filter(|done| **done == 0).count(), 1);
    });
}

#[test]
fn a_port_that_is_anothers_stops_vxlan_only() {
    on_a_host(|| async {
        let mut hosts = hosts(3, Underlay::Bridge4).await;
        hosts[0].sh(&format!("ip link add other type vxlan id 7 dstport {PORT} local 192.0.2.1"));
        let mut third = hosts[2].as_peer(Datapath::Vxlan);
        third.name = "third".to_owned();
        hosts[0].fabric.peers = vec![third, hosts[1].as_peer(Datapath::Direct)];
        let refused = hosts[0].network.weave(&hosts[0].fabric).await.unwrap_err();
        assert!(matches!(refused, Error::Tunnel { port: PORT, id: 7, .. }), "{refused}");
        assert!(hosts[0].routes().contains("10.32.2.0/24 via 192.0.2.2"));
        hosts[0].sh("ip link del other");
        // Now the port is a program's.
        let taken = hosts[0].socket(("0.0.0.0".parse().unwrap(), PORT));
        let refused = hosts[0].network.weave(&hosts[0].fabric).await.unwrap_err();
        assert!(refused.to_string().contains("UDP port 4789"), "{refused}");
        assert_eq!(hosts[0].tunnels(), "");
        drop(taken);
        hosts[0].weave().await;
        assert!(hosts[0].routes().contains("10.32.3.0/24 via 192.0.2.3 dev svx5eh"));
    });
}

#[test]
fn a_host_finds_its_own_address() {
    on_a_host(|| async {
        let found = async |network: &Network| network.default_underlay().await.unwrap();
        for underlay in [Underlay::Router4, Underlay::Router6] {
            let hosts = hosts(1, underlay).await;
            hosts[0].sh("ip link add other type veth peer name other1; ip addr add 203.0.113.1/24 dev other");
            hosts[0].weave().await;
            assert_eq!(found(&hosts[0].network).await, Some(hosts[0].underlay));
            sh("ip link del port1");
        }
        let hosts = hosts(1, Underlay::Bridge6).await;
        assert_eq!(found(&hosts[0].network).await, Some(hosts[0].underlay));
        hosts[0]
            .sh("ip link add other type veth peer name other1; ip addr add 2001:db8:9::1/64 dev other nodad");
        assert_eq!(found(&hosts[0].network).await, None);
    });
}

async fn a_thousand(datapath: Datapath) {
    let mut hosts = hosts(1, Underlay::Bridge4).await;
    hosts[0].sh("ip addr add 172.16.0.1/16 dev up0");
    for number in 1..=1000_u32 {
        let [_, _, high, low] = number.to_be_bytes();
        hosts[0].fabric.peers.push(Peer {
            name: number.to_string(),
            underlay: IpAddr::V4(Ipv4Addr::new(172, 16, high + 1, low)),
            datapath,
            destinations: vec![format!("10.40.{}.{}/28", number / 16, number % 16 * 16).parse().unwrap()],
        });
    }
    let begin = Instant::now();
    let done = hosts[0].network.weave(&hosts[0].fabric).await.unwrap();
    println!("{datapath:?}, {done} changes for 1000 peers: {:?}", begin.elapsed());
    let begin = Instant::now();
    assert_eq!(hosts[0].network.weave(&hosts[0].fabric).await.unwrap(), 0);
    println!("{datapath:?}, none for 1000 peers: {:?}", begin.elapsed());
    assert_eq!(hosts[0].routes().lines().count(), 1001);
    hosts[0].fabric.peers.clear();
    let begin = Instant::now();
    hosts[0].network.weave(&hosts[0].fabric).await.unwrap();
    println!("{datapath:?}, all taken out: {:?}", begin.elapsed());
    assert_eq!(hosts[0].routes().lines().count(), 1);
}

#[test]
fn a_thousand_peers() {
    on_a_host(|| a_thousand(Datapath::Auto));
    on_a_host(|| a_thousand(Datapath::Vxlan));
}
