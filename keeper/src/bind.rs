//! Creates the listening sockets, and the lock that keeps a second keeper out.
//!
//! It must never leave a path without a socket where there was one, and never take over a path on which another process
//! answers. Nor does it unlink a socket on exit: a stale file costs nothing (the next start replaces it), while
//! unlinking could remove the socket of a successor that has bound the same path meanwhile.

use crate::error::Error;
use crate::plan::{Listener, ListenerKind};
use rustix::fs::{AtFlags, FlockOperation, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The kernel caps this at /proc/sys/net/core/somaxconn. Long, because connections queue here while there is no worker.
const BACKLOG: i32 = 65_535;
/// Bytes that a UDP socket holds while no worker reads. A query takes about a kilobyte in the kernel, so this is seconds of
/// thousands of queries.
const UDP_BUFFER: usize = 8 << 20;
/// How long the worker of a killed keeper needs to leave.
const ORPHAN_LEAVES: Duration = Duration::from_secs(2);
/// `sizeof(sun_path)` less the final zero.
const PATH_MAX: usize = 107;

/// Creates the runtime directory and locks it for as long as the descriptor (or a duplicate) is open.
///
/// # Errors
/// `Locked` if another keeper holds the lock; otherwise the kernel's error.
pub(crate) fn lock(runtime_dir: &Path) -> Result<OwnedFd, Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(runtime_dir)
        .map_err(Error::os("cannot create the runtime directory"))?;
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(runtime_dir.join("keeper.lock"), flags, Mode::from_raw_mode(0o600))
        .map_err(Error::os("cannot open keeper.lock"))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::AGAIN) => Err(Error::Locked(runtime_dir.to_owned())),
        Err(error) => Err(Error::os("cannot lock keeper.lock")(error)),
    }
}

/// Creates one socket: non-blocking, close-on-exec. Waits briefly while the socket is in use: after a keeper is killed,
/// its worker holds the sockets until it notices.
///
/// # Errors
/// Names the listener and the reason.
pub(crate) fn bind(listener: &Listener) -> Result<(String, OwnedFd), Error> {
    let deadline = Instant::now() + ORPHAN_LEAVES;
    loop {
        match bind_now(listener) {
            Err(error) if error.is_in_use() && Instant::now() < deadline => sleep(ORPHAN_LEAVES / 100),
            other => return other.map(|fd| (listener.name.clone(), fd)),
        }
    }
}

fn bind_now(listener: &Listener) -> Result<OwnedFd, Error> {
    let name = &listener.name;
    match &listener.kind {
        ListenerKind::UnixStream { path, mode, uid, gid } => unix(name, path, *mode, (*uid, *gid)),
        ListenerKind::Tcp(address) => named(name, address, tcp(*address)),
        ListenerKind::Udp(address) => named(name, address, udp(*address)),
        ListenerKind::Memory => named(name, "memory", memory(name)),
        // A duplicate is close-on-exec, but shares O_NONBLOCK with the original.
        ListenerKind::Given(fd) => named(
            name,
            "a given socket",
            fd.try_clone().and_then(|copy| Ok(rustix::io::ioctl_fionbio(&copy, true).map(|()| copy)?)),
        ),
    }
}

fn named<T>(name: &str, address: impl ToString, result: io::Result<T>) -> Result<T, Error> {
    result.map_err(|source| Error::Listen { name: name.to_owned(), address: address.to_string(), source })
}

/// A unix stream socket at `path`; it accepts connections before it becomes visible there.
///
/// # Errors
/// `PathTooLong`, `InUse`, `NotASocket`, or `Listen`.
pub(crate) fn unix(name: &str, path: &Path, mode: u32, owner: (u32, u32)) -> Result<OwnedFd, Error> {
    if path.as_os_str().len() > PATH_MAX {
        return Err(Error::PathTooLong(path.to_owned()));
    }
    let address = path.display().to_string();
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(Error::NotASocket(path.to_owned())),
        Ok(_) if named(name, &address, answers(path))? => return Err(Error::InUse(path.to_owned())),
        _ => {}
    }
    named(name, &address, unix_by_rename(path, mode, owner))
}

/// Whether a process listens on that path. A full queue (EAGAIN) counts as an answer.
fn answers(path: &Path) -> io::Result<bool> {
    let probe = socket(AddressFamily::UNIX, SocketType::STREAM)?;
    match rustix::net::connect(&probe, &SocketAddrUnix::new(path)?) {
        Ok(()) | Err(Errno::AGAIN | Errno::INPROGRESS) => Ok(true),
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Binds under a temporary name, sets mode and owner, listens, and only then renames: connections reach the inode, so
/// the name it was bound under does not matter to them (`getsockname` shows the temporary one).
fn unix_by_rename(path: &Path, mode: u32, (uid, gid): (u32, u32)) -> io::Result<OwnedFd> {
    let (Some(parent), Some(file)) = (path.parent(), path.file_name()) else {
        return Err(Errno::INVAL.into());
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let directory =
        rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let temporary = format!(".keeper-{}", std::process::id());
    let _ = rustix::fs::unlinkat(&directory, &*temporary, AtFlags::empty());
    let fd = socket(AddressFamily::UNIX, SocketType::STREAM)?;
    // Through /proc the temporary path stays short, however long the final one is.
    let through = format!("/proc/self/fd/{}/{temporary}", directory.as_raw_fd());
    rustix::net::bind(&fd, &SocketAddrUnix::new(&*through)?)?;
    let result = (|| {
        // The owner first: chown may clear mode bits.
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(&directory, &*temporary, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
        rustix::fs::chmodat(&directory, &*temporary, Mode::from_raw_mode(mode), AtFlags::empty())?;
        rustix::net::listen(&fd, BACKLOG)?;
        rustix::fs::renameat(&directory, &*temporary, &directory, file)
    })();
    if let Err(error) = result {
        let _ = rustix::fs::unlinkat(&directory, &*temporary, AtFlags::empty());
        return Err(error.into());
    }
    Ok(fd)
}

fn tcp(address: SocketAddr) -> io::Result<OwnedFd> {
    let fd = inet(address, SocketType::STREAM)?;
    // Connections of the former keeper may still be in TIME_WAIT.
    sockopt::set_socket_reuseaddr(&fd, true)?;
    rustix::net::bind(&fd, &address)?;
    rustix::net::listen(&fd, BACKLOG)?;
    Ok(fd)
}

fn udp(address: SocketAddr) -> io::Result<OwnedFd> {
    let fd = inet(address, SocketType::DGRAM)?;
    // More than net.core.rmem_max needs CAP_NET_ADMIN; without it as much as that allows is better than the default.
    if sockopt::set_socket_recv_buffer_size_force(&fd, UDP_BUFFER).is_err() {
        let _ = sockopt::set_socket_recv_buffer_size(&fd, UDP_BUFFER);
    }
    rustix::net::bind(&fd, &address)?;
    Ok(fd)
}

fn memory(name: &str) -> io::Result<OwnedFd> {
    Ok(rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC)?)
}

/// A socket that can be bound to an address which does not exist yet: the worker adds it later.
fn inet(address: SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let fd = match address {
        SocketAddr::V4(_) => socket(AddressFamily::INET, kind)?,
        SocketAddr::V6(_) => socket(AddressFamily::INET6, kind)?,
    };
    match address {
        SocketAddr::V4(_) => sockopt::set_ip_freebind(&fd, true)?,
        SocketAddr::V6(_) => sockopt::set_ipv6_freebind(&fd, true)?,
    }
    Ok(fd)
}

fn socket(family: AddressFamily, kind: SocketType) -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?)
}

#[cfg(test)]
mod tests;
