//! Containers with an IPv6 address beside their IPv4 one: on one host and across hosts.

use std::net::{IpAddr, Ipv6Addr};

use nix::sys::socket::{setsockopt, sockopt};
use selvedge_netsetup::{Datapath, Error, Network, Settings, address6};

use crate::lab::{Container, on_a_host, settings, sh, sysctl, try_sh};
use crate::landscape::{Host, Underlay, acquaint, hosts_with};

const POOL6: &str = "fd5e:1::/64";

fn both() -> Settings {
    Settings { pool6: Some(POOL6.parse().unwrap()), encapsulated: true, ..settings() }
}

fn six(container: &Container) -> Ipv6Addr {
    address6(POOL6.parse().unwrap(), container.address)
}

/// One echo in each family.
fn ping_both(from: &Container, to: &Container) -> bool {
    let ping = |to: IpAddr| from.try_sh(&format!("busybox ping -c 1 -W 1 {to}"));
    ping(to.address.into()) && ping(six(to).into())
}

async fn attach(network: &Network, container: &Container) {
    network.connect(&container.spec()).await.unwrap();
    network.release(&container.spec()).await.unwrap();
}

async fn ready() -> Network {
    let network = Network::open(both()).await.unwrap();
    network.prepare_host().await.unwrap();
    network
}

#[test]
fn containers_reach_each_other_in_both_families() {
    on_a_host(|| async {
        let network = ready().await;
        let (one, two) = (Container::start(), Container::start());
        // As Docker leaves a container without IPv6.
        for path in ["all", "default"] {
            one.sh(&format!("sh -c 'echo 1 > /proc/sys/net/ipv6/conf/{path}/disable_ipv6'"));
        }
        for container in [&one, &two] {
            attach(&network, container).await;
        }
        assert!(ping_both(&one, &two) && ping_both(&two, &one));
        // No address but the one, no discovery on either side.
        let addresses = one.sh("ip -6 -o addr show dev selvedge0");
        assert_eq!(addresses.lines().count(), 1, "{addresses}");
        assert!(addresses.contains(&format!("{}/128", six(&one))), "{addresses}");
        for table in [sh("ip -6 neigh"), one.sh("ip -6 neigh"), two.sh("ip -6 neigh")] {
            let wires = table.lines().filter(|line| line.contains("dev s"));
            assert!(wires.clone().count() > 0, "{table}");
            assert!(wires.clone().all(|line| line.trim_end().ends_with("PERMANENT")), "{table}");
        }
        assert_eq!(sh(&format!("ip -6 addr show dev {}", one.host_end())), "");
        // The sign is in IPv4 only.
        assert_eq!(one.sh("ip -6 route show proto 83"), "");
    });
}

#[test]
fn a_wire_of_both_families_is_repaired_and_otherwise_left_alone() {
    on_a_host(|| async {
        let network = ready().await;
        let (one, two) = (Container::start(), Container::start());
        attach(&network, &one).await;
        attach(&network, &two).await;
        let next = Network::open(both()).await.unwrap();
        next.prepare_host().await.unwrap();
        attach(&next, &one).await;
        assert_eq!(next.changes(), 0);
        let end = one.host_end();
        let damages = [
            (false, format!("ip -6 route flush dev {end}")),
            (false, format!("ip neigh del {} dev {end}", six(&one))),
            (false, format!("ip -6 route add fd5e:1::77/128 dev {end} proto 83")),
            (false, format!("ip link set {end} down")),
            (false, format!("sh -c 'echo 1 > /proc/sys/net/ipv6/conf/{end}/disable_ipv6'")),
            (true, "ip -6 route flush dev selvedge0".to_owned()),
            (true, format!("ip addr del {}/128 dev selvedge0", six(&one))),
            (true, "ip neigh flush dev selvedge0 nud permanent".to_owned()),
            (true, "ip addr add fd5e:1::99/128 dev selvedge0 nodad".to_owned()),
            (true, "ip link set selvedge0 down".to_owned()),
            (true, "sh -c 'echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6'".to_owned()),
        ];
        for (inside, damage) in damages {
            _ = if inside { one.sh(&damage) } else { sh(&damage) };
            attach(&network, &one).await;
            assert!(ping_both(&one, &two) && ping_both(&two, &one), "after {damage}");
            let before = network.changes();
            attach(&network, &one).await;
            assert_eq!(network.changes(), before, "after {damage}");
        }
        assert!(!sh("ip -6 route").contains("fd5e:1::77"));
        assert!(!one.sh("ip -6 addr").contains("fd5e:1::99"));
    });
}

