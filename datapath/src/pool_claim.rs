//! Keeps two Selvedges in one network namespace from giving out the same addresses.
//!
//! Each keeper listens on an abstract unix socket whose name says which pool it has: such names belong to the network
//! namespace, as the routes do, and go with their process. Must never outlive the keeper, nor tell of one that is gone.

use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

/// What a name begins with; the pool and the group follow.
const PREFIX: &str = "selvedge-pool:";
/// The time in which the worker of a killed keeper leaves, which has the socket too.
const ORPHAN_LEAVES: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_millis(20);

/// Another Selvedge in this network namespace.
#[derive(Debug, PartialEq, Eq)]
pub struct Other {
    /// Its keeper's process; 0 when that cannot be told.
    pub pid: i32,
    /// Its pool, which has addresses of ours.
    pub pool: Ipv4Net,
}

impl Other {
    /// What is wrong and what to do, for the user.
    pub fn told(&self, pool: Ipv4Net) -> String {
        let Self { pid, pool: theirs } = self;
        format!(
            "another Selvedge (pid {pid}) gives out addresses of {theirs} here: stop that one, or run this one with \
             another --pool than {pool}"
        )
    }
}

/// Whether two networks have addresses in common.
pub fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b) || b.contains(&a)
}

fn name(pool: Ipv4Net, group: u32) -> String {
    format!("{PREFIX}{pool}:{group:08x}")
}

fn parse(name: &str) -> Option<(Ipv4Net, u32)> {
    let (pool, group) = name.strip_prefix(PREFIX)?.rsplit_once(':')?;
    Some((pool.parse().ok()?, u32::from_str_radix(group, 16).ok()?))
}

/// Says that the pool is ours, for as long as the descriptor is open. `None`: this very Selvedge holds it already.
///
/// # Errors
/// Another one has addresses of it, in words for the user; or the kernel refuses it.
pub fn claim(pool: Ipv4Net, group: u32, is_successor: bool) -> Result<Option<OwnedFd>, String> {
    let deadline = Instant::now() + ORPHAN_LEAVES;
    let bind = || UnixListener::bind_addr(&SocketAddr::from_abstract_name(name(pool, group))?);
    let listener = loop {
        match bind() {
            Ok(listener) => break listener,
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                return Err(format!("cannot claim the pool {pool}: {error}"));
            }
            // The lock on the runtime directory tells what is wrong, if anything is.
            Err(_) if is_successor || Instant::now() >= deadline => return Ok(None),
            Err(_) => std::thread::sleep(AGAIN),
        }
    };
    match others(pool, group).first() {
        // One that upgrades goes on; which of the two was wrong cannot be told by now.
        Some(other) if !is_successor => Err(other.told(pool)),
        _ => Ok(Some(listener.into())),
    }
}

/// The other Selvedges here that have addresses of this pool.
pub fn others(pool: Ipv4Net, group: u32) -> Vec<Other> {
    let sockets = std::fs::read_to_string("/proc/self/net/unix").unwrap_or_default();
    let names = sockets.lines().filter_map(|line| line.rsplit_once('@').map(|(_, name)| name));
    let mut found: Vec<(Ipv4Net, u32)> = names.filter_map(parse).collect();
    found.retain(|(theirs, other)| *other != group && overlap(*theirs, pool));
    found.dedup();
    found
        .into_iter()
        .map(|(theirs, other)| Other { pid: pid_of(&name(theirs, other)), pool: theirs })
        .collect()
}

/// The process that listens there.
fn pid_of(name: &str) -> i32 {
    let peer = SocketAddr::from_abstract_name(name).and_then(|address| UnixStream::connect_addr(&address));
    peer.ok().and_then(|peer| getsockopt(&peer, PeerCredentials).ok()).map_or(0, |peer| peer.pid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_pools_are_told_with_the_other_ones_pid() {
        let net = |text: &str| text.parse::<Ipv4Net>().unwrap();
        let (mine, small, beside) = (net("10.32.0.0/12"), net("10.40.7.0/24"), net("10.48.0.0/12"));
        // Groups that no other test of this machine has.
        let group = std::process::id() << 8;
        let held = claim(mine, group, false).unwrap();
        assert!(held.is_some());
        let told = claim(small, group | 1, false).unwrap_err();
        assert!(told.contains(&format!("(pid {})", std::process::id())) && told.contains("--pool"), "{told}");
        assert!(claim(beside, group | 2, false).unwrap().is_some());
        assert!(claim(mine, group, true).unwrap().is_none(), "its own, in the keeper's next image");
        drop(held);
        assert!(claim(small, group | 1, false).unwrap().is_some());
    }
}
