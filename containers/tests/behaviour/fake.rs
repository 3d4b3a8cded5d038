//! An engine that says what it is told to: inspects, a list, and events until they are cut off.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

/// The engine; its clones are the same one.
#[derive(Clone)]
pub(crate) struct Fake {
    containers: Arc<Mutex<Vec<Value>>>,
    /// How often the stream of events was cut off.
    cuts: watch::Sender<u32>,
}

impl Fake {
    /// Answers at this socket.
    pub(crate) fn serve(socket: &Path) -> Self {
        let fake = Self { containers: Arc::default(), cuts: watch::Sender::new(0) };
        let listener = UnixListener::bind(socket).unwrap();
        let engine = fake.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(engine.clone().answer(client));
            }
        });
        fake
    }

    fn containers(&self) -> MutexGuard<'_, Vec<Value>> {
        self.containers.lock().unwrap()
    }

    /// Has this container from now on, instead of the one of the same id.
    pub(crate) fn has(&self, container: Value) {
        self.removes(container["Id"].as_str().unwrap());
        self.containers().push(container);
    }

    pub(crate) fn removes(&self, id: &str) {
        self.containers().retain(|container| container["Id"] != id);
    }

    /// Ends the stream of events, as an engine does that restarts.
    pub(crate) fn cut_events(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    async fn answer(self, mut client: UnixStream) {
        while let Some(path) = next(&mut client).await {
            let bare = path.split('?').next().unwrap_or_default().to_owned();
            if bare == "/events" {
                return self.events(client).await;
            }
            let (status, body) = self.page(&bare);
            let body = body.to_string();
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", body.len());
            if client.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await.is_err() {
                return;
            }
        }
    }

    fn page(&self, path: &str) -> (u16, Value) {
        let words: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match words.as_slice() {
            ["containers", "json"] => (200, self.containers().iter().map(listed).collect()),
            ["containers", id, "json"] => {
                let containers = self.containers();
                let found = containers.iter().find(|container| container["Id"] == **id);
                found.map_or((404, json!({"message": "no such container"})), |found| (200, found.clone()))
            }
            _ => (200, json!({})),
        }
    }

    async fn events(self, mut client: UnixStream) {
        let mut cuts = self.cuts.subscribe();
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.write_all(head).await.unwrap();
        let _ = cuts.changed().await;
        let _ = client.write_all(b"0\r\n\r\n").await;
    }
}

/// The target of the next request, none of which has a body.
async fn next(client: &mut UnixStream) -> Option<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).await.ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()?.split(' ').nth(1).map(str::to_owned)
}

/// An inspect as the list has it.
fn listed(container: &Value) -> Value {
    let running = container["State"]["Running"] == true;
    let never_started = container["State"]["Status"] == "created";
    json!({
        "Id": container["Id"],
        "Names": [container["Name"]],
        "State": if running { "running" } else if never_started { "created" } else { "exited" },
        "Labels": container["Config"]["Labels"],
        "Mounts": container["Mounts"],
    })
}