#[test]
fn a_host_goes_on_taking_its_routers_advertisements() {
    on_a_host(|| async {
        sh("ip link add up0 type veth peer name up1; ip link set up0 up");
        sh("ip link add quiet type veth peer name quiet1; echo 0 > /proc/sys/net/ipv6/conf/quiet/accept_ra");
        sh("echo 0 > /proc/sys/net/ipv6/conf/all/forwarding");
        assert_eq!(sysctl("ipv6/conf/up0/accept_ra"), "1");
        let network = ready().await;
        assert_eq!(sysctl("ipv6/conf/all/forwarding"), "1");
        assert_eq!(sysctl("ipv6/conf/up0/accept_ra"), "2");
        assert_eq!(sysctl("ipv6/conf/quiet/accept_ra"), "0");
        let changes = network.changes();
        // What was decided while it forwarded is not ours to change.
        sh("echo 1 > /proc/sys/net/ipv6/conf/up0/accept_ra");
        network.prepare_host().await.unwrap();
        assert_eq!((network.changes(), sysctl("ipv6/conf/up0/accept_ra").as_str()), (changes, "1"));
    });
}

#[test]
fn without_an_ipv6_pool_nothing_of_ipv6_is_touched() {
    on_a_host(|| async {
        sh("echo 0 > /proc/sys/net/ipv6/conf/all/forwarding; ip6tables -N DOCKER-USER");
        let before = sh("ip -6 addr; ip -6 route; ip6tables -S");
        let network = Network::open(settings()).await.unwrap();
        network.prepare_host().await.unwrap();
        let one = Container::start();
        attach(&network, &one).await;
        assert_eq!(sh("ip -6 addr; ip -6 route; ip6tables -S"), before);
        assert_eq!(sysctl("ipv6/conf/all/forwarding"), "0");
    });
}

#[test]
fn the_ipv6_pool_must_have_room() {
    on_a_host(|| async {
        let pool6 = "fd5e:1::/97".parse().unwrap();
        let refused = Network::open(Settings { pool6: Some(pool6), ..settings() }).await;
        assert_eq!(refused.err(), Some(Error::Pool6 { pool6 }));
    });
}

#[test]
fn dockers_ipv6_firewall_is_opened_for_the_pool_only() {
    on_a_host(|| async {
        sh("ip6tables -P FORWARD DROP");
        let network = ready().await;
        let (one, two) = (Container::start(), Container::start());
        attach(&network, &one).await;
        attach(&network, &two).await;
        assert!(!ping_both(&one, &two));
        assert!(!try_sh("ip6tables -S DOCKER-USER"));
        sh(
            "ip6tables -N DOCKER-USER; ip6tables -A DOCKER-USER -j RETURN; ip6tables -A FORWARD -j DOCKER-USER",
        );
        network.prepare_host().await.unwrap();
        let rules = sh("ip6tables -S DOCKER-USER");
        assert!(rules.contains("-s fd5e:1::a20:0/108 -d fd5e:1::a20:0/108 -i sv+ -j ACCEPT"), "{rules}");
        assert!(ping_both(&one, &two));
        let changes = network.changes();
        network.prepare_host().await.unwrap();
        assert_eq!(network.changes(), changes);
    });
}

