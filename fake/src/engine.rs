//! An engine that does what it is told to: it has containers and images, makes and starts some, answers late or not at all.
//! Must never take a request for another than it is: what it does not know it answers with 404.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;

/// The engine; its clones are the same one.
#[derive(Debug, Clone)]
pub struct Engine {
    socket: PathBuf,
    state: Arc<Mutex<State>>,
    /// Lines of its stream of events; nothing cuts the stream off.
    events: broadcast::Sender<Option<Value>>,
}

#[derive(Debug, Default)]
struct State {
    containers: Vec<Value>,
    images: HashMap<String, Value>,
    /// All that was asked, as `METHOD PATH`.
    asked: Vec<String>,
    /// The bodies of creates.
    created: Vec<Value>,
    /// What the next requests of this name get.
    told: HashMap<String, Vec<Reply>>,
    serving: Option<JoinHandle<()>>,
    /// Connections under way.
    clients: Vec<JoinHandle<()>>,
}

/// An answer other than the usual one.
#[derive(Debug, Clone)]
pub enum Reply {
    /// This status and body.
    Json(u16, Value),
    /// The usual one, when this is true.
    When(watch::Receiver<bool>),
    /// It is done, and the connection broken off.
    DoneAndGone,
    /// Nothing is done, and the connection is broken off.
    Gone,
    /// These bytes; the connection stays open until the sender is gone.
    Raw(Vec<u8>, Option<watch::Receiver<bool>>),
}

/// A request.
#[derive(Debug)]
struct Asked {
    method: String,
    path: String,
    query: String,
    body: Vec<u8>,
}

impl Engine {
    /// Answers at this socket.
    pub fn serve(socket: &Path) -> Self {
        let engine =
            Self { socket: socket.to_owned(), state: Arc::default(), events: broadcast::Sender::new(64) };
        engine.comes();
        engine
    }

    /// Begins to answer, as one that has been started.
    pub fn comes(&self) {
        let listener = UnixListener::bind(&self.socket).unwrap();
        let engine = self.clone();
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let one = tokio::spawn(engine.clone().answer(client));
                engine.state().clients.push(one);
            }
        });
        self.state().serving = Some(serving);
    }

    /// Ends, with all connections.
    pub fn goes(&self) {
        let _ = std::fs::remove_file(&self.socket);
        let mut state = self.state();
        state.serving.take().into_iter().for_each(|serving| serving.abort());
        state.clients.drain(..).for_each(|client| client.abort());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Has this container from now on, instead of the one of the same id.
    pub fn has(&self, container: Value) {
        self.removes(container["Id"].as_str().unwrap());
        self.state().containers.push(container);
    }

    /// Has it no longer.
    pub fn removes(&self, id: &str) {
        self.state().containers.retain(|container| container["Id"] != id);
    }

    /// What it says of a container.
    pub fn container(&self, id: &str) -> Option<Value> {
        let is_it = |container: &&Value| {
            container["Id"] == id || container["Name"].as_str().is_some_and(|name| name[1..] == *id)
        };
        self.state().containers.iter().find(is_it).cloned()
    }

    /// Changes a container.
    pub fn change(&self, id: &str, change: impl FnOnce(&mut Value)) {
        let mut state = self.state();
        let found = state.containers.iter_mut().find(|container| container["Id"] == id);
        if let Some(found) = found {
            change(found);
        }
    }

    /// Has this image.
    pub fn has_image(&self, name: &str, image: Value) {
        self.state().images.insert(name.to_owned(), image);
    }

    /// The next request `METHOD PATH` gets another answer than the usual one.
    pub fn tell(&self, request: &str, reply: Reply) {
        self.state().told.entry(request.to_owned()).or_default().push(reply);
    }

    /// How often it was asked this.
    pub fn times(&self, request: &str) -> usize {
        self.state().asked.iter().filter(|asked| *asked == request).count()
    }

    /// All that it was asked.
    pub fn asked(&self) -> Vec<String> {
        self.state().asked.clone()
    }

    /// The bodies of the creates that it was asked.
    pub fn created(&self) -> Vec<Value> {
        self.state().created.clone()
    }

    /// Ends the stream of events, as an engine does that restarts.
    pub fn cut_events(&self) {
        let _ = self.events.send(None);
    }

    /// Says that something has happened to a container.
    pub fn happens(&self, action: &str, id: &str, attributes: &Value) {
        let actor = json!({"ID": id, "Attributes": attributes});
        self.says(json!({"Type": "container", "Action": action, "Actor": actor}));
    }

    /// Says this in its stream of events.
    pub fn says(&self, event: Value) {
        let _ = self.events.send(Some(event));
    }

    async fn answer(self, mut client: UnixStream) {
        while let Some(asked) = next(&mut client).await {
            let name = format!("{} {}", asked.method, asked.path);
            self.state().asked.push(name.clone());
            let told = self
                .state()
                .told
                .get_mut(&name)
                .filter(|replies| !replies.is_empty())
                .map(|told| told.remove(0));
            let page = match told {
                None if asked.path == "/events" => return self.stream(client).await,
                None => self.page(&asked),
                Some(Reply::When(mut when)) => {
                    let _ = when.wait_for(|now| *now).await;
                    self.page(&asked)
                }
                Some(Reply::Gone) => return,
                Some(Reply::DoneAndGone) => return drop(self.page(&asked)),
                Some(Reply::Raw(bytes, open)) => return raw(client, bytes, open).await,
                Some(Reply::Json(status, body)) => (status, body),
            };
            if write(&mut client, page, asked.method == "HEAD").await.is_none() {
                return;
            }
        }
    }

    fn page(&self, asked: &Asked) -> (u16, Value) {
        let words: Vec<&str> = asked.path.trim_start_matches('/').split('/').collect();
        match (asked.method.as_str(), words.as_slice()) {
            ("GET", ["containers", "json"]) => (200, self.state().containers.iter().map(listed).collect()),
            ("GET", ["containers", id, "json"]) => {
                self.container(id).map_or_else(|| missing("container", id), |found| (200, found))
            }
            ("POST", ["containers", "create"]) => self.create(asked),
            ("POST", ["containers", id, "start" | "restart"]) => self.runs(id, true),
            ("POST", ["containers", id, "stop" | "kill"]) => self.runs(id, false),
            ("DELETE", ["containers", id]) => {
                self.removes(id);
                (204, Value::Null)
            }
            ("GET", ["images", rest @ ..]) => {
                let name = rest[..rest.len() - 1].join("/");
                let image = self.state().images.get(&name).cloned();
                image.map_or_else(|| missing("image", &name), |image| (200, image))
            }
            ("GET" | "HEAD", ["_ping"]) => (200, json!("OK")),
            ("POST", ["commit"]) => (201, json!({"Id": "sha256:committed"})),
            ("GET", ["version" | "info"]) => (200, json!({})),
            _ => (404, json!({"message": "page not found"})),
        }
    }

    fn create(&self, asked: &Asked) -> (u16, Value) {
        let body: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
        let number = self.state().created.len();
        self.state().created.push(body.clone());
        let image = body["Image"].as_str().unwrap_or_default();
        let Some(image) = self.state().images.get(image).cloned() else { return missing("image", image) };
        let id = format!("{:064x}", 0xabc0 + number);
        let name = asked.query.split('&').find_map(|pair| pair.strip_prefix("name="));
        let mounts = body["HostConfig"]["Mounts"].as_array().cloned().unwrap_or_default();
        let mounts: Value = mounts
            .iter()
            .map(|mount| json!({"Type": mount["Type"], "Destination": mount["Target"]}))
            .collect();
        self.has(json!({
            "Id": id,
            "Name": format!("/{}", name.unwrap_or(&id)),
            "Image": image["Id"],
            "Created": "2026-11-30T00:00:00Z",
            "State": {"Running": false, "Status": "created", "Pid": 0, "StartedAt": "0001-01-01T00:00:00Z"},
            "HostConfig": body["HostConfig"],
            "Config": body,
            "Mounts": mounts,
        }));
        (201, json!({"Id": id, "Warnings": []}))
    }

    /// Its programs are this test, whose name is none of the wait program's: they run.
    fn runs(&self, id: &str, runs: bool) -> (u16, Value) {
        let Some(id) = self.container(id).map(|found| found["Id"].as_str().unwrap().to_owned()) else {
            return missing("container", id);
        };
        self.change(&id, |container| {
            container["State"]["Running"] = runs.into();
            container["State"]["Status"] = if runs { "running" } else { "exited" }.into();
            container["State"]["Pid"] = if runs { std::process::id() } else { 0 }.into();
            if runs {
                container["State"]["StartedAt"] = "2026-11-30T00:00:01Z".into();
            }
        });
        (204, Value::Null)
    }

    async fn stream(self, mut client: UnixStream) {
        let mut events = self.events.subscribe();
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.write_all(head).await.unwrap();
        while let Ok(Some(event)) = events.recv().await {
            let line = format!("{event}\n");
            if client.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes()).await.is_err() {
                return;
            }
        }
        let _ = client.write_all(b"0\r\n\r\n").await;
    }
}

