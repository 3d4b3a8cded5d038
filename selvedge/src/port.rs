//! Who has a port that we want. It must never keep the port itself: what is bound to try is closed at once.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};
use std::os::fd::AsRawFd;

/// A port in use.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    kind: Kind,
    address: SocketAddr,
    /// The process and its name, if they can be told.
    process: Option<(i32, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Udp,
    Tcp,
}

impl Holder {
    /// Who it is and what to do, in one line.
    pub(crate) fn told(&self, flag: &str) -> String {
        let kind = if self.kind == Kind::Udp { "UDP" } else { "TCP" };
        let who = match &self.process {
            Some((pid, name)) => format!("{name} (pid {pid})"),
            None => "another process".to_owned(),
        };
        format!(
            "{kind} port {} of {} is taken by {who}: stop it, let it listen on its own addresses only, or choose another {flag}",
            self.address.port(),
            self.address.ip()
        )
    }
}

/// Who has this UDP port, if it cannot be had.
pub(crate) fn udp(address: SocketAddr) -> Option<Holder> {
    holder(Kind::Udp, address)
}

/// Who has this TCP port, if it cannot be had.
pub(crate) fn tcp(address: SocketAddr) -> Option<Holder> {
    holder(Kind::Tcp, address)
}

/// The port in an error that says "address in use", as the keeper writes it, and who has it.
pub(crate) fn in_use(name: &str, address: &str, error: &std::io::Error) -> Option<Holder> {
    let address = address.parse().ok().filter(|_| error.kind() == ErrorKind::AddrInUse)?;
    let kind = if name.contains("udp") { Kind::Udp } else { Kind::Tcp };
    Some(Holder { kind, address, process: process(kind, address) })
}

fn holder(kind: Kind, address: SocketAddr) -> Option<Holder> {
    let taken = try_bind(kind, address).is_err_and(|errno| errno == nix::errno::Errno::EADDRINUSE);
    taken.then(|| Holder { kind, address, process: process(kind, address) })
}

/// As the keeper binds: the address need not be there yet.
fn try_bind(kind: Kind, address: SocketAddr) -> nix::Result<()> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let shape = if kind == Kind::Udp { SockType::Datagram } else { SockType::Stream };
    let fd = socket(family, shape, SockFlag::SOCK_CLOEXEC, None)?;
    if kind == Kind::Tcp {
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    setsockopt(&fd, sockopt::IpFreebind, &true)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))
}

/// The process that has a port open, by the kernel's tables and the descriptors of all processes.
fn process(kind: Kind, address: SocketAddr) -> Option<(i32, String)> {
    let tables = if kind == Kind::Udp { ["udp", "udp6"] } else { ["tcp", "tcp6"] };
    let text =
        tables.map(|table| std::fs::read_to_string(format!("/proc/self/net/{table}")).unwrap_or_default());
    let inodes: Vec<&str> =
        text.iter().flat_map(|text| text.lines()).filter_map(|line| inode(line, kind, address)).collect();
    let wanted: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let pid = pids.find(|pid| {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let mut links = files.filter_map(|file| std::fs::read_link(file.path()).ok());
        links.any(|link| wanted.iter().any(|wanted| link.as_os_str() == wanted.as_str()))
    })?;
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some((pid, name.trim_end().to_owned()))
}

/// The inode of a line of `/proc/net/udp` and the like, if it has this port there or everywhere.
fn inode(line: &str, kind: Kind, address: SocketAddr) -> Option<&str> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let (ip, port) = words.get(1)?.split_once(':')?;
    let is_it = u16::from_str_radix(port, 16).ok()? == address.port();
    let everywhere = ip.chars().all(|digit| digit == '0');
    let here =
        matches!(address.ip(), IpAddr::V4(v4) if ip == format!("{:08X}", u32::from_ne_bytes(v4.octets())));
    // 0A: TCP_LISTEN.
    let listens = kind == Kind::Udp || words.get(3) == Some(&"0A");
    (is_it && (everywhere || here) && listens).then(|| words.get(9).copied())?
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn who_has_a_port_is_told_by_name_and_pid() {
        let (udp_there, tcp_there) =
            (UdpSocket::bind("127.0.0.1:0").unwrap(), TcpListener::bind("0.0.0.0:0").unwrap());
        let own = i32::try_from(std::process::id()).unwrap();
        let taken = udp(udp_there.local_addr().unwrap()).unwrap();
        assert_eq!(taken.process.as_ref().map(|(pid, _)| *pid), Some(own));
        let port = tcp_there.local_addr().unwrap().port();
        let taken = tcp(SocketAddr::from(([169, 254, 77, 7], port))).unwrap();
        assert_eq!(taken.process.as_ref().map(|(pid, _)| *pid), Some(own), "by one that has it everywhere");
        let told = taken.told("--peer-port");
        assert!(told.starts_with(&format!("TCP port {port} of 169.254.77.7 is taken by ")), "{told}");
        drop((udp_there, tcp_there));
        assert_eq!(tcp(SocketAddr::from(([169, 254, 77, 7], port))), None);
    }
}
