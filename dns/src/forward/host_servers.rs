//! The host's name servers, from its resolv.conf. It must never hand out our own address: the question would come back.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;

/// How often to look whether the file has changed, at most.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// The port of DNS: resolv.conf can name no other.
const PORT: u16 = 53;
/// As many as libc looks at (MAXNS in resolv.h).
const MOST: usize = 3;

/// The host's name servers as they were when last looked at.
pub(crate) struct HostServers {
    path: PathBuf,
    listen: SocketAddr,
    servers: Arc<[SocketAddr]>,
    /// Modification time, inode and length of what was read.
    seen: Option<(i64, i64, u64, u64)>,
    looked: Option<Instant>,
}

impl HostServers {
    pub(crate) fn new(path: PathBuf, listen: SocketAddr) -> Self {
        Self { path, listen, servers: Arc::new([]), seen: None, looked: None }
    }

    /// The servers, at most [`LOOK_AGAIN`] old. Reads a file of a few lines now and then, which is in memory.
    pub(crate) fn servers(&mut self, now: Instant) -> Arc<[SocketAddr]> {
        if self.looked.is_none_or(|looked| now.duration_since(looked) >= LOOK_AGAIN) {
            self.looked = Some(now);
            self.look();
        }
        self.servers.clone()
    }

    fn look(&mut self) {
        let metadata = fs::metadata(&self.path);
        let seen = metadata.map(|file| (file.mtime(), file.mtime_nsec(), file.ino(), file.len())).ok();
        if seen == self.seen && !self.servers.is_empty() {
            return;
        }
        // A file that is not there means what an empty one means to libc.
        let text = fs::read(&self.path).unwrap_or_default();
        let servers = parse(&String::from_utf8_lossy(&text), self.listen);
        if servers[..] != self.servers[..] {
            tracing::info!(?servers, "the host's name servers");
            self.servers = servers.into();
        }
        self.seen = seen;
    }
}

/// The `nameserver` lines of resolv.conf(5). Without any, libc asks the host itself.
fn parse(text: &str, listen: SocketAddr) -> Vec<SocketAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        words.next().filter(|word| *word == "nameserver")?;
        server(words.next()?)
    });
    let named: Vec<SocketAddr> = named.take(MOST).collect();
    let itself = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
    let all = if named.is_empty() { vec![itself] } else { named };
    all.into_iter().filter(|server| *server != listen).collect()
}

/// An address as resolv.conf has it: a link-local one with its interface, as in `fe80::1%eth0`.
fn server(text: &str) -> Option<SocketAddr> {
    if let Some((address, interface)) = text.split_once('%') {
        let scope = if_nametoindex(interface).ok().or_else(|| interface.parse().ok())?;
        return Some(SocketAddrV6::new(address.parse().ok()?, PORT, 0, scope).into());
    }
    match text.parse().ok()? {
        // To libc "any address" means this host.
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))),
        address => Some(SocketAddr::new(address, PORT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1)), 53);

    #[test]
    fn lines_are_read_as_libc_does() {
        let text = "# x\nsearch a b\n;nameserver 1.1.1.1\nnameserver 127.0.0.53\n nameserver\t2001:db8::1 # c\nnameserver bad\n";
        let want = ["127.0.0.53:53".parse().unwrap(), "[2001:db8::1]:53".parse().unwrap()];
        assert_eq!(parse(text, LISTEN), want);
        assert_eq!(parse("", LISTEN), ["127.0.0.1:53".parse().unwrap()]);
    }

    #[test]
    fn addresses_may_have_an_interface() {
        assert!(matches!(server("fe80::1%lo"), Some(SocketAddr::V6(v6)) if v6.scope_id() == 1));
        assert!(server("fe80::1%nosuch0").is_none() && server("x").is_none());
        assert_eq!(server("0.0.0.0"), Some("127.0.0.1:53".parse().unwrap()));
    }

    #[test]
    fn we_never_ask_ourselves() {
        assert_eq!(
            parse("nameserver 169.254.1.1\nnameserver 9.9.9.9", LISTEN),
            ["9.9.9.9:53".parse().unwrap()]
        );
        assert_eq!(parse("nameserver 169.254.1.1", LISTEN), []);
        assert_eq!(parse("", "127.0.0.1:53".parse().unwrap()), []);
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        let mut host = HostServers::new(path.clone(), LISTEN);
        let start = Instant::now();
        assert_eq!(host.servers(start)[0].ip(), IpAddr::V4(Ipv4Addr::LOCALHOST));
        fs::write(&path, "nameserver 9.9.9.9\n").unwrap();
        assert_eq!(host.servers(start)[0].ip(), IpAddr::V4(Ipv4Addr::LOCALHOST));
        assert_eq!(host.servers(start + LOOK_AGAIN)[0].to_string(), "9.9.9.9:53");
        fs::remove_file(&path).unwrap();
        assert_eq!(host.servers(start + LOOK_AGAIN * 2)[0].ip(), IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
}
