//! Who reaches whom, as a table.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

use selvedge_netsetup::policy::{Grant, Policy, PolicySettings, Who};

use super::bench::{
    Outcome, all_of, both, call_tcp, call_udp, enforce, here, host, inside, member, open, party, ping, six,
    tcp, udp, wired,
};
use crate::lab::{Container, on_a_host, sh};

use Outcome::{Reached, Refused};

/// All three kinds of packets, in both families.
fn everything(from: &Container, to: &Container) -> Vec<Outcome> {
    let of = |address: IpAddr| {
        let icmp = if ping(from, address) { Reached } else { Refused };
        let to = (to.pid(), address);
        [call_tcp(from.pid(), to, 7000), call_udp(from.pid(), to, 7000), icmp]
    };
    both(to).into_iter().flat_map(of).collect()
}

fn all(outcome: Outcome) -> Vec<Outcome> {
    vec![outcome; 6]
}

#[test]
fn a_tenant_reaches_its_own_and_nobody_else() {
    on_a_host(|| async {
        let network = host().await;
        let (one, two, other) = (wired(&network).await, wired(&network).await, wired(&network).await);
        let policy = Policy::new(open());
        enforce(&policy, &[member(&one, "shop"), member(&two, "shop"), member(&other, "mail")]).await;
        assert_eq!(everything(&one, &two), all(Reached));
        assert_eq!(everything(&two, &one), all(Reached));
        assert_eq!(everything(&one, &other), all(Refused));
        assert_eq!(everything(&other, &one), all(Refused));
        let refused = policy.refused().await.unwrap();
        for (from, to) in both(&one).into_iter().zip(both(&other)) {
            let of_pair = refused.iter().filter(|(refusal, _)| (refusal.from, refusal.to) == (from, to));
            let packets: u64 = of_pair.map(|(_, packets)| packets).sum();
            assert!(packets >= 3, "{refused:?}");
        }
        // Both ways, in both families, by TCP, UDP and ICMP.
        assert_eq!(refused.len(), 12, "{refused:?}");
    });
}

#[test]
fn grants_open_ports_and_nothing_more() {
    on_a_host(|| async {
        let network = host().await;
        let (caller, stranger, called) =
            (wired(&network).await, wired(&network).await, wired(&network).await);
        let ports = vec![tcp(5000, 5010), tcp(5009, 5012), tcp(6000, 6000), udp(5353)];
        let grants = vec![all_of("mail"), Grant { who: Who::Group("tenant:shop".to_owned()), ports }];
        let policy = Policy::new(open());
        let parties = [member(&caller, "shop"), member(&stranger, "other"), party(&called, "mail", grants)];
        enforce(&policy, &parties).await;
        for address in both(&called) {
            let to = (called.pid(), address);
            let table = [(5000, Reached), (5005, Reached), (5012, Reached), (6000, Reached), (5013, Refused)];
            for (port, outcome) in table {
                assert_eq!(call_tcp(caller.pid(), to, port), outcome, "{address} {port}");
                assert_eq!(call_tcp(stranger.pid(), to, port), Refused, "{address} {port}");
            }
            assert_eq!(call_udp(caller.pid(), to, 5353), Reached);
            assert_eq!(call_udp(caller.pid(), to, 5000), Refused);
            assert_eq!(call_tcp(caller.pid(), to, 5353), Refused);
            assert!(!ping(&caller, address));
        }
    });
}

