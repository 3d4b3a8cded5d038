//! What the host gets, and what two Selvedges on one host leave each other.

use selvedge_netsetup::{Fabric, Network, Settings, Severity, preflight};

use crate::lab::{Container, next_worker, on_a_host, ready_network, settings, sh, sysctl, try_sh};

fn docker_user() -> String {
    sh("iptables -S DOCKER-USER")
}

#[test]
fn the_host_is_prepared_once() {
    on_a_host(|| async {
        sh("echo 0 > /proc/sys/net/ipv4/ip_forward");
        let network = ready_network().await;
        assert_eq!(network.changes(), 2);
        assert_eq!(sysctl("ipv4/ip_forward"), "1");
        assert!(sh("ip -o addr show dev lo").contains("169.254.1.1/32 scope host"));
        network.prepare_host().await.unwrap();
        assert_eq!(network.changes(), 2);
    });
}

#[test]
fn a_dns_address_of_its_own_is_reached_too() {
    on_a_host(|| async {
        let dns = std::net::Ipv4Addr::new(169, 254, 1, 53);
        let network = Network::open(Settings { dns, ..settings() }).await.unwrap();
        network.prepare_host().await.unwrap();
        let container = Container::start();
        network.connect(&container.spec()).await.unwrap();
        container.sh(&format!("busybox ping -c 1 -W 1 {dns}"));
    });
}

#[test]
fn dockers_firewall_is_opened_for_the_pool_only() {
    on_a_host(|| async {
        sh("iptables -P FORWARD DROP; iptables -N DOCKER-USER; iptables -A DOCKER-USER -j RETURN");
        sh("iptables -A FORWARD -j DOCKER-USER");
        let network = ready_network().await;
        let (one, two) = (Container::start(), Container::start());
        for container in [&one, &two] {
            network.connect(&container.spec()).await.unwrap();
            network.release(&container.spec()).await.unwrap();
        }
        one.sh(&format!("busybox ping -c 1 -W 1 {}", two.address));
        let rules = docker_user();
        assert!(rules.contains("-s 10.32.0.0/12 -d 10.32.0.0/12 -i sv+ -j ACCEPT"), "{rules}");
        let again = next_worker().await;
        again.prepare_host().await.unwrap();
        assert_eq!(again.changes(), 0);
        assert_eq!(docker_user(), rules);
        // dockerd empties the chain when it starts.
        sh("iptables -F DOCKER-USER; iptables -A DOCKER-USER -j RETURN");
        assert!(!one.try_sh(&format!("busybox ping -c 1 -W 1 {}", two.address)));
        again.prepare_host().await.unwrap();
        assert_eq!(docker_user(), rules);
        // The way to anywhere else stays as closed as Docker had it.
        sh(
            "ip link add out0 type veth peer name out1; ip addr add 192.0.2.1/24 dev out0; ip link set out0 up",
        );
        one.sh("ip route add 192.0.2.0/24 via 169.254.1.1");
        assert!(!one.try_sh("busybox ping -c 1 -W 1 192.0.2.9"));
    });
}

#[test]
fn no_chain_is_made_where_docker_has_none() {
    on_a_host(|| async {
        let network = ready_network().await;
        let changes = network.changes();
        assert!(!try_sh("iptables -S DOCKER-USER"));
        network.prepare_host().await.unwrap();
        assert_eq!(network.changes(), changes);
    });
}

#[test]
fn two_selvedges_leave_each_other_alone() {
    on_a_host(|| async {
        sh("iptables -P FORWARD DROP; iptables -N DOCKER-USER; iptables -A FORWARD -j DOCKER-USER");
        let network = ready_network().await;
        let other = Settings { pool: "10.96.0.0/16".parse().unwrap(), group: 7002, ..settings() };
        let other = Network::open(other).await.unwrap();
        other.prepare_host().await.unwrap();
        let (ours, mut theirs) = (Container::start(), Container::start());
        theirs.address = std::net::Ipv4Addr::new(10, 96, 0, 9);
        network.connect(&ours.spec()).await.unwrap();
        network.release(&ours.spec()).await.unwrap();
        other.connect(&theirs.spec()).await.unwrap();
        other.release(&theirs.spec()).await.unwrap();
        let (left, right) = (network.wires().await.unwrap(), other.wires().await.unwrap());
        assert_eq!((left.len(), right.len()), (1, 1));
        assert_eq!(docker_user().lines().filter(|line| line.contains("ACCEPT")).count(), 4);
        assert!(other.connect(&ours.spec()).await.is_err());
        other.disconnect(&right).await.unwrap();
        assert!(try_sh(&format!("ip link show {}", ours.host_end())));
        assert!(!try_sh(&format!("ip link show {}", theirs.host_end())));
    });
}

