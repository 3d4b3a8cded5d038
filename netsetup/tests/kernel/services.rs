//! Virtual addresses in the kernel: connections that are really made, to real servers in containers.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use selvedge_netsetup::policy::{Policy, Protocol};
use selvedge_netsetup::services::{Service, Services, ServicesSettings};
use selvedge_netsetup::{Network, address6};

use crate::lab::{Container, on_a_host, sh};
use crate::policy::bench::{POOL6, enforce, host, inside, member, open, wired};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 47, 0, 9);
const TABLE: &str = "selvedge_vip_00001b59";

fn services() -> Services {
    let range = "10.47.0.0/16".parse().unwrap();
    Services::new(ServicesSettings { group: 7001, range, pool6: Some(POOL6.parse().unwrap()) })
}

async fn ready() -> Network {
    let network = host().await;
    network.lead(Some("10.47.0.0/16".parse().unwrap()), None).await.unwrap();
    network
}

fn service(backends: &[&Container]) -> Service {
    let backends = backends.iter().map(|one| (one.spec().address, 7000)).collect();
    Service { address: VIP, port: 80, protocol: Protocol::Tcp, backends }
}

fn both() -> [IpAddr; 2] {
    [VIP.into(), address6(POOL6.parse().unwrap(), VIP).into()]
}

/// Says its own name to whoever calls, until it has been asked for something: then it echoes.
fn serve(container: &Container, name: &'static str) {
    let listener = inside(container.pid(), || TcpListener::bind(("::", 7000)).unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || greet(stream, name));
        }
    });
}

fn greet(mut stream: TcpStream, name: &str) {
    let _ = stream.write_all(name.as_bytes());
    while stream.read(&mut [0; 16]).is_ok_and(|length| length > 0) {
        let _ = stream.write_all(b"!");
    }
}

/// The host itself, which is where this thread is.
const HOST: u32 = 0;

fn connect(pid: u32, to: IpAddr) -> std::io::Result<TcpStream> {
    let connect = move || TcpStream::connect_timeout(&SocketAddr::new(to, 80), Duration::from_secs(2));
    if pid == HOST { connect() } else { inside(pid, connect) }
}

fn called(pid: u32, to: IpAddr) -> Result<String, std::io::ErrorKind> {
    let mut stream = connect(pid, to).map_err(|error| error.kind())?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut name = [0; 1];
    stream.read_exact(&mut name).map_err(|error| error.kind())?;
    Ok(String::from_utf8_lossy(&name).into_owned())
}

fn answers(pid: u32, to: IpAddr) -> BTreeSet<String> {
    (0..40).map(|_| called(pid, to).unwrap_or_else(|kind| format!("{kind:?}"))).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn connections_go_to_all_who_stand_behind_it_and_stay_with_them() {
    on_a_host(|| async {
        let network = ready().await;
        let (a, b, caller) = (wired(&network).await, wired(&network).await, wired(&network).await);
        serve(&a, "a");
        serve(&b, "b");
        let services = services();
        services.set(&[service(&[&a, &b])], &[]);
        services.apply().await.unwrap();
        for to in both() {
            assert_eq!(answers(caller.pid(), to), set(&["a", "b"]), "{to}");
            assert_eq!(answers(HOST, to), set(&["a", "b"]), "the host itself, {to}");
            assert_eq!(answers(a.pid(), to), set(&["a", "b"]), "one of them, also to itself, {to}");
        }
        let mut kept: Vec<TcpStream> = (0..8).map(|_| connect(caller.pid(), VIP.into()).unwrap()).collect();
        services.set(&[service(&[&b])], &[]);
        services.apply().await.unwrap();
        for to in both() {
            assert_eq!(answers(caller.pid(), to), set(&["b"]));
        }
        for stream in &mut kept {
            stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            stream.write_all(b"x").unwrap();
            stream.read_exact(&mut [0; 2]).expect("who left goes on with what it has");
        }
        services.set(&[service(&[])], &[]);
        services.apply().await.unwrap();
        for (pid, to) in [caller.pid(), HOST].into_iter().flat_map(|pid| both().map(|to| (pid, to))) {
            // Linux refuses by itself what would leave by lo in IPv6.
            let expected = match pid != HOST && to.is_ipv6() {
                true => std::io::ErrorKind::NetworkUnreachable,
                false => std::io::ErrorKind::ConnectionRefused,
            };
            assert_eq!(called(pid, to).unwrap_err(), expected, "{pid} {to}: at once, or it were a time out");
        }
        services.set(&[], &[]);
        services.apply().await.unwrap();
        assert!(!sh("nft list tables").contains(TABLE), "nothing is left");
    });
}

/// Listens, and has taken all that its queue holds: further first packets are dropped.
fn full(container: &Container) -> (TcpListener, Vec<TcpStream>) {
    let listener = inside(container.pid(), || TcpListener::bind(("::", 7000)).unwrap());
    // A second one changes the length of the queue alone.
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let own = SocketAddr::from((container.spec().address, 7000));
    let queued = (0..4).map_while(|_| {
        inside(container.pid(), move || TcpStream::connect_timeout(&own, Duration::from_millis(100)).ok())
    });
    let queued = queued.collect();
    (listener, queued)
}

/// How many first packets were dropped in the container because a queue was full.
fn dropped(container: &Container) -> u64 {
    let counts = std::fs::read_to_string(format!("/proc/{}/net/netstat", container.pid())).unwrap();
    let mut lines = counts.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap().split(' '), lines.next().unwrap().split(' '));
    names.zip(values).find(|(name, _)| *name == "ListenOverflows").unwrap().1.parse().unwrap()
}

