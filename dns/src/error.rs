//! Why the DNS server could not start. Errors of single queries are answers, never errors here.

use std::net::SocketAddr;

use thiserror::Error;

/// Why the DNS server could not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The thread could not be started.
    #[error("cannot start the DNS thread: {0}")]
    Thread(#[source] std::io::Error),
    /// A socket could not be used.
    #[error("cannot use the DNS socket {address}: {source}")]
    Socket {
        /// What the socket is bound to.
        address: SocketAddr,
        /// The kernel's error.
        source: std::io::Error,
    },
    /// A socket's own address could not be read.
    #[error("cannot read the address of a DNS socket: {0}")]
    Address(#[source] std::io::Error),
    /// Name servers cannot be asked by TLS.
    #[error("cannot ask name servers by TLS: {0}")]
    Tls(String),
    /// The socket is bound to all addresses: the kernel would then choose the source of an answer by its routes, and a
    /// client that asked another address would discard it.
    #[error("the DNS socket {0} must be bound to one address")]
    Unspecified(SocketAddr),
}