#[test]
fn the_size_of_packets_follows_the_default_route() {
    on_a_host(|| async {
        sh("ip link add up0 mtu 1450 type veth peer name up1; ip link set up0 up; ip link set up1 up");
        sh("ip addr add 192.0.2.1/24 dev up0; ip route add default via 192.0.2.2");
        let network = ready_network().await;
        assert_eq!(network.mtu(), 1450);
        let container = Container::start();
        network.connect(&container.spec()).await.unwrap();
        assert!(container.sh("ip link show selvedge0").contains("mtu 1450"));
        assert!(sh(&format!("ip link show {}", container.host_end())).contains("mtu 1450"));
    });
}

fn told(severity: Severity) -> Vec<String> {
    let findings = preflight(&settings()).into_iter();
    findings.filter(|finding| finding.severity >= severity).map(|finding| finding.message).collect()
}

#[test]
fn a_good_host_has_nothing_to_be_told() {
    on_a_host(|| async {
        let network = ready_network().await;
        let container = Container::start();
        network.connect(&container.spec()).await.unwrap();
        let before = sh("ip link; ip route; ip addr");
        assert_eq!(told(Severity::Note), Vec::<String>::new());
        assert_eq!(sh("ip link; ip route; ip addr"), before);
    });
}

#[test]
fn the_hosts_own_address_in_the_pool_is_no_clash() {
    on_a_host(|| async {
        let network = ready_network().await;
        let fabric = Fabric {
            underlay: "192.0.2.1".parse().unwrap(),
            own_blocks: vec!["10.32.1.0/24".parse().unwrap()],
            host_address: Some("10.32.1.255".parse().unwrap()),
            peers: Vec::new(),
            vxlan_port: 4789,
            vxlan_id: 7,
        };
        network.weave(&fabric).await.unwrap();
        assert_eq!(told(Severity::Note), Vec::<String>::new());
        sh("ip addr add 10.32.1.254/32 dev lo");
        assert_eq!(told(Severity::Note).len(), 1);
    });
}

#[test]
fn clashes_and_lacks_are_told() {
    on_a_host(|| async {
        sh("ip link add up0 type veth peer name up1; ip link set up0 up; ip link set up1 up");
        let cases = [
            ("ip addr add 10.33.0.1/24 dev up0", Severity::Fatal, "10.33.0.1 on up0"),
            ("ip route add 10.40.0.0/16 dev up0", Severity::Fatal, "10.40.0.0/16 over up0"),
            ("ip route add 10.0.0.0/8 dev up0", Severity::Warning, "a part of 10.0.0.0/8"),
            ("ip addr add 169.254.1.1/16 dev up0", Severity::Warning, "169.254.1.1"),
            ("echo 2 > /proc/sys/net/ipv4/conf/all/rp_filter", Severity::Warning, "rp_filter is 2"),
            ("iptables -P FORWARD DROP", Severity::Warning, "no chain DOCKER-USER"),
            // As dockerd with its nftables backend leaves it behind until the next boot.
            ("iptables -N DOCKER-USER", Severity::Warning, "nothing leads to the chain DOCKER-USER"),
            (
                "nft add table inet mine; nft add chain inet mine pass '{ type filter hook forward priority 0; policy drop; }'",
                Severity::Warning,
                "nft's chain \"inet mine pass\" drops",
            ),
        ];
        for (change, severity, words) in cases {
            assert!(!told(severity).iter().any(|message| message.contains(words)), "before {change}");
            sh(change);
            assert!(told(severity).iter().any(|message| message.contains(words)), "after {change}");
        }
    });
}

#[test]
fn a_firewall_that_lets_the_pool_pass_is_not_told() {
    on_a_host(|| async {
        let pool = settings().pool;
        sh("iptables -P FORWARD DROP");
        sh(
            "nft add table inet mine; nft add chain inet mine pass '{ type filter hook forward priority 0; policy drop; }'",
        );
        assert_eq!(told(Severity::Warning).len(), 2);
        sh(&format!("iptables -A FORWARD -s {pool} -d {pool} -j ACCEPT"));
        sh(&format!("nft add rule inet mine pass ip saddr {pool} ip daddr {pool} accept"));
        assert_eq!(told(Severity::Note), Vec::<String>::new());
    });
}

#[test]
fn a_user_without_rights_is_told() {
    on_a_host(|| async {
        let findings = std::thread::spawn(|| {
            // Only this thread loses its rights: a raw system call, since libc's wrapper would tell all threads.
            // SAFETY: takes three numbers.
            let left = unsafe { nix::libc::syscall(nix::libc::SYS_setresuid, 1000, 1000, 1000) };
            assert_eq!(left, 0);
            told(Severity::Fatal)
        });
        let findings = findings.join().unwrap();
        assert!(findings.iter().any(|message| message.contains("CAP_NET_ADMIN")), "{findings:?}");
        assert!(findings.iter().any(|message| message.contains("CAP_SYS_ADMIN")), "{findings:?}");
    });
}
