//! A host with a policy and containers, and the calls between them.
//!
//! Must never call anything from the test's own thread that belongs into a container.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket,
    sockopt,
};
use selvedge_netsetup::policy::{Grant, Party, Policy, PolicySettings, Ports, Protocol, Verdict, Who};
use selvedge_netsetup::{Network, Settings, address6};

use crate::lab::{Container, GATEWAY, settings, sh};
use crate::landscape::enter;

pub(crate) const POOL6: &str = "fd5e:1::/64";
pub(crate) const TABLE: &str = "selvedge_00001b59";

/// Settings that allow all that may be allowed.
pub(crate) fn open() -> PolicySettings {
    PolicySettings {
        group: 7001,
        pool: settings().pool,
        pool6: Some(POOL6.parse().unwrap()),
        dns: SocketAddr::new(GATEWAY.into(), 53),
        host: Verdict::Allow,
        published: Verdict::Allow,
        out: Verdict::Allow,
        names: Verdict::Allow,
    }
}

/// A host on which containers of both families can be wired.
pub(crate) async fn host() -> Network {
    let pool6 = Some(POOL6.parse().unwrap());
    let network = Network::open(Settings { pool6, ..settings() }).await.unwrap();
    network.prepare_host().await.unwrap();
    // As weaving gives it: a host without an IPv6 address cannot send ICMPv6.
    sh("ip addr add fd5e:1::a20:ffff/128 dev lo nodad");
    // The kernel would tell one caller of refusals once a second.
    sh("echo 0 > /proc/sys/net/ipv4/icmp_ratelimit; echo 0 > /proc/sys/net/ipv6/icmp/ratelimit");
    network
}

/// A container on its wire.
pub(crate) async fn wired(network: &Network) -> Container {
    let container = Container::start();
    network.connect(&container.spec()).await.unwrap();
    network.release(&container.spec()).await.unwrap();
    container
}

/// A member of a tenant that only its tenant may call.
pub(crate) fn member(container: &Container, tenant: &str) -> Party {
    party(container, tenant, vec![all_of(tenant)])
}

pub(crate) fn party(container: &Container, tenant: &str, grants: Vec<Grant>) -> Party {
    Party {
        address: container.address,
        groups: BTreeSet::from([format!("tenant:{tenant}")]),
        grants,
        aliases: Vec::new(),
    }
}

pub(crate) fn all_of(tenant: &str) -> Grant {
    Grant { who: Who::Group(format!("tenant:{tenant}")), ports: Vec::new() }
}

pub(crate) fn tcp(first: u16, last: u16) -> Ports {
    Ports { protocol: Protocol::Tcp, first, last }
}

pub(crate) fn udp(port: u16) -> Ports {
    Ports { protocol: Protocol::Udp, first: port, last: port }
}

/// Puts parties under their addresses as ids, and applies.
pub(crate) async fn enforce(policy: &Policy, parties: &[Party]) {
    for party in parties {
        policy.put(&party.address.to_string(), party.clone());
    }
    policy.apply().await.unwrap();
}

pub(crate) fn six(container: &Container) -> IpAddr {
    address6(POOL6.parse().unwrap(), container.address).into()
}

/// Both addresses.
pub(crate) fn both(container: &Container) -> [IpAddr; 2] {
    [container.address.into(), six(container)]
}

/// Runs in the namespace of a process.
pub(crate) fn inside<T: Send + 'static>(pid: u32, work: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(move || {
        enter(pid);
        work()
    });
    thread.join().unwrap()
}

/// The namespace of the test, which is the host.
pub(crate) fn here() -> u32 {
    nix::unistd::gettid().as_raw().unsigned_abs()
}

/// What came of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Reached,
    /// With an answer that says so, within 300 ms.
    Refused,
    /// Nothing came back.
    Silence,
}

use Outcome::{Reached, Refused, Silence};

/// An open connection: the caller's end and the called one's.
pub(crate) struct Call {
    near: TcpStream,
    far: TcpStream,
}

