//! An API with all that stands around it, and its clients.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use selvedge_containers::shared::Containers;
use selvedge_custody::Ledger;
use selvedge_engine::http::pool::Upstream;
use selvedge_fake::keeper::Keeper;
use selvedge_fake::lab::{Lab, RUNTIME};
use selvedge_proxy::api::{Api, Settings};
use selvedge_proxy::front::inherit::{self, Arrival, Inheritance};
use selvedge_proxy::handover;
use selvedge_registry::name::Name;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// For how long a request waits for an engine that is away.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A worker.
pub(crate) struct Worker {
    pub(crate) api: Arc<Api>,
    pub(crate) keeper: Keeper,
    /// Its records, for the next one.
    pub(crate) memory: OwnedFd,
    pub(crate) inheritance: Inheritance,
}

/// A client that sees what is written to it.
pub(crate) struct Client(pub(crate) UnixStream);

/// An answer: its status, its fields and its body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

fn settings(compat_mesos: bool) -> Settings {
    Settings {
        compat_mesos,
        api_min: None,
        domain: Name::parse("lab.internal").unwrap(),
        dns: Ipv4Addr::new(169, 254, 1, 1),
        pool: "10.32.0.0/12".parse().unwrap(),
        pool6: None,
        vips: None,
        runtime_dir: PathBuf::from(RUNTIME),
        wait_path: PathBuf::from("/var/lib/lab/wait"),
        user_networks: false,
        tenant_depth: 1,
    }
}

/// The first worker of a lab.
pub(crate) fn worker(lab: &Lab) -> Worker {
    worker_of(Arc::clone(&lab.containers), false)
}

/// A worker with these containers.
pub(crate) fn worker_of(containers: Arc<Containers>, compat_mesos: bool) -> Worker {
    let (keeper, link) = Keeper::welcoming();
    let (linked, _) = handover::Keeper::join(link, "lab").unwrap();
    let (ledger, memory) = Ledger::create().unwrap();
    let upstream = Upstream::new(containers.engine.socket().to_owned(), PATIENCE);
    containers.addresses.set_known();
    let api = Api::new(settings(compat_mesos), upstream, (Arc::new(linked), ledger), containers);
    Worker { api: Arc::new(api), keeper, memory, inheritance: Inheritance::default() }
}

impl Worker {
    /// A client that has just come.
    pub(crate) async fn client(&mut self) -> Client {
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.admit(1, theirs.into_std().unwrap().into(), None).await;
        Client(ours)
    }

    /// Serves a client; `estate`: the dead worker that served it.
    pub(crate) async fn admit(&mut self, id: u64, socket: OwnedFd, estate: Option<u32>) {
        let arrival = Arrival { id, listener: "api".to_owned(), socket, read: Vec::new(), estate };
        let client = self.inheritance.client(&self.api, arrival).await.unwrap();
        inherit::serve(&self.api, client).await;
    }
}

impl Client {
    pub(crate) async fn sends(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Asks, with a body where there is one.
    pub(crate) async fn asks(&mut self, method: &str, target: &str, body: Option<Value>) {
        let text = body.map(|body| body.to_string()).unwrap_or_default();
        let length = match (method, text.as_str()) {
            ("GET" | "HEAD", "") => String::new(),
            _ => format!("Content-Type: application/json\r\nContent-Length: {}\r\n", text.len()),
        };
        self.sends(&format!("{method} {target} HTTP/1.1\r\nHost: docker\r\n{length}\r\n{text}")).await;
    }

    /// Asks, and reads the answer.
    pub(crate) async fn gets(&mut self, method: &str, target: &str, body: Option<Value>) -> Answer {
        self.asks(method, target, body).await;
        self.answer(method == "HEAD").await
    }

    /// The next answer.
    pub(crate) async fn answer(&mut self, bare: bool) -> Answer {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            self.0
                .read_exact(&mut byte)
                .await
                .unwrap_or_else(|error| panic!("{error} after {:?}", String::from_utf8_lossy(&head)));
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let length = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; if bare { 0 } else { length.unwrap_or(0) }];
        self.0.read_exact(&mut body).await.unwrap();
        Answer { status: head[9..12].parse().unwrap(), head, body }
    }

    /// All that comes until the connection ends.
    pub(crate) async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).await.unwrap();
        String::from_utf8(rest).unwrap()
    }
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn message(&self) -> String {
        self.json()["message"].as_str().unwrap().to_owned()
    }
}

/// A lab whose engine has the image that tests make containers of.
pub(crate) fn with_image() -> Lab {
    let lab = Lab::new();
    lab.engine.has_image("busybox", json!({"Id": "sha256:b", "Config": {"Cmd": ["sh"]}}));
    lab
}
