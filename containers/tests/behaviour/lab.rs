//! One host with its containers: what a test puts in front of the code that it looks at.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use selvedge_containers::label::LABEL;
use selvedge_containers::shared::{Containers, Settings};
use selvedge_containers::store::Book;
use selvedge_datapath::addresses::Addresses;
use selvedge_engine::client::Engine;
use selvedge_registry::name::Name;
use serde_json::{Value, json};

use crate::fake::Fake;
use crate::host::FakeHost;

pub(crate) const RUNTIME: &str = "/run/lab";
const WAIT: &str = "/dev/.selvedge-wait";

pub(crate) struct Lab {
    pub(crate) engine: Fake,
    pub(crate) host: Arc<FakeHost>,
    pub(crate) containers: Arc<Containers>,
    _dir: tempfile::TempDir,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("engine.sock");
        let engine = Fake::serve(&socket);
        let addresses = Arc::new(Addresses::new("10.32.0.0/12".parse().unwrap(), 24, None));
        addresses.set_blocks(&["10.32.0.0/24".parse().unwrap()], None);
        let book = Arc::new(Book::new(PathBuf::from(RUNTIME), addresses));
        let settings = Settings {
            domain: Name::parse("lab.internal").unwrap(),
            mesos: false,
            by_tenant: false,
            drain: Duration::from_millis(200),
            alone: true,
        };
        let host = Arc::new(FakeHost::default());
        let for_containers = Arc::clone(&host);
        let containers = Containers::new(settings, book, Engine::new(&socket), for_containers);
        Self { engine, host, containers: Arc::new(containers), _dir: dir }
    }

    /// The engine has the container, and its label has been read.
    pub(crate) async fn knows(&self, container: Value) {
        let id = container["Id"].as_str().unwrap().to_owned();
        self.engine.has(container);
        let found = self.containers.engine.inspect(&id).await.unwrap();
        assert!(self.containers.book.learn(&found));
    }

    /// Waits until the host was told this, in the time of the test.
    pub(crate) async fn until_said(&self, what: &str) {
        self.until(what, |host| host.said().iter().any(|said| said == what)).await;
    }

    /// Waits until the host has come so far, in the time of the test.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&FakeHost) -> bool) {
        for _ in 0..10_000 {
            if is_so(&self.host) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never came: {what}; the host was told {:?}", self.host.said());
    }
}

/// An inspect of a container with the last octet of its address, as our create made it.
pub(crate) fn container(id: &str, octet: u8, running: bool) -> Value {
    behind(id, octet, running, &[])
}

/// The same for one that stands behind virtual addresses.
pub(crate) fn behind(id: &str, octet: u8, running: bool, vips: &[String]) -> Value {
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