/// Whatever is in between, all of this holds.
async fn all_reach_all(underlay: Underlay, datapath: Datapath, way: &str, way6: &str) {
    let mut hosts = hosts_with(3, underlay, both()).await;
    acquaint(&mut hosts, datapath).await;
    let mut containers = Vec::new();
    for host in &hosts {
        assert!(host.routes().contains(way), "{}", host.routes());
        let routes = host.sh("ip -6 route show proto 83");
        assert!(routes.contains(way6), "{routes}");
        containers.push(host.container(5).await);
    }
    for (place, from) in containers.iter().enumerate() {
        for to in &containers {
            assert!(ping_both(from, to), "{} to {}", from.address, to.address);
            for address in [IpAddr::V4(to.address), IpAddr::V6(six(to))] {
                assert!(
                    hosts[place].try_sh(&format!("busybox ping -c 1 -W 1 {address}")),
                    "{place}, {address}"
                );
            }
        }
    }
    let source = hosts[0].sh(&format!("ip route get {}", six(&containers[1])));
    assert!(source.contains("src fd5e:1::a20:1ff"), "{source}");
    let payload = hosts[0].network.mtu() - 48;
    let large = format!("busybox ping -c 1 -W 1 -s {payload} {}", six(&containers[1]));
    assert!(containers[0].try_sh(&large));
    free_addresses_are_refused(&containers);
}

fn free_addresses_are_refused(containers: &[Container]) {
    for from in containers {
        let socket = from.socket((IpAddr::V6(six(from)), 0));
        setsockopt(&socket, sockopt::Ipv6RecvErr, &true).unwrap();
        socket.connect(("fd5e:1::a20:14d", 9)).unwrap();
        socket.send(b"x").unwrap();
        let refused = socket.recv(&mut [0; 8]).unwrap_err();
        assert_ne!(refused.kind(), std::io::ErrorKind::WouldBlock, "{refused}");
    }
}

#[test]
fn both_families_straight() {
    // Straight over IPv4 is for IPv4 only: an IPv6 route has no IPv4 next hop.
    on_a_host(|| all_reach_all(Underlay::Bridge4, Datapath::Auto, "via 192.0.2.", "dev svx5eh"));
    on_a_host(|| all_reach_all(Underlay::Bridge6, Datapath::Auto, "via inet6 2001:db8::", "via 2001:db8::"));
}

#[test]
fn both_families_by_vxlan() {
    on_a_host(|| all_reach_all(Underlay::Router4, Datapath::Auto, "dev svx5eh", "dev svx5eh"));
    on_a_host(|| all_reach_all(Underlay::Router6, Datapath::Auto, "dev svx5eh", "dev svx5eh"));
}

async fn damage_is_repaired(hosts: &[Host], from: &Container, to: &Container) {
    let damages = [
        "ip -6 route flush proto 83 metric 1392515929",
        "ip -6 route flush dev svx5eh",
        "ip neigh flush dev svx5eh nud permanent",
        "ip link del svx5eh",
        "ip link set svx5eh down",
        "ip addr del fd5e:1::a20:1ff/128 dev lo",
        "ip route del unreachable fd5e:1::a20:100/120 metric 1392515929",
        "ip route append fd5e:1::a20:200/120 via fe80::9 dev up0 proto 83 metric 1392515929",
        "ip route replace unreachable fd5e:1::a20:200/120 proto 83 metric 1392515929",
        "echo 1 > /proc/sys/net/ipv6/conf/svx5eh/disable_ipv6",
    ];
    for damage in damages {
        assert!(ping_both(from, to), "before {damage}");
        hosts[0].sh(damage);
        assert!(
            !hosts[0].network.plan(&hosts[0].fabric).await.unwrap().is_empty(),
            "{damage} is not noticed"
        );
        hosts[0].weave().await;
        assert!(ping_both(from, to), "after {damage}");
    }
}

#[test]
fn damage_to_both_families_is_repaired() {
    on_a_host(|| async {
        let mut hosts = hosts_with(2, Underlay::Router4, both()).await;
        acquaint(&mut hosts, Datapath::Auto).await;
        let (one, two) = (hosts[0].container(5).await, hosts[1].container(5).await);
        damage_is_repaired(&hosts, &one, &two).await;
        // All gone again.
        hosts[0].fabric.peers.clear();
        hosts[0].fabric.own_blocks.clear();
        hosts[0].fabric.host_address = None;
        hosts[0].weave().await;
        assert_eq!(hosts[0].tunnels(), "");
        assert_eq!(hosts[0].sh("ip -6 route show proto 83").lines().count(), 1);
        assert!(!hosts[0].sh("ip -6 addr show dev lo").contains("fd5e"));
    });
}
