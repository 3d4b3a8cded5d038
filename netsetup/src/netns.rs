//! Enters other network namespaces: the only place that does. A namespace belongs to a thread, so each entry
//! has a thread of its own that does one thing and ends; no thread that serves anything is ever moved.

use std::fs::File;
use std::io;
use std::thread;

use nix::sched::CloneFlags;
use rtnetlink::sys::TokioSocket;
use rtnetlink::sys::protocols::NETLINK_ROUTE;

/// Runs `work` in the namespace and gives back what it returns.
///
/// # Errors
/// The namespace cannot be entered, or what `work` says.
pub(crate) fn within<T: Send>(netns: &File, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            #[expect(clippy::disallowed_methods, reason = "a thread that does only this and ends")]
            nix::sched::setns(netns, CloneFlags::CLONE_NEWNET)?;
            work()
        });
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace ended badly")))
    })
}

/// Runs `work` in a new namespace that ends with it.
///
/// # Errors
/// A namespace cannot be made, or what `work` says.
pub(crate) fn within_new<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET)?;
            work()
        });
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace ended badly")))
    })
}

/// A netlink socket of the namespace: it stays there, whoever uses it.
///
/// # Errors
/// The namespace cannot be entered, or the socket not be opened.
pub(crate) fn socket(netns: &File) -> io::Result<rtnetlink::sys::Socket> {
    within(netns, || rtnetlink::sys::Socket::new(NETLINK_ROUTE))
}

/// A connection over such a socket; its task ends when the handle is dropped. To be called within a runtime.
///
/// # Errors
/// The runtime does not take the socket.
pub(crate) fn connection(socket: rtnetlink::sys::Socket) -> io::Result<rtnetlink::Handle> {
    use std::os::fd::{FromRawFd, IntoRawFd};
    socket.set_non_blocking(true)?;
    // SAFETY: the descriptor is the socket's, which gives it up in the same expression.
    let socket = unsafe { TokioSocket::from_raw_fd(socket.into_raw_fd()) };
    let (connection, handle, _) = rtnetlink::from_socket(socket);
    tokio::spawn(connection);
    Ok(handle)
}
