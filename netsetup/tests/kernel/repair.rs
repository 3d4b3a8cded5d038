//! What another process left half done is finished, and what is right is left alone.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use selvedge_netsetup::{Error, Network, WireSpec};

use crate::lab::{Container, next_worker, on_a_host, ready_network, sh, sysctl, try_sh};

async fn attach(network: &Network, container: &Container) {
    network.connect(&container.spec()).await.unwrap();
    network.release(&container.spec()).await.unwrap();
}

/// All that makes a wire, as text, without what differs from one wire to the next.
fn picture(container: &Container) -> String {
    let host_end = container.host_end();
    let parts = [
        sh(&format!(
            "ip -d link show {host_end} | grep -o 'mtu [0-9]*\\|state [A-Z]*\\|group [0-9]*\\|alias.*'"
        )),
        sh(&format!("ip link show {host_end} | grep -o 'link/ether [^ ]*'")),
        sh(&format!("ip route show dev {host_end}")),
        sh(&format!("ip neigh show dev {host_end}")),
        sysctl(&format!("ipv4/conf/{host_end}/rp_filter")),
        sysctl(&format!("ipv4/conf/{host_end}/forwarding")),
        sysctl(&format!("ipv6/conf/{host_end}/accept_ra")),
        sysctl(&format!("ipv6/conf/{host_end}/addr_gen_mode")),
        container.sh("ip -o link show selvedge0 | grep -o 'mtu [0-9]*\\|state [A-Z]*\\|link/ether [^ ]*'"),
        container.sh("ip -o addr show dev selvedge0"),
        container.sh("ip route show"),
        container.sh("ip neigh show"),
        container.sh("cat /proc/sys/net/ipv6/conf/selvedge0/accept_ra"),
        container.sh("cat /proc/sys/net/ipv6/conf/selvedge0/addr_gen_mode"),
    ];
    parts.join("\n")
}

#[test]
fn a_wire_that_is_right_is_not_touched() {
    on_a_host(|| async {
        let network = ready_network().await;
        let container = Container::start();
        attach(&network, &container).await;
        let next = next_worker().await;
        next.prepare_host().await.unwrap();
        attach(&next, &container).await;
        assert_eq!(next.changes(), 0);
        let wires = next.wires().await.unwrap();
        assert_eq!(wires.len(), 1);
        assert!(wires[0].complete && wires[0].serves(container.pid()));
        assert_eq!(wires[0].address, Some(container.address));
        assert!(container.id.starts_with(&wires[0].container_prefix));
    });
}

#[test]
fn whatever_is_missing_is_put_back_and_nothing_else() {
    on_a_host(|| async {
        let network = ready_network().await;
        let container = Container::start();
        attach(&network, &container).await;
        let right = picture(&container);
        let (host_end, address) = (container.host_end(), container.address);
        let inside = format!("nsenter -t {} -n", container.pid());
        // Each entry is a point at which a worker may have died, or something that somebody did to a wire.
        let breaks = [
            format!("ip link set {host_end} alias ''"),
            format!("{inside} ip route del 10.32.0.0/12"),
            format!("{inside} ip route del 169.254.1.1"),
            format!("{inside} ip neigh del 169.254.1.1 dev selvedge0"),
            format!("{inside} ip addr del {address}/32 dev selvedge0"),
            format!("{inside} ip addr add 10.40.0.1/32 dev selvedge0"),
            format!("{inside} ip link set selvedge0 down"),
            format!("{inside} ip link set selvedge0 mtu 1400"),
            format!("{inside} ip link set selvedge0 address 02:00:00:00:00:01"),
            format!("{inside} sh -c 'echo 1 > /proc/sys/net/ipv6/conf/selvedge0/accept_ra'"),
            format!("{inside} ip link set selvedge0 addrgenmode eui64"),
            format!("ip route del {address}"),
            format!("ip route replace {address} dev {host_end} proto 83"),
            format!("ip route add 10.40.0.2 dev {host_end} proto 83"),
            format!("ip neigh del {address} dev {host_end}"),
            format!("ip neigh replace {address} lladdr 02:00:00:00:00:02 dev {host_end}"),
            format!("ip link set {host_end} down"),
            format!("ip link set {host_end} mtu 1300"),
            format!("echo 0 > /proc/sys/net/ipv4/conf/{host_end}/rp_filter"),
            format!("echo 0 > /proc/sys/net/ipv4/conf/{host_end}/forwarding"),
            format!("echo 1 > /proc/sys/net/ipv6/conf/{host_end}/accept_ra"),
            format!("ip link set {host_end} addrgenmode eui64"),
            format!("{inside} ip addr flush dev selvedge0; ip link set {host_end} down alias ''"),
        ];
        for broken in breaks {
            sh(&broken);
            assert_ne!(picture(&container), right, "{broken}: this breaks nothing");
            let next = next_worker().await;
            attach(&next, &container).await;
            assert_eq!(picture(&container), right, "{broken}");
            assert!(next.changes() > 0);
            let last = next_worker().await;
            attach(&last, &container).await;
            assert_eq!(last.changes(), 0, "{broken}");
        }
    });
}