impl Call {
    /// Whether a byte goes both ways.
    pub(crate) fn alive(&mut self) -> bool {
        let mut byte = [0];
        self.near.write_all(b"x").is_ok()
            && self.far.read_exact(&mut byte).is_ok()
            && self.far.write_all(b"y").is_ok()
            && self.near.read_exact(&mut byte).is_ok()
    }
}

/// Opens a connection from one process' namespace to a port that it also opens in another one's.
pub(crate) fn dial(from: u32, to: (u32, IpAddr), port: u16) -> io::Result<Call> {
    let (pid, address) = to;
    let listener = inside(pid, move || TcpListener::bind((address, port)).unwrap());
    let near = connect(from, SocketAddr::new(address, port))?;
    let far = listener.accept()?.0;
    for end in [&near, &far] {
        end.set_read_timeout(Some(Duration::from_secs(1)))?;
    }
    Ok(Call { near, far })
}

pub(crate) fn connect(from: u32, to: SocketAddr) -> io::Result<TcpStream> {
    inside(from, move || TcpStream::connect_timeout(&to, Duration::from_secs(1)))
}

pub(crate) fn call_tcp(from: u32, to: (u32, IpAddr), port: u16) -> Outcome {
    let begin = Instant::now();
    match dial(from, to, port) {
        Ok(mut call) => {
            if call.alive() {
                Reached
            } else {
                Silence
            }
        }
        Err(error) => refused(&error, Errno::ECONNREFUSED, begin),
    }
}

pub(crate) fn call_udp(from: u32, to: (u32, IpAddr), port: u16) -> Outcome {
    let (pid, address) = to;
    let server = inside(pid, move || UdpSocket::bind((address, port)).unwrap());
    let any: IpAddr = if address.is_ipv4() { "0.0.0.0".parse().unwrap() } else { "::".parse().unwrap() };
    let client = inside(from, move || UdpSocket::bind((any, 0)).unwrap());
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    }
    client.connect((address, port)).unwrap();
    if !address.is_ipv4() {
        setsockopt(&client, sockopt::Ipv6RecvErr, &true).unwrap();
    }
    let begin = Instant::now();
    client.send(b"x").unwrap();
    if let Ok((_, from)) = server.recv_from(&mut [0; 8]) {
        server.send_to(b"y", from).unwrap();
    }
    match client.recv(&mut [0; 8]) {
        Ok(_) => Reached,
        // Of ICMP "administratively prohibited" the kernel makes these.
        Err(error) if address.is_ipv4() => refused(&error, Errno::EHOSTUNREACH, begin),
        Err(error) => refused(&error, Errno::EACCES, begin),
    }
}

fn refused(error: &io::Error, expected: Errno, begin: Instant) -> Outcome {
    // The server's own waiting time for what does not come is in it.
    let at_once = begin.elapsed() < Duration::from_secs(3);
    if error.raw_os_error() == Some(expected as i32) && at_once { Refused } else { Silence }
}

/// A ping tells of a refusal only by its missing answer.
pub(crate) fn ping(from: &Container, to: IpAddr) -> bool {
    from.try_sh(&format!("busybox ping -c 1 -W 1 {to}"))
}

/// The number of the host's ruleset, which every transaction makes larger by one.
pub(crate) fn generation() -> u32 {
    let kind = (AddressFamily::Netlink, SockType::Raw, SockProtocol::NetlinkNetFilter);
    let asking = socket(kind.0, kind.1, SockFlag::SOCK_CLOEXEC, kind.2).unwrap();
    let mut request = [0; 20];
    request[..8].copy_from_slice(&[20, 0, 0, 0, 0x10, 0x0a, 1, 0]);
    sendto(asking.as_raw_fd(), &request, &NetlinkAddr::new(0, 0), MsgFlags::empty()).unwrap();
    let mut answer = [0; 256];
    recv(asking.as_raw_fd(), &mut answer, MsgFlags::empty()).unwrap();
    u32::from_be_bytes(answer[24..28].try_into().unwrap())
}
