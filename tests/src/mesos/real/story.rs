//! What a framework was told of a task and what the task's sandbox holds, in words that are the same on any host.
//!
//! It must never leave out anything but what differs between any two runs: addresses, names made of ids, paths of a host.

use std::path::Path;

use serde_json::Value;

use super::Mesos;
use super::framework::Framework;
use crate::compare::{normalised, without_race};

/// A task's story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Story {
    /// Every update in order.
    pub updates: Vec<String>,
    /// What its program said.
    pub stdout: String,
    /// The same, and its CLI.
    pub stderr: String,
}

impl Story {
    /// Reads it. `socket` is the one that the agent's Docker has.
    #[must_use]
    pub fn of(mesos: &Mesos, framework: &Framework, task: &str, socket: &Path) -> Self {
        let socket = socket.display().to_string();
        let updates = framework.updates(task);
        let address = updates.iter().find_map(own_address).unwrap_or_default();
        let plain = |text: &str| names(&normalised(&text.replace(&socket, "SOCKET")));
        let (stdout, stderr) = mesos.said(task);
        Self {
            updates: updates.iter().map(|update| plain(&told(update, &address))).collect(),
            stdout: plain(&stdout),
            stderr: plain(&without_race(&stderr)),
        }
    }

    /// Which address each update has.
    pub(super) fn forget_addresses(&mut self) {
        for update in &mut self.updates {
            let kept = update.split(", 1 address(es)").next().unwrap_or_default().len();
            update.truncate(kept);
        }
    }

    /// One update by another.
    pub(super) fn replace(&mut self, update: &str, by: &str) {
        self.updates.iter_mut().filter(|one| *one == update).for_each(|one| by.clone_into(one));
    }

    /// As a text of many lines.
    #[must_use]
    pub fn lines(&self) -> String {
        format!(
            "{}\nstdout: {}\nstderr: {}\n",
            self.updates.join("\n"),
            self.stdout.trim(),
            self.stderr.trim()
        )
    }
}

/// The address that Mesos tells of a task.
#[must_use]
pub fn address(update: &Value) -> Option<&str> {
    update["container_status"]["network_infos"][0]["ip_addresses"][0]["ip_address"].as_str()
}

/// The address that the executor has read; an agent adds its own where there is none.
fn own_address(update: &Value) -> Option<String> {
    address(update).filter(|address| *address != AGENT).map(str::to_owned)
}

/// An agent's own address.
pub const AGENT: &str = "127.0.0.1";

fn told(update: &Value, own: &str) -> String {
    let word = |name: &str| update[name].as_str().unwrap_or("-").to_owned();
    let address = match address(update) {
        None => "none",
        Some(AGENT) => "the agent's",
        Some(address) if address == own => "its own",
        Some(other) => other,
    };
    let count = update["container_status"]["network_infos"].as_array().map_or(0, Vec::len);
    let healthy = update["healthy"].as_bool().map_or("-".to_owned(), |healthy| healthy.to_string());
    format!(
        "{} by {}, reason {}, message {:?}, healthy {healthy}, {count} address(es): {address}",
        word("state"),
        word("source"),
        word("reason"),
        word("message")
    )
}

/// Containers are called `mesos-` and a UUID.
fn names(text: &str) -> String {
    let mut parts = text.split("mesos-");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let is_uuid =
            part.get(..36).is_some_and(|id| id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-'));
        out.push_str(if is_uuid { "CONTAINER" } else { "mesos-" });
        out.push_str(if is_uuid { &part[36..] } else { part });
    }
    out
}