#[test]
fn a_bare_pair_is_completed() {
    on_a_host(|| async {
        let network = ready_network().await;
        let container = Container::start();
        sh(&format!(
            "ip link add {} group 7001 type veth peer name selvedge0 netns {}",
            container.host_end(),
            container.pid()
        ));
        let wires = network.wires().await.unwrap();
        assert!(!wires[0].complete);
        attach(&network, &container).await;
        sh(&format!("busybox ping -c 1 -W 1 {}", container.address));
    });
}

#[test]
fn a_restarted_container_gets_a_new_wire() {
    on_a_host(|| async {
        let network = ready_network().await;
        let mut container = Container::start();
        attach(&network, &container).await;
        container.restart();
        attach(&network, &container).await;
        sh(&format!("busybox ping -c 1 -W 1 {}", container.address));
        assert_eq!(network.wires().await.unwrap().len(), 1);
    });
}

#[test]
fn a_wire_into_a_former_namespace_is_replaced() {
    on_a_host(|| async {
        let network = ready_network().await;
        let mut container = Container::start();
        attach(&network, &container).await;
        let _former = container.reincarnate();
        let before = network.wires().await.unwrap();
        assert!(before[0].complete && !before[0].serves(container.pid()));
        attach(&network, &container).await;
        let after = network.wires().await.unwrap();
        assert_eq!(after.len(), 1);
        assert!(after[0].serves(container.pid()) && after[0].ifindex != before[0].ifindex);
        sh(&format!("busybox ping -c 1 -W 1 {}", container.address));
    });
}

#[test]
fn an_address_is_not_taken_from_another_wire_and_is_from_anything_else() {
    on_a_host(|| async {
        let network = ready_network().await;
        let (old, mut new) = (Container::start(), Container::start());
        attach(&network, &old).await;
        new.address = old.address;
        let refused = Error::Routed { container: new.id.clone(), interface: old.host_end() };
        assert_eq!(network.connect(&new.spec()).await, Err(refused));
        assert!(!try_sh(&format!("ip link show {}", new.host_end())), "nothing is left of it");
        assert!(sh(&format!("ip route get {}", old.address)).contains(&old.host_end()));
        network.disconnect(&network.wires().await.unwrap()).await.unwrap();
        attach(&network, &new).await;
        sh(&format!(
            "ip link add stray type veth peer name stray-peer && ip link set stray up && ip route replace {}/32 dev stray",
            new.address
        ));
        attach(&network, &new).await;
        let route = sh(&format!("ip route get {}", new.address));
        assert!(route.contains(&new.host_end()), "{route}");
        sh(&format!("busybox ping -c 1 -W 1 {}", new.address));
    });
}

#[test]
fn a_process_that_is_gone_leaves_nothing() {
    on_a_host(|| async {
        let network = ready_network().await;
        let mut container = Container::start();
        let spec = container.spec();
        container.stop();
        let gone = Error::Gone { container: container.id.clone(), pid: spec.pid };
        assert_eq!(network.connect(&spec).await, Err(gone.clone()));
        assert_eq!(network.release(&spec).await, Err(gone));
        assert!(!try_sh(&format!("ip link show {}", container.host_end())));
    });
}