fn missing(what: &str, name: &str) -> (u16, Value) {
    (404, json!({"message": format!("No such {what}: {name}")}))
}

async fn raw(mut client: UnixStream, bytes: Vec<u8>, open: Option<watch::Receiver<bool>>) {
    if client.write_all(&bytes).await.is_ok()
        && let Some(mut open) = open
    {
        let _ = open.wait_for(|closed| *closed).await;
    }
}

/// `Null` is no body.
async fn write(client: &mut UnixStream, (status, body): (u16, Value), bare: bool) -> Option<()> {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let length = if status == 204 { String::new() } else { format!("Content-Length: {}\r\n", text.len()) };
    let head =
        format!("HTTP/1.1 {status} X\r\nApi-Version: 1.51\r\nContent-Type: application/json\r\n{length}\r\n");
    let body = if bare { "" } else { text.as_str() };
    client.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await.ok()
}

/// The next request, whose version is taken off.
async fn next(client: &mut UnixStream) -> Option<Asked> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).await.ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length").then(|| value.parse().ok())?
    });
    let mut body = vec![0; length.unwrap_or(0)];
    client.read_exact(&mut body).await.ok()?;
    let mut words = head.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let bare = path.strip_prefix("/v1.").and_then(|rest| rest.find('/').map(|at| &rest[at..]));
    Some(Asked { method, path: bare.unwrap_or(path).to_owned(), query: query.to_owned(), body })
}

/// An inspect as the list has it.
fn listed(container: &Value) -> Value {
    let running = container["State"]["Running"] == true;
    let paused = container["State"]["Paused"] == true;
    let never_started = container["State"]["Status"] == "created";
    let state = match (running, never_started) {
        (true, _) if paused => "paused",
        (true, _) => "running",
        (false, true) => "created",
        (false, false) => "exited",
    };
    json!({
        "Id": container["Id"],
        "Names": [container["Name"]],
        "State": state,
        "Labels": container["Config"]["Labels"],
        "Mounts": container["Mounts"],
        "HostConfig": if container["HostConfig"].is_object() { container["HostConfig"].clone() } else { json!({}) },
    })
}