#[test]
fn icmp_errors_of_a_granted_port_come_back() {
    on_a_host(|| async {
        let network = host().await;
        let (caller, called) = (wired(&network).await, wired(&network).await);
        let grants = vec![Grant { who: Who::Group("tenant:shop".to_owned()), ports: vec![udp(5353)] }];
        let policy = Policy::new(open());
        enforce(&policy, &[member(&caller, "shop"), party(&called, "mail", grants)]).await;
        let told = |to: IpAddr, port: u16| {
            let socket = inside(caller.pid(), move || UdpSocket::bind(("::", 0)).unwrap());
            socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            let to = if let IpAddr::V4(four) = to { four.to_ipv6_mapped().into() } else { to };
            socket.connect((to, port)).unwrap();
            socket.send(b"x").unwrap();
            socket.recv(&mut [0; 8]).unwrap_err().kind()
        };
        // Nobody listens there: "port unreachable" is ICMP and of that connection all the same.
        for address in both(&called) {
            assert_eq!(told(address, 5353), ErrorKind::ConnectionRefused, "{address}");
            assert_ne!(told(address, 5354), ErrorKind::ConnectionRefused, "{address}");
        }
    });
}

#[test]
fn the_granted_one_calls_back_only_by_replies() {
    on_a_host(|| async {
        let network = host().await;
        let (caller, called) = (wired(&network).await, wired(&network).await);
        let ports = vec![tcp(7000, 7000), udp(7000)];
        let grants = vec![Grant { who: Who::Group("tenant:shop".to_owned()), ports }];
        let policy = Policy::new(open());
        enforce(&policy, &[member(&caller, "shop"), party(&called, "mail", grants)]).await;
        assert_eq!(everything(&called, &caller), all(Refused));
        for address in both(&called) {
            assert_eq!(call_tcp(caller.pid(), (called.pid(), address), 7000), Reached);
            assert_eq!(call_udp(caller.pid(), (called.pid(), address), 7000), Reached);
        }
    });
}

#[test]
fn networks_and_anyone_are_let_in() {
    on_a_host(|| async {
        let network = host().await;
        let (near, far, called, free) =
            (wired(&network).await, wired(&network).await, wired(&network).await, wired(&network).await);
        let mut grants: Vec<Grant> =
            both(&near).map(|address| Grant { who: Who::Network(address.into()), ports: Vec::new() }).into();
        grants.push(Grant { who: Who::Anyone, ports: vec![tcp(8000, 8000)] });
        let world = ["0.0.0.0/0", "::/0"]
            .map(|network| Grant { who: Who::Network(network.parse().unwrap()), ports: Vec::new() });
        let policy = Policy::new(open());
        let parties = [
            member(&near, "a"),
            member(&far, "b"),
            party(&called, "c", grants),
            party(&free, "d", world.into()),
        ];
        enforce(&policy, &parties).await;
        assert_eq!(everything(&near, &called), all(Reached));
        assert_eq!(everything(&far, &called), all(Refused));
        assert_eq!(everything(&far, &free), all(Reached));
        for address in both(&called) {
            assert_eq!(call_tcp(far.pid(), (called.pid(), address), 8000), Reached);
        }
    });
}

#[test]
fn without_an_ipv6_pool_nothing_of_ipv6_is_judged() {
    on_a_host(|| async {
        let network = host().await;
        let (one, two) = (wired(&network).await, wired(&network).await);
        let policy = Policy::new(PolicySettings { pool6: None, ..open() });
        enforce(&policy, &[member(&one, "a"), member(&two, "b")]).await;
        assert!(!ping(&one, two.address.into()));
        assert!(ping(&one, six(&two)));
    });
}

#[test]
fn an_unknown_address_of_the_pool_is_refused_and_an_unknown_caller_is_not() {
    on_a_host(|| async {
        let network = host().await;
        let (known, unknown) = (wired(&network).await, wired(&network).await);
        let policy = Policy::new(open());
        enforce(&policy, &[member(&known, "shop")]).await;
        assert_eq!(everything(&known, &unknown), all(Refused));
        // Its own host let it pass: ours may hear of it a moment later.
        assert_eq!(everything(&unknown, &known), all(Reached));
        enforce(&policy, &[member(&unknown, "mail")]).await;
        assert_eq!(everything(&unknown, &known), all(Refused));
    });
}

