//! One host with its containers: what a test puts in front of the code that it looks at.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use selvedge_containers::label::LABEL;
use selvedge_containers::shared::{Containers, Settings};
use selvedge_containers::store::Book;
use selvedge_datapath::addresses::{Addresses, Ledger};
use selvedge_engine::client::Engine;
use selvedge_registry::name::Name;
use serde_json::{Value, json};

use crate::engine::Engine as Fake;
use crate::host::FakeHost;

/// Which Selvedge this is.
pub const RUNTIME: &str = "/run/lab";
/// Where its containers have `wait`.
pub const WAIT: &str = "/dev/.selvedge-wait";

/// The host.
#[derive(Debug)]
pub struct Lab {
    /// Its engine.
    pub engine: Fake,
    /// Its network.
    pub host: Arc<FakeHost>,
    /// Its containers.
    pub containers: Arc<Containers>,
    /// Who has taken which address, for all workers.
    taken: OwnedFd,
    _dir: tempfile::TempDir,
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Lab {
    /// One that is alone, and whose tenants may all talk to each other.
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// The same with other settings.
    pub fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = Fake::serve(&dir.path().join("engine.sock"));
        let host = Arc::new(FakeHost::default());
        let taken = memfd_create(c"addresses", MFdFlags::MFD_CLOEXEC).unwrap();
        let containers = containers(&dir.path().join("engine.sock"), (&host, &taken), change);
        Self { engine, host, containers, taken, _dir: dir }
    }

    /// What a worker knows that comes after the one of this lab: nothing.
    pub fn next(&self) -> Arc<Containers> {
        containers(self.containers.engine.socket(), (&self.host, &self.taken), |_| {})
    }

    /// The engine has the container, and its label has been read.
    pub async fn knows(&self, container: Value) {
        let id = container["Id"].as_str().unwrap().to_owned();
        self.engine.has(container);
        let found = self.containers.engine.inspect(&id).await.unwrap();
        assert!(self.containers.book.learn(&found));
    }

    /// Waits until the host was told this, in the time of the test.
    pub async fn until_said(&self, what: &str) {
        self.until(what, |host| host.said().iter().any(|said| said == what)).await;
    }

    /// Waits until the host has come so far, in the time of the test.
    pub async fn until(&self, what: &str, is_so: impl Fn(&FakeHost) -> bool) {
        for _ in 0..10_000 {
            if is_so(&self.host) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never came: {what}; the host was told {:?}", self.host.said());
    }
}

fn containers(
    socket: &Path,
    (host, taken): (&Arc<FakeHost>, &OwnedFd),
    change: impl FnOnce(&mut Settings),
) -> Arc<Containers> {
    let taken = Ledger::open(taken.try_clone().unwrap()).unwrap();
    let addresses = Arc::new(Addresses::new("10.32.0.0/12".parse().unwrap(), 24, Some(taken)));
    addresses.set_blocks(&["10.32.0.0/24".parse().unwrap()], None);
    let book = Arc::new(Book::new(PathBuf::from(RUNTIME), addresses));
    let mut settings = Settings {
        domain: Name::parse("lab.internal").unwrap(),
        mesos: false,
        by_tenant: false,
        drain: Duration::from_millis(200),
        alone: true,
    };
    change(&mut settings);
    let host: Arc<FakeHost> = Arc::clone(host);
    Arc::new(Containers::new(settings, book, Engine::new(socket), host))
}

/// An inspect of a container with the last octet of its address, as our create made it.
pub fn container(id: &str, octet: u8, running: bool) -> Value {
    behind(id, octet, running, &[])
}

/// The same for one that stands behind virtual addresses.
pub fn behind(id: &str, octet: u8, running: bool, vips: &[String]) -> Value {
    let note = json!({
        "address": format!("10.32.0.{octet}"), "runtime": RUNTIME, "wait": WAIT, "original": {}, "vips": vips,
    });
    json!({
        "Id": id,
        "Name": format!("/{id}"),
        // Whose name is none of the wait program's: it runs.
        "State": {"Running": running, "Pid": if running { std::process::id() } else { 0 }, "StartedAt": "2026-11-30T00:00:00Z"},
        "Config": {"Labels": {LABEL: note.to_string()}},
        "Mounts": [{"Type": "bind", "Destination": WAIT}],
    })
}

/// Follows the engine until all has been read once.
pub async fn following(lab: &Lab) {
    let (ready, read) = tokio::sync::oneshot::channel();
    tokio::spawn(selvedge_containers::events::follow(Arc::clone(&lab.containers), ready));
    read.await.unwrap();
}
