//! The four things that are allowed or refused to all containers alike.

use std::net::{IpAddr, Ipv4Addr};

use selvedge_netsetup::policy::{Policy, PolicySettings, Verdict};

use super::bench::{
    Outcome, both, call_tcp, call_udp, connect, enforce, here, host, member, open, ping, wired,
};
use crate::lab::{Container, GATEWAY, on_a_host, settled, sh, sleeper};

use Outcome::{Reached, Refused};
use Verdict::{Allow, Deny};

fn to_host(from: &Container, port: u16) -> [Outcome; 2] {
    let to = (here(), GATEWAY.into());
    [call_tcp(from.pid(), to, port), call_udp(from.pid(), to, port)]
}

#[test]
fn the_host_is_open_or_closed() {
    on_a_host(|| async {
        let network = host().await;
        let one = wired(&network).await;
        for (verdict, outcome) in [(Allow, Reached), (Deny, Refused), (Allow, Reached)] {
            let policy = Policy::new(PolicySettings { host: verdict, ..open() });
            enforce(&policy, &[member(&one, "shop")]).await;
            assert_eq!(to_host(&one, 7000), [outcome; 2], "{verdict:?}");
            assert_eq!(to_host(&one, 53), [Reached; 2], "{verdict:?}");
            assert_eq!(ping(&one, GATEWAY.into()), verdict == Allow);
            for address in both(&one).into_iter().take(1) {
                assert_eq!(call_tcp(here(), (one.pid(), address), 7000), outcome, "{verdict:?}");
            }
        }
    });
}

#[test]
fn dns_is_open_or_closed_whatever_the_host_is() {
    on_a_host(|| async {
        let network = host().await;
        let one = wired(&network).await;
        for host in [Allow, Deny] {
            let policy = Policy::new(PolicySettings { host, names: Deny, ..open() });
            enforce(&policy, &[member(&one, "shop")]).await;
            assert_eq!(to_host(&one, 53), [Refused; 2]);
            assert_eq!(to_host(&one, 7000), [if host == Allow { Reached } else { Refused }; 2]);
        }
    });
}

/// Somebody outside the pool, behind a router that is the host.
fn world() -> crate::lab::Sleeper {
    let world = sleeper();
    settled(world.id());
    let pid = world.id();
    sh(&format!("ip link add up0 type veth peer name eth0 netns {pid}"));
    sh("ip addr add 192.0.2.1/24 dev up0; ip link set up0 up");
    let inside = "ip addr add 192.0.2.9/24 dev eth0; ip link set eth0 up; ip link set lo up; ip route add default via 192.0.2.1";
    sh(&format!("nsenter -t {pid} -n sh -c '{inside}'"));
    world
}

const WORLD: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9));
const BRIDGED: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 18, 0, 2));

/// As the engine gives a container a bridge and a published port.
fn publish(container: &Container) {
    sh("ip link add br0 type bridge; ip addr add 172.18.0.1/24 dev br0; ip link set br0 up");
    sh(&format!("ip link add p0 type veth peer name eth0 netns {}", container.pid()));
    sh("ip link set p0 master br0 up");
    for command in
        ["ip addr add 172.18.0.2/24 dev eth0", "ip link set eth0 up", "ip route add default via 172.18.0.1"]
    {
        container.sh(command);
    }
    sh("iptables -t nat -A PREROUTING -p tcp --dport 8080 -j DNAT --to-destination 172.18.0.2:80");
}

#[test]
fn the_way_out_is_open_or_closed_and_published_ports_answer_all_the_same() {
    on_a_host(|| async {
        let network = host().await;
        let one = wired(&network).await;
        let world = world();
        publish(&one);
        let mut party = member(&one, "shop");
        party.aliases = vec![BRIDGED];
        for (out, published) in [(Allow, Allow), (Deny, Allow), (Allow, Deny), (Deny, Deny)] {
            let policy = Policy::new(PolicySettings { out, published, ..open() });
            enforce(&policy, std::slice::from_ref(&party)).await;
            let outcome = |verdict| if verdict == Allow { Reached } else { Refused };
            assert_eq!(call_tcp(one.pid(), (world.id(), WORLD), 7000), outcome(out), "{out:?}");
            let listener =
                super::bench::inside(one.pid(), || std::net::TcpListener::bind((BRIDGED, 80)).unwrap());
            let called = connect(world.id(), "192.0.2.1:8080".parse().unwrap());
            assert_eq!(called.is_ok(), published == Allow, "{out:?} {published:?}");
            drop(listener);
            // Not by the bridge's own address, as anybody could route there.
            assert_eq!(call_tcp(world.id(), (one.pid(), BRIDGED), 81), Refused);
        }
    });
}
