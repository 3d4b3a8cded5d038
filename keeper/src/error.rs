//! What can go wrong, worded for operators.
//!
//! It must never hold descriptors: those travel beside the error, so that the caller still owns them.

use std::io;
use std::path::PathBuf;

/// Everything that can fail here.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `sun_path` has 108 bytes, one of them for the terminating zero.
    #[error("socket path {} is {} bytes long; the kernel allows at most 107", .0.display(), .0.as_os_str().len())]
    PathTooLong(PathBuf),
    /// Another process accepts connections on that path.
    #[error("{} is in use: another process answers there", .0.display())]
    InUse(PathBuf),
    /// For instance, a bind mount of a path that did not exist leaves a directory there.
    #[error("{} exists and is not a socket; remove it first", .0.display())]
    NotASocket(PathBuf),
    /// A listening socket could not be created.
    #[error("cannot listen on {address} ({name}): {source}")]
    Listen {
        /// The listener's name.
        name: String,
        /// The address that it should listen on.
        address: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// The service manager handed over something other than listening sockets.
    #[error("socket activation: {0}")]
    Given(String),
    /// One keeper per runtime directory.
    #[error("another keeper is running in {}", .0.display())]
    Locked(PathBuf),
    /// A system call failed.
    #[error("{what}: {source}")]
    Os {
        /// The attempted operation.
        what: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
    /// The first worker could not be started, or refused its configuration.
    #[error("the worker did not start: {0}")]
    Worker(String),
    /// There is no keeper at the other end.
    #[error("no keeper: {0}")]
    NoKeeper(String),
    /// The peer speaks another protocol.
    #[error("the keeper speaks protocol {theirs}, this binary {ours}")]
    Protocol {
        /// The peer's protocol.
        theirs: u32,
        /// Ours.
        ours: u32,
    },
    /// An upgrade failed; the old process keeps running.
    #[error("{0}")]
    Upgrade(String),
    /// The peer sent something that we do not understand.
    #[error("unintelligible message: {0}")]
    Garbled(String),
    /// The peer's queue is full: wait until the control socket is writable, and try again.
    #[error("the keeper's queue is full")]
    QueueFull,
    /// More bytes than the protocol carries.
    #[error("{what} is {bytes} bytes long; at most {most} are possible")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The limit.
        most: usize,
    },
    /// The state of the keeper's former image cannot be taken over.
    #[error("cannot take over the former keeper's state: {0}")]
    State(String),
}

impl Error {
    /// Whether another process holds that socket now.
    pub(crate) fn is_in_use(&self) -> bool {
        match self {
            Error::InUse(_) => true,
            Error::Listen { source, .. } => source.kind() == io::ErrorKind::AddrInUse,
            _ => false,
        }
    }

    /// For `map_err`: names the operation that failed.
    pub(crate) fn os<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Error {
        move |source| Error::Os { what, source: source.into() }
    }
}
