//! `GET /containers/json`: each of our containers as a client would see it without us.

use std::collections::HashMap;

use super::inspect::{hide_labels, mentions_us, show_address};
use super::{Request, labels};
use crate::docker::error::Refusal;
use crate::docker::object::{BodyError, Object};
use crate::front::message::Answer;
use crate::note::Note;
use crate::worker::Worker;

/// Answers a list.
pub(crate) async fn answer(worker: &Worker, request: &Request<'_>) -> Result<Answer, Refusal> {
    let mut answer = request.ask(worker, b"").await?;
    if answer.status == 200 && mentions_us(&answer.body) {
        match restored(worker, &answer.body) {
            Ok(body) => answer.body = body,
            Err(error) => tracing::warn!(%error, "a list answer that we cannot read passes as it is"),
        }
    }
    Ok(answer)
}

fn restored(worker: &Worker, body: &[u8]) -> Result<Vec<u8>, BodyError> {
    let mut list: Vec<Object> =
        serde_json::from_slice(body).map_err(|error| BodyError::Syntax(error.to_string()))?;
    for entry in &mut list {
        let found: HashMap<String, String> = entry.get("Labels")?.unwrap_or_default();
        match Note::read(&found) {
            Some(note) => restore(worker, entry, &note)?,
            None if found.keys().any(|key| key.starts_with(crate::note::OWN_PREFIX)) => hide_labels(entry),
            None => {}
        }
    }
    let mut out = serde_json::to_vec(&list).unwrap_or_default();
    if body.ends_with(b"\n") {
        out.push(b'\n');
    }
    Ok(out)
}

fn restore(worker: &Worker, entry: &mut Object, note: &Note) -> Result<(), BodyError> {
    entry.edit("Labels", |inner| {
        labels::hide(inner);
    })?;
    if let Some(command) = entry.get::<String>("Command")? {
        entry.set("Command", &shown(&command, note));
    }
    if let Some(mounts) = entry.get::<Vec<Object>>("Mounts")? {
        let kept: Vec<&Object> = mounts
            .iter()
            .filter(|mount| {
                mount.get::<String>("Destination").ok().flatten().as_deref() != Some(note.wait.as_str())
            })
            .collect();
        entry.set("Mounts", &kept);
    }
    let id = entry.get::<String>("Id")?.unwrap_or_default();
    let running =
        entry.get::<String>("State")?.is_some_and(|state| matches!(state.as_str(), "running" | "paused"));
    if running {
        let pool6 = worker.config.pool6;
        let mode = entry
            .get::<Object>("HostConfig")?
            .and_then(|host| host.get::<String>("NetworkMode").ok().flatten())
            .unwrap_or_default();
        entry.edit("NetworkSettings", |settings| show_address(settings, &mode, (note, pool6), false))?;
    } else if worker.book.never_ran(&id).is_some() {
        entry.set("State", &"created");
        entry.set("Status", &"Created");
    }
    Ok(())
}

/// The engine joins path and arguments by blanks and puts those that hold one in quotes; the path it leaves
/// as it is (moby: `daemon/list.go`).
fn shown(command: &str, note: &Note) -> String {
    let words = note.command();
    let Some((path, args)) = words.split_first() else { return command.to_owned() };
    args.iter().fold(path.clone(), |line, arg| match arg.contains(' ') {
        true => format!("{line} '{arg}'"),
        false => format!("{line} {arg}"),
    })
}
