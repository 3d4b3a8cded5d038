//! Writes a container's own names into its /etc/hosts, in the file that the engine keeps for it.

use std::io;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use crate::naming;

/// What is to be told.
#[derive(Debug)]
pub(crate) struct Names<'a> {
    /// The wire's address.
    pub(crate) address: Ipv4Addr,
    /// What the program sees as its hostname.
    pub(crate) hostname: &'a str,
    /// Full names, the canonical one first.
    pub(crate) fqdns: &'a [String],
}

/// Changes the file in place: it is bind-mounted, so another inode would not be seen inside.
///
/// # Errors
/// What the file system says.
pub(crate) fn write(engine_socket: &Path, hosts_path: &str, names: &Names<'_>) -> io::Result<()> {
    let path = as_the_engine_sees(engine_socket, hosts_path)?;
    let old = std::fs::read_to_string(&path)?;
    let new = naming::hosts_file(&old, names.address, names.hostname, names.fqdns);
    if new == old { Ok(()) } else { std::fs::write(&path, new) }
}

/// The engine may live in a mount namespace of its own: its paths begin at its own root.
fn as_the_engine_sees(engine_socket: &Path, path: &str) -> io::Result<PathBuf> {
    if Path::new(path).exists() {
        return Ok(PathBuf::from(path));
    }
    let socket = UnixStream::connect(engine_socket)?;
    let peer = getsockopt(&socket, PeerCredentials)?;
    Ok(PathBuf::from(format!("/proc/{}/root{path}", peer.pid())))
}
