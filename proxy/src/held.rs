//! Requests whose clients outlive the engine: wait, events, logs -f and attach.
//!
//! The keeper pumps them as it pumps all streams. The difference is in their end: such a client is not told that the
//! engine's side is over, but comes back to the worker, who either lets it go or finds the rest of its answer, from an
//! engine that may be another by then. The note that travels with it says what was asked; the worker remembers nothing.
//! For that the engine is asked by HTTP/1.0: its answer then has no framing that would have to be mended.

pub(crate) mod begin;
mod catch_up;
mod frames;
mod gap;
mod log;
mod reattach;
pub mod resume;
mod verdict;

use selvedge_custody::Incoming;
use selvedge_engine::http::framing::BodyLength;
use selvedge_engine::http::head::{self, RequestHead};
use selvedge_engine::http::message::Buffered;
use selvedge_engine::lifetime;
use selvedge_engine::route::{path_of, percent_decode, query_of, query_value, split_version};
use serde::{Deserialize, Serialize};

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// `POST /containers/{id}/wait`, API 1.30 or later: before, its head came only with its body.
    Wait,
    /// `GET /events` without an end.
    Events,
    /// `GET /containers/{id}/logs?follow=1` without an end.
    Logs,
    /// `POST /containers/{id}/attach?stream=1` with an upgrade.
    Attach,
}

// With the rest of the note it must fit into the keeper's `NOTE_MAX`, escaped.
const LONGEST_HEAD: usize = 16 * 1024;

/// What the next worker needs to know of such a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) kind: Kind,
    /// The request's head as the client wrote it.
    pub(crate) head: String,
    /// The container: as the client wrote it, or its whole id where it is known.
    pub(crate) container: String,
    /// When it was asked, in nanoseconds of the Unix epoch.
    pub(crate) began: u64,
    /// The position counts what came behind the answer's head, and nothing else.
    pub(crate) counted: bool,
    /// Its upstream is a piece of the log, whose end is not that of the answer.
    #[serde(default)]
    pub(crate) piece: bool,
    /// By what people know it, in logs. Empty in the notes of earlier releases.
    #[serde(default)]
    pub(crate) request: String,
    /// Events come as a JSON text sequence (RFC 7464): what follows must be one too. Engines from API 1.52 on ask the client.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) sequence: bool,
}

impl Note {
    /// The note of a request that was read from `client`; `None` for one that is not held.
    pub(crate) fn of(client: &mut Buffered, head: &RequestHead) -> Option<Self> {
        let note = Self::read(head, &client.unread[..head.len])?;
        let request = client.client().and_then(Incoming::request);
        Some(Self { request: request.map(|id| id.to_string()).unwrap_or_default(), ..note })
    }

    fn read(head: &RequestHead, bytes: &[u8]) -> Option<Self> {
        if head.body != BodyLength::Fixed(0) || head.http_1_0 {
            return None;
        }
        let path = percent_decode(path_of(&head.target))?;
        let (version, bare) = split_version(&path);
        let query = query_of(&head.target);
        let (kind, container) = kind_of(&head.method, bare, query, head.upgrade)?;
        if kind == Kind::Wait && api_version(version).is_some_and(|version| version < (1, 30)) {
            return None;
        }
        let head = String::from_utf8(bytes.to_vec()).ok().filter(|head| head.len() < LONGEST_HEAD)?;
        Some(Self {
            kind,
            head,
            container,
            began: lifetime::now(),
            counted: true,
            piece: false,
            request: String::new(),
            sequence: false,
        })
    }

    /// The request's target as the client wrote it.
    pub(crate) fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// One value of its query.
    pub(crate) fn value(&self, key: &str) -> Option<String> {
        query_value(query_of(self.target()), key)
    }

    /// A value that is a truth, as the engine reads it.
    pub(crate) fn is(&self, key: &str) -> bool {
        truth(self.value(key))
    }

    /// Whether an answer with this head is in the form in which the client's began.
    pub(crate) fn has_form_of(&self, answer: &[u8]) -> bool {
        self.sequence == is_sequence(answer)
    }

    /// `/v1.41`, or nothing.
    pub(crate) fn version(&self) -> &str {
        split_version(path_of(self.target())).0
    }
}

fn kind_of(method: &str, path: &str, query: &str, upgrade: bool) -> Option<(Kind, String)> {
    let value = |key: &str| query_value(query, key);
    let endless = value("until").is_none_or(|until| until.is_empty() || until == "0");
    if (method, path, upgrade) == ("GET", "/events", false) {
        return endless.then(|| (Kind::Events, String::new()));
    }
    let (name, verb) = path.strip_prefix("/containers/")?.rsplit_once('/')?;
    let kind = match (method, verb, upgrade) {
        ("POST", "wait", false) => Kind::Wait,
        ("GET", "logs", false) if endless && truth(value("follow")) => Kind::Logs,
        // With `logs` the past comes first, and its length is unknown.
        ("POST", "attach", true) if truth(value("stream")) && !truth(value("logs")) => Kind::Attach,
        _ => return None,
    };
    (!name.is_empty() && !name.contains('/')).then(|| (kind, name.to_owned()))
}

/// Whether an answer with this head has a mark before each of its records.
pub(crate) fn is_sequence(answer: &[u8]) -> bool {
    head::field(answer, "content-type").is_some_and(|kind| kind.eq_ignore_ascii_case(b"application/json-seq"))
}

// As the engine's `httputils.BoolValue`.
pub(crate) fn truth(value: Option<String>) -> bool {
    value.is_some_and(|value| {
        !matches!(value.trim().to_lowercase().as_str(), "" | "0" | "no" | "false" | "none")
    })
}

/// `/v1.41` as two numbers.
pub(crate) fn api_version(version: &str) -> Option<(u32, u32)> {
    let (major, minor) = version.strip_prefix("/v")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(line: &str, fields: &str) -> Option<Note> {
        let bytes = format!("{line} HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
        Note::read(&head::request(bytes.as_bytes()).unwrap().unwrap(), bytes.as_bytes())
    }

    #[test]
    fn what_docker_run_hangs_on_is_held() {
        let wait = note("POST /v1.41/containers/abc/wait?condition=next-exit", "").unwrap();
        assert_eq!((wait.kind, wait.container.as_str(), wait.version()), (Kind::Wait, "abc", "/v1.41"));
        let upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n";
        let attach = note("POST /v1.41/containers/abc/attach?stderr=1&stdout=1&stream=1", upgrade).unwrap();
        assert!(attach.is("stdout") && !attach.is("stdin"));
        assert_eq!(note("GET /events?filters=%7B%7D", "").unwrap().kind, Kind::Events);
        assert_eq!(note("GET /containers/a/logs?follow=true&stdout=1", "").unwrap().kind, Kind::Logs);
    }

    #[test]
    fn what_ends_by_itself_or_cannot_be_counted_is_not() {
        for line in [
            "GET /events?until=5",
            "GET /containers/a/logs?follow=0&stdout=1",
            "GET /containers/a/logs?follow=1&until=7",
            "POST /v1.29/containers/a/wait",
            "POST /containers//wait",
            "GET /containers/a/wait",
            "POST /containers/a/attach?stream=1",
            "POST /containers/a/stop",
        ] {
            assert_eq!(note(line, ""), None, "{line}");
        }
        let upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\n";
        assert_eq!(note("POST /containers/a/attach?stream=1&logs=1", upgrade), None);
        assert_eq!(note("POST /containers/a/wait", "Content-Length: 2\r\n"), None);
    }
}