#[test]
fn a_process_that_goes_in_between_leaves_nothing() {
    on_a_host(|| async {
        let network = ready_network().await;
        for delay in 0..40 {
            let mut container = Container::start();
            let spec = container.spec();
            let ending = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_micros(delay * 50));
                container.stop();
                container.host_end()
            });
            let connected = network.connect(&spec).await;
            let released = network.release(&spec).await;
            let host_end = ending.join().unwrap();
            for outcome in [connected, released] {
                assert!(matches!(outcome, Ok(()) | Err(Error::Gone { .. })), "{outcome:?}");
            }
            // What was complete before the process ended goes with its namespace.
            let left = || try_sh(&format!("ip link show {host_end}"));
            assert!((0..500).any(|_| !left()), "left after {delay}");
        }
        assert_eq!(sh("ip route show proto 83"), "");
    });
}

#[test]
fn the_hosts_own_namespace_is_refused() {
    on_a_host(|| async {
        let network = ready_network().await;
        let mut container = Container::start();
        let mut spec = container.spec();
        container.stop();
        // A process of this host that took the number over.
        let mut process = Command::new("sleep").arg("100").spawn().unwrap();
        spec.pid = process.id();
        let refused = network.connect(&spec).await;
        process.kill().unwrap();
        process.wait().unwrap();
        assert!(matches!(refused, Err(Error::HostNamespace { .. })), "{refused:?}");
    });
}

#[test]
fn an_interface_of_the_users_is_not_taken_over() {
    on_a_host(|| async {
        let network = ready_network().await;
        let container = Container::start();
        container.sh("ip link add selvedge0 type veth peer name other");
        let refused = network.connect(&container.spec()).await;
        assert!(matches!(refused, Err(Error::Occupied { .. })), "{refused:?}");
        container.sh("ip link show selvedge0");
        assert!(!try_sh(&format!("ip link show {}", container.host_end())));
    });
}

#[test]
fn no_sign_without_a_wire() {
    on_a_host(|| async {
        let network = ready_network().await;
        let container = Container::start();
        let refused = network.release(&container.spec()).await;
        assert_eq!(refused, Err(Error::NotConnected { container: container.id.clone() }));
        assert_eq!(container.sh("ip route show"), "");
    });
}

/// What a worker does that is killed in the middle: only started by the test below, with a wire in its environment.
#[test]
fn as_a_worker_that_is_killed() {
    let Ok(wire) = std::env::var(KILLED_WIRE) else { return };
    let mut words = wire.split(' ');
    let mut word = || words.next().unwrap().to_owned();
    let spec = WireSpec { container: word(), address: word().parse().unwrap(), pid: word().parse().unwrap() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let network = next_worker().await;
        println!("begin");
        network.connect(&spec).await.unwrap();
        network.release(&spec).await.unwrap();
    });
}

const KILLED_WIRE: &str = "SELVEDGE_TEST_KILLED_WIRE";

#[test]
fn a_worker_that_is_killed_at_any_moment_leaves_nothing_that_the_next_cannot_finish() {
    on_a_host(|| async {
        let network = ready_network().await;
        let mut unfinished = 0;
        for delay in 0..60 {
            let container = Container::start();
            let wire = format!("{} {} {}", container.id, container.address, container.pid());
            let mut worker = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "repair::as_a_worker_that_is_killed", "--nocapture"])
                .env(KILLED_WIRE, wire)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(worker.stdout.take().unwrap()).lines();
            assert!(lines.any(|line| line.unwrap().ends_with("begin")));
            std::thread::sleep(Duration::from_micros(delay * 60));
            worker.kill().unwrap();
            worker.wait().unwrap();
            let before = network.changes();
            attach(&network, &container).await;
            unfinished += u32::from(network.changes() > before);
            sh(&format!("busybox ping -c 1 -W 1 {}", container.address));
            let next = next_worker().await;
            attach(&next, &container).await;
            assert_eq!(next.changes(), 0, "killed after {delay}");
        }
        println!("{unfinished} of 60 were killed before they were done");
        assert!(unfinished > 5);
    });
}
