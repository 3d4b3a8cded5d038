//! Writes a container's own names into its /etc/hosts, in the file that the engine keeps for it.

use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use crate::names::OwnLine;

/// Changes the file in place: it is bind-mounted, so another inode would not be seen inside.
///
/// # Errors
/// What the file system says.
pub fn write(engine_socket: &Path, hosts_path: &str, own: &OwnLine<'_>) -> io::Result<()> {
    let path = as_the_engine_sees(engine_socket, hosts_path)?;
    let old = std::fs::read_to_string(&path)?;
    let new = own.hosts_file(&old);
    if new == old {
        return Ok(());
    }
    // Over what is there, and cut behind it: a program that reads it meanwhile never finds an empty file.
    let file = std::fs::File::options().write(true).open(&path)?;
    file.write_all_at(new.as_bytes(), 0)?;
    file.set_len(new.len() as u64)
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
