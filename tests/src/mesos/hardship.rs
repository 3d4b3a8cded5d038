//! What makes an agent's life hard beside: both cores are busy, and the registry is away half of the time.
//!
//! It must never touch what it makes hard: only time and packets are taken away.

use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use crate::Lab;
use crate::engine::Engine;
use crate::fleet::StoreKind;
use crate::fleet::store::Store;
use crate::fleet::switch::Switch;
use crate::host::Host;
use crate::selvedge::Selvedge;

/// For how long the registry is there, and then away. Longer than the lifetime of a session.
const HALF: Duration = Duration::from_secs(12);
/// How often to look whether all is over.
const LOOK: Duration = Duration::from_millis(100);

/// A registry, and what joins it with the lab.
#[derive(Debug)]
pub struct Registry {
    _store: Store,
    switch: Switch,
}

impl Registry {
    /// A lab whose Selvedge has a registry; its engine keeps containers when it is restarted.
    #[must_use]
    pub fn with_lab() -> (Lab, Self) {
        let switch = Switch::new(1);
        let store = Store::start(StoreKind::Etcd, &switch);
        let host = Host::new();
        let address = switch.plug(&host, 0, 1, false);
        let engine = Engine::debian(&host, &["--live-restore"]);
        let url = store.url("selvedge");
        let options = ["--registry", &url, "--host-name", "h1", "--host-address", &address];
        let selvedge = Selvedge::start(&host, &engine, &options);
        (Lab { selvedge, engine, host }, Self { _store: store, switch })
    }

    /// Is away half of the time, until told to stop; how often it was.
    pub fn come_and_go(&self, host: &Host, stop: &AtomicBool) -> usize {
        let mut times = 0;
        while !pause(stop) {
            self.switch.cut_from_store(host);
            times += 1;
            pause(stop);
            self.switch.heal();
        }
        times
    }
}

/// A half, or less when all is over.
fn pause(stop: &AtomicBool) -> bool {
    let looks = HALF.as_millis() / LOOK.as_millis();
    (0..looks).any(|_| {
        std::thread::sleep(LOOK);
        stop.load(Relaxed)
    })
}

/// Loops that each take a core.
#[derive(Debug)]
pub struct Load(Vec<Child>);

impl Load {
    /// Starts as many as there are cores.
    ///
    /// # Panics
    /// When none can be started.
    #[must_use]
    pub fn start(host: &Host) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let start = |_| {
            let mut command = host.command("sh");
            // The directory is how the reaper finds it.
            command.args(["-c", "while :; do :; done"]).arg(host.path("load")).stdin(Stdio::null());
            command.spawn().expect("sh can be started")
        };
        Self((0..cores).map(start).collect())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