#[test]
fn hosts_of_the_pool_are_called_by_containers_and_call_them() {
    on_a_host(|| async {
        let network = host().await;
        let (one, elsewhere) = (wired(&network).await, wired(&network).await);
        let policy = Policy::new(open());
        enforce(&policy, &[member(&one, "shop")]).await;
        // Another host, reached through a wire that plays the way to it.
        assert_eq!(everything(&one, &elsewhere), all(Refused));
        policy.set_hosts(&BTreeSet::from([elsewhere.address]));
        policy.apply().await.unwrap();
        assert_eq!(everything(&one, &elsewhere), all(Reached));
        assert_eq!(everything(&elsewhere, &one), all(Reached));
        policy.set_hosts(&BTreeSet::new());
        policy.apply().await.unwrap();
        assert_eq!(everything(&one, &elsewhere), all(Refused));
    });
}

#[test]
fn an_alias_is_its_container() {
    on_a_host(|| async {
        let network = host().await;
        let (one, two, other) = (wired(&network).await, wired(&network).await, wired(&network).await);
        sh("ip link add br0 type bridge && ip addr add 172.18.0.1/24 dev br0 && ip link set br0 up");
        for path in ["iptables", "ip6tables"] {
            sh(&format!("echo 0 > /proc/sys/net/bridge/bridge-nf-call-{path}"));
        }
        let mut parties = Vec::new();
        for (last, container, tenant) in [(2, &one, "shop"), (3, &two, "shop"), (4, &other, "mail")] {
            let pid = container.pid();
            sh(&format!("ip link add p{last} type veth peer name eth0 netns {pid}"));
            sh(&format!("ip link set p{last} master br0 up"));
            container.sh(&format!("ip addr add 172.18.0.{last}/24 dev eth0"));
            container.sh("ip link set eth0 up");
            let mut party = member(container, tenant);
            party.aliases = vec![Ipv4Addr::new(172, 18, 0, last).into()];
            parties.push(party);
        }
        let policy = Policy::new(open());
        enforce(&policy, &parties).await;
        let reach = |from: &Container, to: &Container, last: u8| {
            let address = Ipv4Addr::new(172, 18, 0, last).into();
            (call_tcp(from.pid(), (to.pid(), address), 7000), ping(from, address))
        };
        assert_eq!(reach(&one, &two, 3), (Reached, true));
        assert_eq!(reach(&one, &other, 4), (Refused, false));
        assert_eq!(reach(&other, &two, 3), (Refused, false));
        // The host itself goes by the bridge as well.
        let to = (other.pid(), Ipv4Addr::new(172, 18, 0, 4).into());
        assert_eq!(call_tcp(here(), to, 7000), Reached);
    });
}

#[test]
fn nobody_calls_with_the_ipv6_address_of_another() {
    on_a_host(|| async {
        let network = host().await;
        let (one, two, liar) = (wired(&network).await, wired(&network).await, wired(&network).await);
        two.sh("nft 'add table ip6 seen; add chain ip6 seen in { type filter hook input priority 0; }; \
                add rule ip6 seen in icmpv6 type echo-request counter'");
        let none_came = || two.sh("nft list table ip6 seen").contains("packets 0 ");
        liar.sh(&format!("ip -6 addr add {}/128 dev selvedge0 nodad", six(&one)));
        let lie = || liar.try_sh(&format!("busybox ping -c 1 -W 1 -I {} {}", six(&one), six(&two)));
        let policy = Policy::new(open());
        enforce(&policy, &[member(&one, "shop"), member(&two, "shop"), member(&liar, "mail")]).await;
        lie();
        assert!(none_came(), "a lie got through");
        assert!(ping(&one, six(&two)), "the truth does");
        assert!(!none_came());
        policy.withdraw().await.unwrap();
        two.sh("nft flush chain ip6 seen in");
        two.sh("nft add rule ip6 seen in icmpv6 type echo-request counter");
        lie();
        assert!(!none_came(), "without a policy it would have");
    });
}
