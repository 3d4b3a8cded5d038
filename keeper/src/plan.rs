//! What a keeper should hold and run.
//!
//! It must never do anything: it is plain data in which `main` states its wishes.

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
    /// By its name, whether a listener's clients are accepted by the keeper itself, so that none is lost with its worker.
    pub accepts: fn(&str) -> bool,
    /// How to start a worker. The path is resolved at each start, so that a new file there becomes the next worker.
    pub worker: Program,
    /// How this keeper itself was started; `upgrade --keeper` executes it in place.
    pub keeper: Program,
    /// The directory of the lock and of the control socket `keeper.sock`. Created if missing.
    pub runtime_dir: PathBuf,
    /// How long a worker has from its start until it reports ready.
    pub ready_timeout: Duration,
    /// How long a replaced worker may take to finish its requests; its successor resumes the rest.
    pub drain_limit: Duration,
    /// How long a worker may owe an answer before it is killed and replaced; zero means for ever.
    pub worker_timeout: Duration,
    /// How long workers and streams have once the keeper is told to stop.
    pub stop_grace: Duration,
    /// This binary's version, for status and logs.
    pub version: String,
    /// Writes one line to the keeper's log. It must not block for long: all streams wait meanwhile.
    pub log: fn(&str),
}

impl Plan {
    /// A plan with the default times and a log on stderr, and no listeners.
    pub fn new(worker: Program, keeper: Program, runtime_dir: PathBuf) -> Plan {
        Plan {
            listeners: Vec::new(),
            accepts: |_| false,
            worker,
            keeper,
            runtime_dir,
            ready_timeout: Duration::from_secs(30),
            drain_limit: Duration::from_secs(10),
            worker_timeout: Duration::from_secs(5),
            stop_grace: Duration::from_secs(10),
            version: String::new(),
            log: log_to_stderr,
        }
    }
}

/// The default log: a line on stderr. A closed stderr is no reason to exit.
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
    /// The name by which workers know it.
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
    /// Not a socket: memory (a memfd) in which a worker saves what its successor would otherwise have to ask others
    /// for.
    Memory,
    /// A socket that another process bound: systemd's socket activation.
    Given(OwnedFd),
}
