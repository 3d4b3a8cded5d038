//! What can go wrong, as messages for people.
//!
//! It must never hold descriptors: those travel beside the error, so that the caller still owns them.

use std::io;
use std::path::PathBuf;

/// Everything that can fail here.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `sun_path` has 108 bytes, one of them for the final zero.
    #[error("socket path {} is {} bytes long; the kernel allows at most 107", .0.display(), .0.as_os_str().len())]
    PathTooLong(PathBuf),
    /// Somebody accepts connections on that path.
    #[error("{} is in use: another process answers there", .0.display())]
    InUse(PathBuf),
    /// A bind mount of a path that did not exist leaves a directory there, for instance.
    #[error("{} exists and is not a socket; remove it first", .0.display())]
    NotASocket(PathBuf),
    /// A listening socket could not be made.
    #[error("cannot listen on {address} ({name}): {source}")]
    Listen {
        /// The listener's name.
        name: String,
        /// Where it should have listened.
        address: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The service manager handed over something else than listening sockets.
    #[error("socket activation: {0}")]
    Given(String),
    /// One keeper per runtime directory.
    #[error("another keeper is running in {}", .0.display())]
    Locked(PathBuf),
    /// A call to the kernel failed.
    #[error("{what}: {source}")]
    Os {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The first worker could not be started, or refused its configuration.
    #[error("the worker did not start: {0}")]
    Worker(String),
    /// No keeper is at the other end.
    #[error("no keeper: {0}")]
    NoKeeper(String),
    /// The other side speaks another protocol.
    #[error("the keeper speaks protocol {theirs}, this binary {ours}")]
    Protocol {
        /// The other side's protocol.
        theirs: u32,
        /// Ours.
        ours: u32,
    },
    /// An upgrade failed; what ran before goes on.
    #[error("{0}")]
    Upgrade(String),
    /// The other side said something that we don't understand.
    #[error("unintelligible message: {0}")]
    Garbled(String),
    /// The other side's queue is full: wait until the control socket is writable, and try again.
    #[error("the keeper's queue is full")]
    QueueFull,
    /// More bytes than the protocol carries.
    #[error("{what} is {bytes} bytes long; at most {most} are possible")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        most: usize,
    },
    /// The state of the keeper's former image can't be taken over.
    #[error("cannot take over the former keeper's state: {0}")]
    State(String),
}

impl Error {
    /// Whether somebody else has that socket now.
    pub(crate) fn is_in_use(&self) -> bool {
        match self {
            Error::InUse(_) => true,
            Error::Listen { source, .. } => source.kind() == io::ErrorKind::AddrInUse,
            _ => false,
        }
    }

    /// For `map_err`: a failed call with what it was for.
    pub(crate) fn os<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Error {
        move |source| Error::Os { what, source: source.into() }
    }
}