#[test]
fn one_whose_first_packet_was_lost_is_sent_to_another_when_its_instance_stands_aside() {
    on_a_host(|| async {
        let network = ready().await;
        let (a, b, caller) = (wired(&network).await, wired(&network).await, wired(&network).await);
        let (_listener, queued) = full(&a);
        assert!((1..4).contains(&queued.len()), "it is full: {}", queued.len());
        serve(&b, "b");
        let services = services();
        services.set(&[service(&[&a])], &[]);
        services.apply().await.unwrap();
        let (pid, to, before) = (caller.pid(), SocketAddr::new(VIP.into(), 80), dropped(&a));
        let calling = std::thread::spawn(move || {
            inside(pid, move || TcpStream::connect_timeout(&to, Duration::from_secs(10)))
        });
        while dropped(&a) == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        services.set(&[service(&[&b])], &[]);
        services.apply().await.unwrap();
        let mut stream = calling.join().unwrap().expect("it reaches the other one");
        let mut name = [0; 1];
        stream.read_exact(&mut name).unwrap();
        assert_eq!(&name, b"b");
    });
}

#[test]
fn what_somebody_changes_is_put_right() {
    on_a_host(|| async {
        let network = ready().await;
        let (a, caller) = (wired(&network).await, wired(&network).await);
        serve(&a, "a");
        let services = services();
        services.set(&[service(&[&a])], &[]);
        services.apply().await.unwrap();
        let chain = sh(&format!("nft list table inet {TABLE} | grep -o 's_[0-9a-f]*' | head -1"));
        for damage in [
            "flush ruleset".to_owned(),
            format!("delete table inet {TABLE}"),
            format!("flush chain inet {TABLE} prerouting"),
            format!("flush chain inet {TABLE} {}", chain.trim()),
            format!("flush map inet {TABLE} services4"),
            format!("add set inet {TABLE} foreign {{ type ipv4_addr; }}"),
            format!("add chain inet {TABLE} foreign"),
            format!("add element inet {TABLE} selves4 {{ 10.32.9.9 . 10.32.9.9 }}"),
            format!("add table inet {TABLE} {{ flags dormant; }}"),
        ] {
            sh(&format!("nft '{damage}'"));
            services.check().await.unwrap();
            assert_eq!(services.plan().await.unwrap(), Vec::<String>::new(), "{damage}");
            assert_eq!(called(caller.pid(), VIP.into()).as_deref(), Ok("a"), "{damage}");
            assert!(!sh("nft list ruleset").contains("foreign"), "{damage}");
        }
        assert_eq!(services.check().await.unwrap(), 0);
    });
}

