//! A laboratory for the suites: network namespaces with real engines, the real docker CLI, the real binary.
//!
//! Nothing here may touch the machine's own network, and nothing may stay behind: a reaper process takes all
//! away when the tests end, however they end.

pub mod circles;
pub mod compare;
pub mod custody;
pub mod docker;
pub mod engine;
pub mod exchange;
pub mod firewalld;
pub mod fleet;
pub mod growth;
pub mod grpc;
pub mod host;
pub mod http;
pub mod likeness;
pub mod limit;
pub mod mesos;
pub mod nomad;
pub mod reach;
pub mod reaper;
pub mod selvedge;
pub mod shell;
pub mod slow;
pub mod still;
pub mod systemd;
pub mod table;
pub mod tomorrow;
pub mod upstream;
pub mod wait;

use std::path::PathBuf;
use std::sync::OnceLock;

use crate::engine::Engine;
use crate::host::Host;
use crate::selvedge::Selvedge;

/// One host with an engine and a Selvedge in front of it, shared by the tests of a suite.
#[derive(Debug)]
pub struct Lab {
    // Dropped in this order: who fails can still read the logs in the host's directory.
    /// The Selvedge.
    pub selvedge: Selvedge,
    /// The engine.
    pub engine: Engine,
    /// The network namespace and its directory.
    pub host: Host,
}

impl Lab {
    /// A lab of its own, with Debian's engine.
    ///
    /// # Panics
    /// When it cannot be had: a test that cannot run fails and says why.
    #[must_use]
    pub fn new() -> Self {
        Self::with_engine(&[])
    }

    /// A lab of its own, whose Debian engine has these options.
    ///
    /// # Panics
    /// As [`Lab::new`].
    #[must_use]
    pub fn with_engine(options: &[&str]) -> Self {
        Self::of(|host| Engine::debian(host, options))
    }

    /// A lab of its own, with the engine of Debian trixie, which has these options.
    ///
    /// # Panics
    /// As [`Lab::new`].
    #[must_use]
    pub fn of_trixie(options: &[&str]) -> Self {
        Self::of(|host| Engine::trixie(host, options))
    }

    fn of(engine: impl FnOnce(&Host) -> Engine) -> Self {
        let host = Host::new();
        let engine = engine(&host);
        let selvedge = Selvedge::start(&host, &engine, &[]);
        Self { host, engine, selvedge }
    }

    /// A lab of its own, with Debian's engine, whose Selvedge has these options.
    ///
    /// # Panics
    /// As [`Lab::new`].
    #[must_use]
    pub fn with_selvedge(options: &[&str]) -> Self {
        let host = Host::new();
        let engine = Engine::debian(&host, &[]);
        let selvedge = Selvedge::start(&host, &engine, options);
        Self { host, engine, selvedge }
    }

    /// The lab that all tests of this suite share.
    pub fn shared() -> &'static Self {
        static LAB: OnceLock<Lab> = OnceLock::new();
        LAB.get_or_init(Self::new)
    }

    /// The socket on which Selvedge listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.selvedge.socket()
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}
