//! Packets go where they should, at once, and nowhere else.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use crate::lab::{Container, GATEWAY, on_a_host, ready_network, sh, sysctl};

/// One echo, answered within a second.
fn ping(from: &Container, to: impl std::fmt::Display) -> bool {
    from.try_sh(&format!("busybox ping -c 1 -W 1 {to}"))
}

#[test]
fn containers_and_the_host_reach_each_other_both_ways() {
    on_a_host(|| async {
        let network = ready_network().await;
        let (one, two) = (Container::start(), Container::start());
        for container in [&one, &two] {
            network.connect(&container.spec()).await.unwrap();
            network.release(&container.spec()).await.unwrap();
        }
        assert!(ping(&one, two.address));
        assert!(ping(&two, one.address));
        assert!(ping(&one, GATEWAY));
        sh(&format!("busybox ping -c 1 -W 1 {}", two.address));
        // A packet as large as the wire, which must not be cut.
        assert!(one.try_sh(&format!("busybox ping -c 1 -W 1 -s 1472 {}", two.address)));
    });
}

#[test]
fn the_host_is_seen_as_the_gateway() {
    on_a_host(|| async {
        let network = ready_network().await;
        let one = Container::start();
        network.connect(&one.spec()).await.unwrap();
        sh(
            "ip link add up0 type veth peer name up1 && ip addr add 192.0.2.7/24 dev up0 && ip link set up0 up",
        );
        assert!(sh(&format!("ip route get {}", one.address)).contains(&format!("src {GATEWAY}")));
        // Neither may the kernel take that address for packets to anywhere else.
        assert!(sh("ip route get 192.0.2.9").contains("src 192.0.2.7"));
    });
}

#[test]
fn the_first_packet_is_not_lost() {
    on_a_host(|| async {
        let network = ready_network().await;
        for _ in 0..20 {
            let container = Container::start();
            network.connect(&container.spec()).await.unwrap();
            network.release(&container.spec()).await.unwrap();
            // The kernel of the container answers a closed port with ICMP, which this socket tells as an error.
            let socket = UdpSocket::bind((GATEWAY, 0)).unwrap();
            socket.connect((container.address, 9)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            let begin = Instant::now();
            socket.send(b"x").unwrap();
            let answer = socket.recv(&mut [0; 8]).unwrap_err();
            assert_eq!(answer.kind(), std::io::ErrorKind::ConnectionRefused);
            assert!(begin.elapsed() < Duration::from_millis(20), "{:?}", begin.elapsed());
        }
    });
}

#[test]
fn nobody_sends_with_anothers_address() {
    on_a_host(|| async {
        let network = ready_network().await;
        let (one, two, liar) = (Container::start(), Container::start(), Container::start());
        for container in [&one, &two, &liar] {
            network.connect(&container.spec()).await.unwrap();
            network.release(&container.spec()).await.unwrap();
        }
        assert_eq!(sysctl(&format!("ipv4/conf/{}/rp_filter", liar.host_end())), "1");
        liar.sh(&format!("ip addr add {}/32 dev lo", one.address));
        assert!(ping(&liar, two.address));
        let received = |container: &Container| {
            let statistics = container.sh("cat /proc/net/snmp");
            let line = statistics.lines().filter(|line| line.starts_with("Icmp:")).nth(1).unwrap().to_owned();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        let before = received(&two);
        assert!(!liar.try_sh(&format!("busybox ping -c 1 -W 1 -I {} {}", one.address, two.address)));
        assert_eq!(received(&two), before);
    });
}

#[test]
fn there_is_no_arp_on_a_wire() {
    on_a_host(|| async {
        let network = ready_network().await;
        let (one, two) = (Container::start(), Container::start());
        for container in [&one, &two] {
            network.connect(&container.spec()).await.unwrap();
            network.release(&container.spec()).await.unwrap();
        }
        assert!(ping(&one, two.address));
        for table in [sh("ip neigh"), one.sh("ip neigh"), two.sh("ip neigh")] {
            assert!(table.lines().all(|line| line.trim_end().ends_with("PERMANENT")), "{table}");
        }
    });
}

#[test]
fn ipv6_stays_off_the_wire() {
    on_a_host(|| async {
        let network = ready_network().await;
        let one = Container::start();
        network.connect(&one.spec()).await.unwrap();
        assert_eq!(sh(&format!("ip -6 addr show dev {}", one.host_end())), "");
        assert_eq!(one.sh("ip -6 addr show dev selvedge0"), "");
    });
}
