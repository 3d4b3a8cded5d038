//! resolv.conf(5) as libc reads it, and the location of the host's real one. It must never write one.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::net::if_::if_nametoindex;

/// The port of DNS: resolv.conf can name no other.
pub const PORT: u16 = 53;
/// The maximum number of name servers that libc uses (MAXNS in resolv.h).
pub const MOST: usize = 3;
/// Where libc looks for it.
pub const PATH: &str = "/etc/resolv.conf";
/// Where systemd-resolved lists the servers that its stub at [`STUB`] asks. dockerd reads this file too.
const BEHIND_STUB: &str = "/run/systemd/resolve/resolv.conf";
const STUB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));

/// The content of a resolv.conf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvConf {
    /// The name servers, in order of precedence; none means this host itself.
    pub servers: Vec<SocketAddr>,
    /// The search list.
    pub search: Vec<String>,
    /// How often and how long to ask.
    pub turns: Turns,
}

/// How long each name server has to answer before the next one counts, and how many rounds there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turns {
    /// `options timeout:`
    pub timeout: Duration,
    /// `options attempts:`
    pub attempts: u32,
}

impl Default for Turns {
    /// RES_TIMEOUT and RES_DFLRETRY in resolv.h.
    fn default() -> Self {
        Self { timeout: Duration::from_secs(5), attempts: 2 }
    }
}

impl Turns {
    /// The time for server number `at` of `count`, as glibc's `send_dg` computes it.
    #[must_use]
    pub fn of(&self, at: usize, count: usize) -> Duration {
        if at == 0 {
            return self.timeout;
        }
        let shifted = self.timeout.as_secs() << at.min(MOST);
        Duration::from_secs((shifted / count.max(1) as u64).max(1)).min(self.timeout * 2)
    }
}

impl ResolvConf {
    /// Parses the text of a resolv.conf.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut read = Self { servers: Vec::new(), search: Vec::new(), turns: Turns::default() };
        for line in text.lines() {
            // libc recognises a keyword only at the very beginning of a line.
            let mut words = line.split_ascii_whitespace();
            match line.split_ascii_whitespace().next().filter(|word| line.starts_with(word)) {
                Some("nameserver") if read.servers.len() < MOST => {
                    read.servers.extend(words.nth(1).and_then(server));
                }
                Some("search" | "domain") => {
                    read.search = words.skip(1).filter(|domain| *domain != ".").map(str::to_owned).collect();
                }
                Some("options") => words.skip(1).for_each(|option| read.option(option)),
                _ => {}
            }
        }
        read
    }

    /// Applies a word of `options`, within libc's limits (RES_MAXRETRANS and RES_MAXRETRY in resolv.h).
    fn option(&mut self, option: &str) {
        let number = |prefix| option.strip_prefix(prefix).and_then(|text: &str| text.parse::<u32>().ok());
        if let Some(seconds) = number("timeout:") {
            self.turns.timeout = Duration::from_secs(seconds.clamp(1, 30).into());
        }
        if let Some(attempts) = number("attempts:") {
            self.turns.attempts = attempts.clamp(1, 5);
        }
    }
}

/// The file that lists the name servers this host really asks: the one at `path`, or systemd-resolved's if `path` names
/// only its stub. A container could not reach the stub, so the engine looks behind it too.
#[must_use]
pub fn real(path: &Path) -> PathBuf {
    real_of(path, Path::new(BEHIND_STUB))
}

fn real_of(path: &Path, behind: &Path) -> PathBuf {
    let servers = ResolvConf::parse(&read(path)).servers;
    let is_stub = !servers.is_empty() && servers.iter().all(|server| server.ip() == STUB);
    if is_stub && behind.exists() { behind.to_owned() } else { path.to_owned() }
}

/// The file's text. A missing file means the same to libc as an empty one.
#[must_use]
pub fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// Parses an address as resolv.conf writes it: a link-local one with its interface, as in `fe80::1%eth0`.
fn server(text: &str) -> Option<SocketAddr> {
    if let Some((address, interface)) = text.split_once('%') {
        let scope = if_nametoindex(interface).ok().or_else(|| interface.parse().ok())?;
        return Some(SocketAddrV6::new(address.parse().ok()?, PORT, 0, scope).into());
    }
    match text.parse().ok()? {
        // To libc, the unspecified address means this host.
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))),
        address => Some(SocketAddr::new(address, PORT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_libc_does() {
        let text = "# x\nsearch a b\n;nameserver 1.1.1.1\nnameserver 127.0.0.53\nnameserver\t2001:db8::1 # c\n \
                    nameserver 9.9.9.9\nnameserver bad\ndomain c.d .\n";
        let read = ResolvConf::parse(text);
        assert_eq!(read.servers, ["127.0.0.53:53".parse().unwrap(), "[2001:db8::1]:53".parse().unwrap()]);
        assert_eq!(read.search, ["c.d"], "the last line counts");
        assert_eq!(read.turns, Turns::default());
        assert_eq!(ResolvConf::parse("").servers, []);
        let many = "nameserver 192.0.2.1\n".repeat(5);
        assert_eq!(ResolvConf::parse(&many).servers.len(), MOST);
    }

    #[test]
    fn turns_are_as_long_as_glibc_s() {
        let turns = ResolvConf::parse("options ndots:2 timeout:1 attempts:1\n").turns;
        assert_eq!((turns.timeout, turns.attempts), (Duration::from_secs(1), 1));
        let seconds =
            |turns: Turns, count| (0..count).map(|at| turns.of(at, count).as_secs()).collect::<Vec<_>>();
        assert_eq!(seconds(turns, 3), [1, 1, 1]);
        assert_eq!(seconds(Turns::default(), 3), [5, 3, 6]);
        assert_eq!(seconds(Turns::default(), 2), [5, 5]);
        assert_eq!(ResolvConf::parse("options timeout:0 attempts:99").turns.attempts, 5);
    }

    #[test]
    fn addresses_may_have_an_interface() {
        assert!(matches!(server("fe80::1%lo"), Some(SocketAddr::V6(v6)) if v6.scope_id() == 1));
        assert!(server("fe80::1%nosuch0").is_none() && server("x").is_none());
        assert_eq!(server("0.0.0.0"), Some("127.0.0.1:53".parse().unwrap()));
    }

    #[test]
    fn the_servers_behind_systemd_resolved_s_stub_are_the_real_ones() {
        let dir = tempfile::tempdir().unwrap();
        let (path, behind) = (dir.path().join("resolv.conf"), dir.path().join("behind"));
        fs::write(&path, "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch x\n").unwrap();
        assert_eq!(real_of(&path, &behind), path, "there is no other");
        fs::write(&behind, "nameserver 192.0.2.1\n").unwrap();
        assert_eq!(real_of(&path, &behind), behind);
        fs::write(&path, "nameserver 127.0.0.53\nnameserver 192.0.2.2\n").unwrap();
        assert_eq!(real_of(&path, &behind), path, "the administrator named another");
        fs::write(&path, "").unwrap();
        assert_eq!(real_of(&path, &behind), path);
    }
}
