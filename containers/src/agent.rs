//! What a Mesos agent says of its tasks' health checks. Its executors make them, and Docker does not know of them.
//!
//! Must never guess: a task of which the agent says nothing counts by what the engine says, and while the agent does not
//! answer its last words stay.

mod tasks;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::publish;
use crate::shared::Containers;

/// The time between two questions. Mesos' own checks are ten seconds apart, unless the user says otherwise.
const PAUSE: Duration = Duration::from_secs(1);
/// An agent that needs longer is taken not to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// A thousand tasks are some megabytes.
const LONGEST: usize = 64 * 1024 * 1024;
/// The agent's own name among the parts of its program. Where master and agent are one program, `/api/v1` is the master's.
const API: &str = "/slave(1)/api/v1";
const QUESTION: &[u8] = br#"{"type":"GET_TASKS"}"#;

/// Where an agent answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
}

/// The agent's own port, where none is said.
const PORT: u16 = 5051;

impl Address {
    /// Reads `http://HOST[:PORT]`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(url: &str) -> Result<Self, String> {
        const FORM: &str = "must be like mesos=http://10.0.0.5:5051";
        let rest = match url.split_once("://") {
            Some(("http", rest)) => rest.trim_end_matches('/'),
            Some(("https", _)) => {
                return Err("an agent is asked by http alone; name its plain port".to_owned());
            }
            _ => return Err(FORM.to_owned()),
        };
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| FORM.to_owned())?),
            None => (rest, PORT),
        };
        let is_host = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        match !host.is_empty() && host.bytes().all(is_host) {
            true => Ok(Self { host: host.to_owned(), port }),
            false => Err(FORM.to_owned()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

/// An agent, and what was heard of it.
#[derive(Debug)]
pub struct Agent {
    address: Address,
    heard: Mutex<Heard>,
}

/// What was heard of an agent.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    /// When it answered last.
    pub last: Option<Instant>,
    /// Why it does not answer now, if so.
    pub reason: Option<String>,
    /// How many of its tasks had a verdict then.
    pub tasks: usize,
}

impl Agent {
    /// One that has not been asked yet.
    pub fn new(address: Address) -> Self {
        Self { address, heard: Mutex::default() }
    }

    /// Where it is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What was heard of it so far.
    pub fn heard(&self) -> Heard {
        self.seen().clone()
    }

    fn seen(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks it, and takes in what it says. A change of containers that run is made known.
    pub async fn ask(&self, containers: &Containers) {
        let asked = tokio::time::timeout(PATIENCE, verdicts(&self.address)).await;
        match asked.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs()))) {
            Ok(verdicts) => {
                self.answered(verdicts.len());
                for (id, ailing) in containers.book.told(verdicts) {
                    publish::update(containers, &id, |entry| entry.ailing = ailing);
                }
            }
            Err(reason) => self.silent(reason),
        }
    }

    fn answered(&self, tasks: usize) {
        let mut heard = self.seen();
        if heard.last.is_none() || heard.reason.is_some() {
            info!(agent = %self.address, tasks, "the Mesos agent tells of its tasks' health checks");
        }
        *heard = Heard { last: Some(Instant::now()), reason: None, tasks };
    }

    fn silent(&self, reason: String) {
        let mut heard = self.seen();
        if heard.reason.is_none() {
            warn!(agent = %self.address, reason, "the Mesos agent does not tell of its tasks' health checks; what it said last counts");
        }
        heard.reason = Some(reason);
    }
}

/// Asks an agent for ever.
pub async fn follow(containers: &Containers, agent: &Agent) {
    loop {
        tokio::time::sleep(PAUSE).await;
        agent.ask(containers).await;
    }
}

/// By the Mesos id of their containers, whether tasks with a health check are healthy.
async fn verdicts(address: &Address) -> Result<HashMap<String, bool>, String> {
    let told = |error: &dyn fmt::Display| error.to_string();
    let stream = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(|e| told(&e))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| told(&e))?;
    tokio::spawn(connection);
    let request = Request::post(API)
        .header(HOST, format!("{}:{}", address.host, address.port))
        .header(CONNECTION, "close")
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json")
        .body(Full::new(Bytes::from_static(QUESTION)))
        .map_err(|e| told(&e))?;
    let answer = sender.send_request(request).await.map_err(|e| told(&e))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), LONGEST).collect().await.map_err(|e| told(&e))?;
    if !status.is_success() {
        return Err(format!("it answers {status}"));
    }
    tasks::read(&body.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agents_address_is_read() {
        assert_eq!(Address::parse("http://10.0.0.5:5052").unwrap().to_string(), "http://10.0.0.5:5052");
        assert_eq!(Address::parse("http://agent-1.lan/").unwrap().to_string(), "http://agent-1.lan:5051");
        for wrong in ["https://a:1", "10.0.0.5:5051", "http://", "http://a:b", "http://a/b", "http://u:p@a:1"]
        {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
    }
}
