//! `GET /containers/json`: each of our containers as a client would see it without us.

use std::collections::HashMap;
use std::time::Duration;

use selvedge_containers::label::Note;
use selvedge_engine::gone::Unanswered;
use selvedge_engine::http::message::Answer;
use selvedge_engine::lifetime;
use selvedge_engine::object::{BodyError, Object};

use super::inspect::{hide_labels, mentions_us, show_address};
use super::labels;
use super::request::Request;
use crate::api::Api;
use crate::held::truth;

/// Answers a list.
pub(crate) async fn answer(api: &Api, request: &Request<'_>) -> Result<Answer, Unanswered> {
    let mut answer = request.ask(api).await?;
    if answer.status == 200 && mentions_us(&answer.body) {
        let all = lists_all(request.query_value("all"), request.query_value("limit").as_deref());
        match restored(api, &answer.body, all) {
            Ok(body) => answer.body = body,
            Err(error) => tracing::warn!(%error, "a list answer that we cannot read passes as it is"),
        }
    }
    Ok(answer)
}

/// Whether also those that do not run are wanted: `docker ps -l` says it by a limit (moby:
/// `includeContainerInList` in `daemon/list.go`).
fn lists_all(all: Option<String>, limit: Option<&str>) -> bool {
    truth(all) || limit.and_then(|limit| limit.parse::<i64>().ok()).is_some_and(|limit| limit > 0)
}

/// `all`: also those that do not run are wanted.
fn restored(api: &Api, body: &[u8], all: bool) -> Result<Vec<u8>, BodyError> {
    let mut list: Vec<Object> =
        serde_json::from_slice(body).map_err(|error| BodyError::Syntax(error.to_string()))?;
    // The engine alone lists a container as running when its program does.
    list.retain(|entry| all || !is_in_doubt(api, entry));
    for entry in &mut list {
        let found: HashMap<String, String> = entry.get("Labels")?.unwrap_or_default();
        match Note::read(&found) {
            Some(note) => restore(api, entry, &note)?,
            None if found.keys().any(|key| key.starts_with(selvedge_containers::label::OWN_PREFIX)) => {
                hide_labels(entry)
            }
            None => {}
        }
    }
    let mut out = serde_json::to_vec(&list).unwrap_or_default();
    if body.ends_with(b"\n") {
        out.push(b'\n');
    }
    Ok(out)
}

fn restore(api: &Api, entry: &mut Object, note: &Note) -> Result<(), BodyError> {
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
    if api.containers.book.is_in_doubt(&id) {
        let (state, status) = before_the_start(api, &id);
        entry.set("State", &state);
        entry.set("Status", &status);
        return Ok(());
    }
    let running =
        entry.get::<String>("State")?.is_some_and(|state| matches!(state.as_str(), "running" | "paused"));
    if running {
        let pool6 = api.settings.pool6;
        let mode = entry
            .get::<Object>("HostConfig")?
            .and_then(|host| host.get::<String>("NetworkMode").ok().flatten())
            .unwrap_or_default();
        entry.edit("NetworkSettings", |settings| show_address(settings, &mode, (note, pool6), false))?;
    } else if api.containers.book.never_ran(&id).is_some() {
        entry.set("State", &"created");
        entry.set("Status", &"Created");
    }
    Ok(())
}

fn is_in_doubt(api: &Api, entry: &Object) -> bool {
    let id = entry.get::<String>("Id").ok().flatten().unwrap_or_default();
    api.containers.book.is_in_doubt(&id)
}

/// State and status of a container that is about to start.
fn before_the_start(api: &Api, id: &str) -> (&'static str, String) {
    match api.containers.book.entry(id).and_then(|entry| entry.ended) {
        Some((code, finished)) => {
            let ago = Duration::from_nanos(lifetime::now().saturating_sub(lifetime::moment(&finished)));
            ("exited", format!("Exited ({code}) {} ago", spoken(ago)))
        }
        None => ("created", "Created".to_owned()),
    }
}

/// A time as the engine says it (docker/go-units: `HumanDuration`).
fn spoken(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours) = (seconds / 60, (seconds as f64 / 3600.0).round() as u64);
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_lists_those_too_that_do_not_run() {
        let all = |all: &str, limit: &str| lists_all(Some(all.to_owned()), Some(limit));
        assert!(all("1", "") && all("0", "1") && all("", "5"));
        assert!(!all("0", "0") && !all("", "-1") && !all("", "x") && !lists_all(None, None));
    }

    #[test]
    fn a_time_is_said_as_the_engine_says_it() {
        let hour = 3600;
        for (seconds, expected) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (90, "About a minute"),
            (59 * 60, "59 minutes"),
            (hour, "About an hour"),
            (47 * hour, "47 hours"),
            (13 * 24 * hour, "13 days"),
            (20 * 24 * hour, "2 weeks"),
            (100 * 24 * hour, "3 months"),
            (800 * 24 * hour, "2 years"),
        ] {
            assert_eq!(spoken(Duration::from_secs(seconds)), expected);
        }
    }
}
