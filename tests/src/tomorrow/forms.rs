//! What an engine of API 1.53 writes in another form than those of today (moby: `daemon/server/httputils/json-seq.go`,
//! `api/types/types.go`, and the list of changes in `api/docs/CHANGELOG.md`).
//!
//! Must never change what the real engine says, only its form.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

/// The API that it says it has.
const API: &str = "1.53";

/// From this version 1.N on, and without one, its forms are new.
const NEW: u32 = 52;

/// The forms of events, in the order in which the engine prefers them.
const FORMS: [&str; 3] = ["application/x-ndjson", "application/json-seq", "application/jsonl"];

/// What stands at the top of `NetworkSettings` until API 1.51.
const GONE: [&str; 13] = [
    "Bridge",
    "HairpinMode",
    "LinkLocalIPv6Address",
    "LinkLocalIPv6PrefixLen",
    "SecondaryIPAddresses",
    "SecondaryIPv6Addresses",
    "EndpointID",
    "Gateway",
    "GlobalIPv6Address",
    "GlobalIPv6PrefixLen",
    "IPAddress",
    "IPPrefixLen",
    "IPv6Gateway",
];

/// A request's head.
pub(super) struct Asked {
    head: String,
    method: String,
    target: String,
    /// N of the newest API 1.N that the engine of today has.
    newest: u32,
}

impl Asked {
    pub(super) fn read(bytes: &[u8], newest: u32) -> Option<Self> {
        let len = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&bytes[..len]).into_owned();
        let mut words = head.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        Some(Self { head, method, target, newest })
    }

    /// Whether a field stands there so.
    pub(super) fn has(&self, field: &str) -> bool {
        self.head.lines().any(|line| line.eq_ignore_ascii_case(field))
    }

    fn values(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(':'));
        let values = fields.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        values.flat_map(|(_, value)| value.split(',')).map(str::trim).collect()
    }

    /// `/v1.41/containers/json` as `41` and `/containers/json`.
    fn path(&self) -> (Option<u32>, &str) {
        let path = self.target.split('?').next().unwrap_or_default();
        let versioned = path.strip_prefix("/v1.").and_then(|rest| {
            let end = rest.find('/')?;
            Some((rest[..end].parse().ok()?, &rest[end..]))
        });
        versioned.map_or((None, path), |(version, path)| (Some(version), path))
    }

    /// The engine's own word for an API that it has no longer.
    pub(super) fn refused(&self, oldest: Option<u32>) -> Option<Vec<u8>> {
        let (version, oldest) = (self.path().0?, oldest?);
        let message = format!(
            "client version 1.{version} is too old. Minimum supported API version is 1.{oldest}, please upgrade your client to a newer version"
        );
        (version < oldest)
            .then(|| answered("400 Bad Request", "application/json", &json!({"message": message})))
    }

    pub(super) fn has_other_form(&self) -> bool {
        let (version, path) = self.path();
        if path != "/version" && version.is_some_and(|version| version < NEW) {
            return false;
        }
        let inspect = path.strip_prefix("/containers/").is_some_and(|rest| rest.ends_with("/json"));
        self.method == "GET" && (inspect || matches!(path, "/events" | "/version"))
    }

    /// The request as one after which the engine's connection ends: the next one is to pass here too.
    pub(super) fn for_one(&self, bytes: &[u8]) -> Vec<u8> {
        let upgrade = self.values("connection").iter().any(|word| word.eq_ignore_ascii_case("upgrade"));
        let end = self.head.find("\r\n").unwrap_or_default() + 2;
        let version = self.head[..end].trim_end().rsplit(' ').next().unwrap_or_default();
        let line = format!("{} {} {version}\r\n", self.method, self.target_of_today());
        let close = if upgrade { "" } else { "Connection: close\r\n" };
        [line.as_bytes(), close.as_bytes(), &bytes[end..]].concat()
    }

    /// Without a version that the engine of today does not know yet.
    fn target_of_today(&self) -> &str {
        let known = |version: u32| version <= self.newest;
        let without = || {
            self.target.splitn(3, '/').nth(2).map(|rest| &self.target[self.target.len() - rest.len() - 1..])
        };
        if self.path().0.is_none_or(known) { &self.target } else { without().unwrap_or(&self.target) }
    }

    /// The form of events that the client accepts (RFC 9110, 12.5.1, without weights: no client of Docker's has any).
    fn form(&self) -> &'static str {
        let accepts = self.values("accept");
        let asked = |form: &&&str| accepts.iter().any(|accepted| accepted == *form);
        FORMS.iter().find(asked).copied().unwrap_or("application/json")
    }
}

fn answered(status: &str, kind: &str, body: &Value) -> Vec<u8> {
    let body = format!("{body}\n");
    let len = body.len();
    format!(
        "HTTP/1.1 {status}\r\nApi-Version: {API}\r\nContent-Type: {kind}\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Asks the engine by HTTP/1.0, whose answers have no chunks, and tells the client in the form of tomorrow.
pub(super) fn answer(
    asked: &Asked,
    oldest: Option<u32>,
    (mut engine, mut client): (UnixStream, UnixStream),
) -> Option<()> {
    let line = format!("{} {} HTTP/1.0\r\n", asked.method, asked.target_of_today());
    let fields = asked.head.split_once("\r\n")?.1;
    engine.write_all(format!("{line}Connection: close\r\n{fields}").as_bytes()).ok()?;
    let mut engine = BufReader::new(engine);
    let head = head_of(&mut engine)?;
    let status = head.split_once(' ')?.1.lines().next()?.to_owned();
    if asked.path().1 == "/events" && status.starts_with("200") {
        return events(asked, engine, client);
    }
    let mut body = Vec::new();
    engine.read_to_end(&mut body).ok()?;
    let mut body: Value = serde_json::from_slice(&body).ok()?;
    if asked.path().1 == "/version" {
        body["ApiVersion"] = API.into();
        if let Some(oldest) = oldest {
            body["MinAPIVersion"] = format!("1.{oldest}").into();
        }
    } else if let Some(settings) = body.pointer_mut("/NetworkSettings").and_then(Value::as_object_mut) {
        settings.retain(|key, _| !GONE.contains(&key.as_str()));
    }
    client.write_all(&answered(&status, "application/json", &body)).ok()
}

fn head_of(engine: &mut BufReader<UnixStream>) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        engine.read_line(&mut head).ok().filter(|read| *read > 0)?;
    }
    Some(head)
}

/// Events as they come, without what was for clients before API 1.22.
fn events(asked: &Asked, engine: BufReader<UnixStream>, mut client: UnixStream) -> Option<()> {
    let (form, version) = (asked.form(), asked.head.lines().next()?.rsplit(' ').next()?.to_owned());
    let head = format!(
        "{version} 200 OK\r\nApi-Version: {API}\r\nContent-Type: {form}\r\nConnection: close\r\n\r\n"
    );
    client.write_all(head.as_bytes()).ok()?;
    for line in engine.lines() {
        let mut event: Value = serde_json::from_str(&line.ok()?).ok()?;
        event.as_object_mut()?.retain(|key, _| !matches!(key.as_str(), "status" | "id" | "from"));
        let mark = if form == FORMS[1] { "\x1e" } else { "" };
        client.write_all(format!("{mark}{event}\n").as_bytes()).ok()?;
    }
    Some(())
}
