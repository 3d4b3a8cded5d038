//! What a keeper shall hold and run.
//!
//! It must never do anything: these are the words in which `main` tells its wishes.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

/// All that a keeper needs to know.
#[derive(Debug)]
pub struct Plan {
    /// The sockets to hold.
    pub listeners: Vec<Listener>,
    /// How a worker is started. The path is looked up at each start, so that a new file there is the next worker.
    pub worker: Program,
    /// How this keeper itself was started; `upgrade --keeper` executes it in place.
    pub keeper: Program,
    /// Where the lock and the control socket `keeper.sock` are. Created if it is not there.
    pub runtime_dir: PathBuf,
    /// The time that a worker has from its start until it says that it is ready.
    pub ready_timeout: Duration,
    /// The longest time that a replaced worker may take for its remaining requests.
    pub drain_limit: Duration,
    /// The time that workers and streams have left when the keeper is told to stop.
    pub stop_grace: Duration,
    /// This binary's version, for status and logs.
    pub version: String,
    /// Takes one line of the keeper's log. It must not block for long: all streams wait meanwhile.
    pub log: fn(&str),
}

impl Plan {
    /// A plan with the default times and a log on stderr, and no listeners.
    pub fn new(worker: Program, keeper: Program, runtime_dir: PathBuf) -> Plan {
        Plan {
            listeners: Vec::new(),
            worker,
            keeper,
            runtime_dir,
            ready_timeout: Duration::from_secs(30),
            drain_limit: Duration::from_secs(3600),
            stop_grace: Duration::from_secs(10),
            version: String::new(),
            log: log_to_stderr,
        }
    }
}

/// The default log: a line on stderr. A closed stderr is no reason to end.
pub fn log_to_stderr(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "keeper: {line}");
}

/// A program and its arguments (without argv\[0\], which is the path).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The file to execute.
    pub exe: PathBuf,
    /// What follows the program's own name.
    pub args: Vec<OsString>,
}

/// One socket that workers are given.
#[derive(Debug)]
pub struct Listener {
    /// By this name workers know it.
    pub name: String,
    /// What it is.
    pub kind: ListenerKind,
}

/// The kinds of sockets.
#[derive(Debug)]
pub enum ListenerKind {
    /// A unix stream socket, with its file's mode and owner.
    UnixStream {
        /// At most 107 bytes.
        path: PathBuf,
        /// For instance 0o660.
        mode: u32,
        /// The file's user.
        uid: u32,
        /// The file's group.
        gid: u32,
    },
    /// A listening TCP socket. The address need not exist yet.
    Tcp(SocketAddr),
    /// A bound UDP socket. The address need not exist yet.
    Udp(SocketAddr),
    /// No socket: memory (a memfd) in which a worker writes down what the next one would have to ask others for.
    Memory,
    /// A socket that somebody else has bound: systemd's socket activation.
    Given(OwnedFd),
}
