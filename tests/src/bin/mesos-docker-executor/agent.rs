//! The agent, by its v1 HTTP API for executors.
//! It must never make up an update's id twice: the agent drops what it has seen.

use std::io::Read;
use std::sync::mpsc::Sender;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use selvedge_tests::mesos::real::talk::{Door, Events};
use serde_json::{Value, json};

use crate::task::Event;

/// How this executor speaks to its agent.
#[derive(Debug, Clone)]
pub(crate) struct Agent {
    door: Door,
    path: String,
    framework: String,
    executor: String,
}

impl Agent {
    /// As the agent has put it into the environment.
    pub(crate) fn from_environment() -> anyhow::Result<Self> {
        let variable = |name: &str| std::env::var(name).with_context(|| format!("no {name}"));
        let pid = variable("MESOS_SLAVE_PID")?;
        let (id, address) = pid.split_once('@').context("MESOS_SLAVE_PID is not ID@ADDRESS")?;
        let port =
            address.rsplit(':').next().unwrap_or_default().parse().context("no port in MESOS_SLAVE_PID")?;
        Ok(Self {
            door: Door::here(port),
            path: format!("/{id}/api/v1/executor"),
            framework: variable("MESOS_FRAMEWORK_ID")?,
            executor: variable("MESOS_EXECUTOR_ID")?,
        })
    }

    /// Registers; what the agent says from then on becomes events.
    pub(crate) fn subscribe(&self, to: Sender<Event>) -> anyhow::Result<()> {
        let call = self.signed(json!({"type": "SUBSCRIBE", "subscribe": {}}));
        let (_, events) = self.door.subscribe(&self.path, &call).context("the agent refuses")?;
        std::thread::spawn(move || listen(events, &to));
        Ok(())
    }

    /// Tells of a task; the update's id.
    pub(crate) fn update(&self, task: &Value, mut status: Value) -> anyhow::Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let id = BASE64_STANDARD.encode(random_id()?);
        status["task_id"] = task["task_id"].clone();
        status["source"] = "SOURCE_EXECUTOR".into();
        status["timestamp"] = now.as_secs_f64().into();
        status["uuid"] = id.as_str().into();
        let answer = self.door.call(
            &self.path,
            None,
            &self.signed(json!({"type": "UPDATE", "update": {"status": status}})),
        )?;
        ensure!(answer.status == 202, "the agent refuses an update: {}", answer.text());
        Ok(id)
    }

    fn signed(&self, mut call: Value) -> Value {
        call["framework_id"] = json!({"value": self.framework});
        call["executor_id"] = json!({"value": self.executor});
        call
    }
}

/// A random UUID (version 4): Mesos refuses other bytes.
fn random_id() -> std::io::Result<[u8; 16]> {
    let mut id = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut id)?;
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    Ok(id)
}

fn listen(mut events: Events, to: &Sender<Event>) {
    while let Ok(mut told) = events.take() {
        let event = match told["type"].as_str() {
            Some("LAUNCH") => Event::Launch(told["launch"]["task"].take()),
            Some("KILL") => Event::Kill(told["kill"]["kill_policy"].take()),
            Some("SHUTDOWN") => Event::Shutdown,
            Some("ACKNOWLEDGED") => {
                Event::Acknowledged(told["acknowledged"]["uuid"].as_str().unwrap_or_default().to_owned())
            }
            _ => continue,
        };
        if to.send(event).is_err() {
            return;
        }
    }
    let _ = to.send(Event::Lost);
}