#[test]
fn a_second_worker_changes_nothing_and_waits_until_it_knows_all() {
    on_a_host(|| async {
        let network = ready().await;
        let (a, caller) = (wired(&network).await, wired(&network).await);
        serve(&a, "a");
        let first = services();
        first.set(&[service(&[&a])], &[]);
        first.apply().await.unwrap();
        let before = sh("nft -a list ruleset");
        let second = services();
        second.apply().await.unwrap();
        assert_eq!(second.check().await.unwrap(), 0, "nothing was noted yet");
        second.set(&[service(&[&a])], &[]);
        second.apply().await.unwrap();
        assert_eq!(sh("nft -a list ruleset"), before);
        second.set(&[service(&[&a])], &[caller.spec().address]);
        second.apply().await.unwrap();
        assert_eq!(services().aside().await.unwrap(), [caller.spec().address]);
        assert_eq!(called(caller.pid(), VIP.into()).as_deref(), Ok("a"));
        second.withdraw().await.unwrap();
        assert!(!sh("nft list tables").contains(TABLE));
    });
}

#[test]
fn the_policy_judges_whom_a_connection_led_to() {
    on_a_host(|| async {
        let network = ready().await;
        let (a, friend, foe) = (wired(&network).await, wired(&network).await, wired(&network).await);
        serve(&a, "a");
        let services = services();
        services.set(&[service(&[&a])], &[]);
        services.apply().await.unwrap();
        let policy = Policy::new(open());
        enforce(&policy, &[member(&a, "shop"), member(&friend, "shop"), member(&foe, "bank")]).await;
        for to in both() {
            assert_eq!(called(friend.pid(), to).as_deref(), Ok("a"), "{to}");
            assert_eq!(called(a.pid(), to).as_deref(), Ok("a"), "itself, {to}");
            assert_eq!(called(foe.pid(), to).unwrap_err(), std::io::ErrorKind::ConnectionRefused, "{to}");
        }
    });
}

fn answer(socket: &UdpSocket, name: &[u8]) {
    while let Ok((_, asker)) = socket.recv_from(&mut [0; 8]) {
        let _ = socket.send_to(name, asker);
    }
}

#[test]
fn who_asks_by_udp_is_led_anew_when_whom_it_asked_is_gone() {
    on_a_host(|| async {
        let network = ready().await;
        let (a, b, caller) = (wired(&network).await, wired(&network).await, wired(&network).await);
        for (container, name) in [(&a, b"a"), (&b, b"b")] {
            let socket = inside(container.pid(), || UdpSocket::bind(("::", 7000)).unwrap());
            std::thread::spawn(move || answer(&socket, name));
        }
        let udp = |backends: &[&Container]| Service { protocol: Protocol::Udp, ..service(backends) };
        for to in both() {
            let services = services();
            services.set(&[udp(&[&a])], &[]);
            services.apply().await.unwrap();
            let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
            let asker = inside(caller.pid(), move || UdpSocket::bind((any, 0)).unwrap());
            asker.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            let ask = || {
                let mut name = [0; 1];
                asker.send_to(b"?", (to, 80)).and_then(|_| asker.recv(&mut name)).map(|_| name)
            };
            assert_eq!(ask().unwrap(), *b"a");
            services.set(&[udp(&[&a, &b])], &[]);
            services.apply().await.unwrap();
            assert_eq!(ask().unwrap(), *b"a", "who can go on goes on");
            services.set(&[udp(&[&b])], &[]);
            services.apply().await.unwrap();
            assert_eq!(ask().unwrap(), *b"b", "from the same port, {to}");
            services.set(&[], &[]);
            services.apply().await.unwrap();
            assert!(ask().is_err(), "nobody is there any more");
        }
    });
}

#[test]
fn a_range_has_its_ways_and_an_earlier_one_has_none() {
    on_a_host(|| async {
        let network = host().await;
        sh("ip route add 10.250.0.0/16 dev lo proto 83");
        let ways = || {
            let told = [sh("ip route show proto 83 dev lo"), sh("ip -6 route show proto 83 dev lo")].concat();
            told.lines()
                .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
                .collect::<Vec<_>>()
        };
        for (range, expected) in [
            (Some("10.47.0.0/16"), &["10.47.0.0/16", "10.250.0.0/16", "fd5e:1::a2f:0/112"][..]),
            (Some("10.46.128.0/17"), &["10.46.128.0/17", "10.250.0.0/16", "fd5e:1::a2e:8000/113"]),
            (None, &["10.250.0.0/16"]),
        ] {
            network.lead(range.map(|range| range.parse().unwrap()), None).await.unwrap();
            assert_eq!(ways(), expected, "{range:?}: another's way stays");
            let before = network.changes();
            network.lead(range.map(|range| range.parse().unwrap()), None).await.unwrap();
            assert_eq!(network.changes(), before, "what is right is left alone");
        }
    });
}
