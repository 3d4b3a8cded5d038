//! Tells systemd our state (sd_notify(3)), if it asked.
//!
//! It must never matter whether the socket has a reader.

use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sendto, socket_with};
use std::os::unix::ffi::OsStrExt;

/// Sends lines like `READY=1` to $NOTIFY_SOCKET.
pub(crate) fn notify(lines: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let address = match path.as_bytes() {
        // An abstract name is written with an @.
        [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name),
        path => SocketAddrUnix::new(path),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None);
    if let (Ok(address), Ok(socket)) = (address, socket) {
        let _ = sendto(&socket, lines.as_bytes(), SendFlags::NOSIGNAL, &address);
    }
}

/// `RELOADING=1` needs the time at which the reload began (systemd 253 and later).
pub(crate) fn reloading() {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let microseconds = now.tv_sec as i128 * 1_000_000 + i128::from(now.tv_nsec) / 1000;
    notify(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
}
