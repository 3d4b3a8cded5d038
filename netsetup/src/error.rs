//! What can go wrong with a wire, worded for operators; error numbers are kept as values.
//!
//! Must never hold a netlink message: texts name the container and the step, not the protocol.

use std::fmt;

use nix::errno::Errno;

use crate::identity::prefix;

/// An error of this crate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The container's process, or its network namespace, is gone: there is nothing to wire any more.
    #[error("container {}: its process {pid} is gone", prefix(.container))]
    Gone {
        /// The container's id.
        container: String,
        /// The process given as its first.
        pid: u32,
    },
    /// The container shares the host's network namespace, or a host's process has taken over its process id.
    #[error("container {}: process {pid} is in the host's own network namespace", prefix(.container))]
    HostNamespace {
        /// The container's id.
        container: String,
        /// The process given as its first.
        pid: u32,
    },
    /// An interface that we did not make has the wire's name.
    #[error("container {}: interface {interface} already exists and is not ours", prefix(.container))]
    Occupied {
        /// The container's id.
        container: String,
        /// The name that is taken.
        interface: String,
    },
    /// The kernel routes the container's address to another wire.
    #[error("container {}: its address is routed to {interface}, the wire of another container", prefix(.container))]
    Routed {
        /// The container's id.
        container: String,
        /// The host's end of the other wire.
        interface: String,
    },
    /// The start signal was requested before the wire was made.
    #[error("container {}: it has no wire yet", prefix(.container))]
    NotConnected {
        /// The container's id.
        container: String,
    },
    /// The link did not come up, even though the time limit is generous.
    #[error("container {}: its wire is not up after {milliseconds} ms", prefix(.container))]
    NotUp {
        /// The container's id.
        container: String,
        /// How long we waited.
        milliseconds: u64,
    },
    /// The kernel refused a step for one container.
    #[error("container {}: cannot {step}: {}", prefix(.container), .errno.desc())]
    Wire {
        /// The container's id.
        container: String,
        /// The attempted step; completes "cannot ...".
        step: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The kernel refused a step that concerns the whole host.
    #[error("cannot {step}: {}", .errno.desc())]
    Host {
        /// The attempted step; completes "cannot ...".
        step: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The VXLAN device cannot be made: the peers behind it are unreachable, all others are reachable.
    #[error("peers behind routers are unreachable: cannot {step} {name} (UDP port {port}, VNI {id}): {}", .errno.desc())]
    Tunnel {
        /// The device's name.
        name: String,
        /// Its UDP port, which another program may be using.
        port: u16,
        /// Its VNI, which another device may have.
        id: u32,
        /// The attempted step; completes "cannot ...".
        step: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The IPv6 pool has no room for an IPv4 address in its last 32 bits.
    #[error("the IPv6 pool {pool6} is too small: its prefix may have at most 96 bits")]
    Pool6 {
        /// The pool.
        pool6: ipnet::Ipv6Net,
    },
    /// The iptables command failed.
    #[error("{program} {arguments}: {message}")]
    Firewall {
        /// The command: iptables, or ip6tables.
        program: String,
        /// The command's arguments.
        arguments: String,
        /// What it printed.
        message: String,
    },
    /// nft is missing, or refused a change of our rules.
    #[error("nft: {message}")]
    Nft {
        /// nft's output.
        message: String,
    },
    /// The network thread has ended: the process is exiting, or the thread panicked because of a bug.
    #[error("the network thread has ended")]
    Stopped,
}

impl Error {
    /// The kernel's error number, if the kernel refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Wire { errno, .. } | Self::Host { errno, .. } | Self::Tunnel { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

/// One refused step, before it is attributed to a container or to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The attempted step; completes "cannot ...".
    pub(crate) step: &'static str,
    /// The kernel's answer.
    pub(crate) errno: Errno,
}

impl Failure {
    pub(crate) fn new(step: &'static str, error: &std::io::Error) -> Self {
        Self { step, errno: error.raw_os_error().map_or(Errno::EIO, Errno::from_raw) }
    }

    pub(crate) fn of_host(self) -> Error {
        Error::Host { step: self.step, errno: self.errno }
    }

    pub(crate) fn of_container(self, container: &str) -> Error {
        Error::Wire { container: container.to_owned(), step: self.step, errno: self.errno }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "cannot {}: {}", self.step, self.errno.desc())
    }
}
