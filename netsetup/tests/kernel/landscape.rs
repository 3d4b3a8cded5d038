//! Several hosts, each a network namespace, and what connects them: a bridge or a router, which is the namespace of
//! the test itself.
//!
//! Must never connect them with anything outside.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

use ipnet::Ipv4Net;
use nix::sched::{CloneFlags, setns};
use selvedge_netsetup::{Datapath, Fabric, Network, Peer, Settings};

use crate::lab::{Container, Sleeper, settings, settled, sh, sleeper, try_sh};

/// The UDP port of VXLAN in all tests.
pub(crate) const PORT: u16 = 4789;

/// A new address is on trial for a second or two, and without one the kernel asks for no neighbours.
const NO_TRIAL: &str = "for d in all default; do echo 0 > /proc/sys/net/ipv6/conf/$d/accept_dad; done";

/// One host.
pub(crate) struct Host {
    process: Sleeper,
    /// From 1: also the last number of its addresses and the third of its block's.
    pub(crate) number: u8,
    pub(crate) underlay: IpAddr,
    pub(crate) network: Network,
    /// What it has been told of the others.
    pub(crate) fabric: Fabric,
}

/// How hosts are connected.
#[derive(Clone, Copy)]
pub(crate) enum Underlay {
    /// By a bridge, with IPv4 addresses.
    Bridge4,
    /// By a bridge, with IPv6 addresses.
    Bridge6,
    /// Each by a network of its own to a router, with IPv4 addresses.
    Router4,
    /// The same with IPv6 addresses.
    Router6,
}

impl Underlay {
    fn address(self, number: u8) -> IpAddr {
        let text = match self {
            Self::Bridge4 => format!("192.0.2.{number}"),
            Self::Bridge6 => format!("2001:db8::{number}"),
            Self::Router4 => format!("198.51.{number}.{number}"),
            Self::Router6 => format!("2001:db8:{number}::{number}"),
        };
        text.parse().unwrap()
    }

    fn prepare(self) {
        sh(NO_TRIAL);
        match self {
            Self::Bridge4 | Self::Bridge6 => {
                sh("ip link add bridge0 type bridge mcast_snooping 0 && ip link set bridge0 up");
            }
            Self::Router4 => _ = sh("echo 1 > /proc/sys/net/ipv4/ip_forward"),
            Self::Router6 => _ = sh("echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"),
        }
    }

    fn plug(self, number: u8, host: &Sleeper) {
        let (pid, address) = (host.id(), self.address(number));
        sh(&format!("nsenter -t {pid} -n sh -c '{NO_TRIAL}'"));
        sh(&format!("ip link add port{number} type veth peer name up0 netns {pid}"));
        sh(&format!("ip link set port{number} up"));
        let inside = |command: &str| sh(&format!("nsenter -t {pid} -n {command}"));
        inside("ip link set lo up");
        inside("ip link set up0 up");
        match self {
            Self::Bridge4 | Self::Bridge6 => {
                sh(&format!("ip link set port{number} master bridge0"));
                let (length, flags) = if address.is_ipv4() { (24, "") } else { (64, "nodad") };
                inside(&format!("ip addr add {address}/{length} dev up0 {flags}"));
            }
            Self::Router4 => {
                sh(&format!("ip addr add 198.51.{number}.254/24 dev port{number}"));
                inside(&format!("ip addr add {address}/24 dev up0"));
                inside(&format!("ip route add default via 198.51.{number}.254"));
            }
            Self::Router6 => {
                sh(&format!("ip addr add 2001:db8:{number}::fe/64 dev port{number} nodad"));
                inside(&format!("ip addr add {address}/64 dev up0 nodad"));
                inside(&format!("ip route add default via 2001:db8:{number}::fe"));
            }
        }
    }
}

/// Connected hosts that are ready and know nothing of each other yet.
pub(crate) async fn hosts(count: u8, underlay: Underlay) -> Vec<Host> {
    hosts_with(count, underlay, settings()).await
}

/// The same with other settings.
pub(crate) async fn hosts_with(count: u8, underlay: Underlay, settings: Settings) -> Vec<Host> {
    underlay.prepare();
    let mut hosts = Vec::new();
    for number in 1..=count {
        let process = sleeper();
        settled(process.id());
        underlay.plug(number, &process);
        let address = underlay.address(number);
        let settings = Settings { underlay: Some(address), ..settings.clone() };
        let network = open(process.id(), settings);
        network.prepare_host().await.unwrap();
        let fabric = Fabric {
            underlay: address,
            own_blocks: vec![block(number)],
            host_address: Some(Ipv4Addr::new(10, 32, number, 255)),
            peers: Vec::new(),
            vxlan_port: PORT,
            vxlan_id: 7,
        };
        hosts.push(Host { process, number, underlay: address, network, fabric });
    }
    hosts
}

/// Tells every host of all others, and weaves.
pub(crate) async fn acquaint(hosts: &mut [Host], datapath: Datapath) {
    let peers: Vec<Peer> = hosts.iter().map(|host| host.as_peer(datapath)).collect();
    for host in hosts {
        host.fabric.peers = peers.iter().filter(|peer| peer.underlay != host.underlay).cloned().collect();
        host.weave().await;
    }
}

/// A host's block.
pub(crate) fn block(number: u8) -> Ipv4Net {
    Ipv4Net::new(Ipv4Addr::new(10, 32, number, 0), 24).unwrap()
}

// A thread of its own enters the host; the network stays there.
fn open(pid: u32, settings: Settings) -> Network {
    std::thread::spawn(move || {
        enter(pid);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(Network::open(settings)).unwrap()
    })
    .join()
    .unwrap()
}

/// A UDP socket in the namespace of a process, which waits for a packet no longer than two seconds.
fn socket(pid: u32, at: (IpAddr, u16)) -> UdpSocket {
    let bound = std::thread::spawn(move || {
        enter(pid);
        UdpSocket::bind(at).unwrap()
    });
    let socket = bound.join().unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    socket
}

impl Container {
    /// A UDP socket inside.
    pub(crate) fn socket(&self, at: (IpAddr, u16)) -> UdpSocket {
        socket(self.pid(), at)
    }
}

/// Moves the calling thread into the namespace of a process.
#[expect(clippy::disallowed_methods, reason = "only called in threads that do nothing else")]
pub(crate) fn enter(pid: u32) {
    setns(File::open(format!("/proc/{pid}/ns/net")).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
}

impl Host {
    /// As the others see it.
    pub(crate) fn as_peer(&self, datapath: Datapath) -> Peer {
        Peer {
            name: format!("host{}", self.number),
            underlay: self.underlay,
            datapath,
            destinations: vec![block(self.number)],
        }
    }

    /// Weaves; nothing may be planned, nor change, when it is done again.
    pub(crate) async fn weave(&self) -> u64 {
        let planned = self.network.plan(&self.fabric).await.unwrap();
        let done = self.network.weave(&self.fabric).await.unwrap();
        assert_eq!(planned.len() as u64, done, "{planned:#?}");
        let before = self.network.changes();
        assert_eq!(self.network.plan(&self.fabric).await.unwrap(), Vec::<String>::new());
        assert_eq!(self.network.weave(&self.fabric).await.unwrap(), 0);
        assert_eq!(self.network.changes(), before);
        done
    }

    /// Starts a container with that last number, connected.
    pub(crate) async fn container(&self, last: u8) -> Container {
        let mut container = Container::start();
        container.address = Ipv4Addr::new(10, 32, self.number, last);
        self.network.connect(&container.spec()).await.unwrap();
        self.network.release(&container.spec()).await.unwrap();
        container
    }

    /// Another process' view of this host.
    pub(crate) fn reopen(&self, settings: Settings) -> Network {
        open(self.process.id(), settings)
    }

    /// Runs a command on the host; it must succeed.
    pub(crate) fn sh(&self, command: &str) -> String {
        sh(&format!("nsenter -t {} -n sh -c '{command}'", self.process.id()))
    }

    /// Whether a command succeeds on the host.
    pub(crate) fn try_sh(&self, command: &str) -> bool {
        try_sh(&format!("nsenter -t {} -n {command}", self.process.id()))
    }

    /// A UDP socket on the host.
    pub(crate) fn socket(&self, at: (IpAddr, u16)) -> UdpSocket {
        socket(self.process.id(), at)
    }

    /// Our routes.
    pub(crate) fn routes(&self) -> String {
        self.sh("ip route show proto 83")
    }

    /// The names of its VXLAN devices, and what is to be known of them.
    pub(crate) fn tunnels(&self) -> String {
        self.sh("ip -d link show type vxlan")
    }
}
