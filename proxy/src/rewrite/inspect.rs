//! `GET /containers/{id}/json`: what a client would see without us, with the wire's address as the container's.

use std::collections::HashMap;
use std::path::Path;

use ipnet::Ipv6Net;

use super::{Request, labels};
use crate::docker::error::Refusal;
use crate::docker::object::{BodyError, Object};
use crate::front::message::Answer;
use crate::note::{Kept, Note, OWN_PREFIX};
use crate::worker::Worker;
use selvedge_netsetup::container_mac_text as mac_of;

/// Answers an inspect.
pub(crate) async fn answer(worker: &Worker, request: &Request<'_>) -> Result<Answer, Refusal> {
    let mut answer = request.ask(worker, b"").await?;
    if answer.status == 200 && mentions_us(&answer.body) {
        match restored(worker, &answer.body) {
            Ok(body) => answer.body = body,
            Err(error) => tracing::warn!(%error, "an inspect answer that we cannot read passes as it is"),
        }
    }
    Ok(answer)
}

/// Whether one of our labels can be in there at all. Saves the parsing of all other answers.
pub(crate) fn mentions_us(body: &[u8]) -> bool {
    let needle = OWN_PREFIX.as_bytes();
    body.windows(needle.len()).any(|window| window == needle)
}

fn restored(worker: &Worker, body: &[u8]) -> Result<Vec<u8>, BodyError> {
    let mut top = Object::parse(body)?;
    let Some(note) = note_of(&top)? else {
        top.edit("Config", hide_labels)?;
        return Ok(finish(top, body));
    };
    let pool6 = worker.config.pool6;
    let id = top.get::<String>("Id")?.unwrap_or_default();
    let running = state_flag(&top, "Running")?;
    top.edit("Config", |config| restore_config(config, &note))?;
    if top.has("Path") {
        let command = note.command();
        top.set("Path", &command.first());
        top.set("Args", &command.get(1..).unwrap_or_default());
    }
    let mut mode = String::new();
    top.edit("HostConfig", |host| {
        mode = host.get("NetworkMode").ok().flatten().unwrap_or_default();
        restore_host(host, &note, &worker.config.wait_path);
    })?;
    restore_mounts(&mut top, &note)?;
    if let Some(failure) = worker.book.never_ran(&id).filter(|_| !running) {
        top.edit("State", |state| failure.restore_state(state))?;
    } else if running {
        top.edit("NetworkSettings", |settings| show_address(settings, &mode, (&note, pool6), true))?;
    }
    Ok(finish(top, body))
}

// The engine ends its JSON with a line feed.
fn finish(top: Object, old: &[u8]) -> Vec<u8> {
    let mut out = top.to_bytes();
    if old.ends_with(b"\n") {
        out.push(b'\n');
    }
    out
}

fn note_of(top: &Object) -> Result<Option<Note>, BodyError> {
    let Some(config) = top.get::<Object>("Config")? else { return Ok(None) };
    let labels: HashMap<String, String> = config.get("Labels")?.unwrap_or_default();
    Ok(Note::read(&labels))
}

fn state_flag(top: &Object, flag: &str) -> Result<bool, BodyError> {
    let Some(state) = top.get::<Object>("State")? else { return Ok(false) };
    Ok(state.get(flag)?.unwrap_or(false))
}

/// Puts a `Config` back: entrypoint, command and labels.
pub(crate) fn restore_config(config: &mut Object, note: &Note) {
    config.set("Entrypoint", &note.original.entrypoint);
    config.set("Cmd", &note.original.cmd);
    hide_labels(config);
}

/// Takes our labels out of anything that has `Labels`.
pub(crate) fn hide_labels(object: &mut Object) {
    // Only an unreadable Labels object fails, and that one cannot hold ours.
    let _ = object.edit("Labels", |inner| {
        labels::hide(inner);
    });
}

fn restore_host(host: &mut Object, note: &Note, wait_path: &Path) {
    for (key, kept) in [("Dns", &note.original.dns), ("DnsSearch", &note.original.dns_search)] {
        if let Kept::Was(value) = kept {
            host.set(key, value);
        }
    }
    without_entries(host, "Mounts", |mount| {
        let source = mount.get::<String>("Source").ok().flatten().unwrap_or_default();
        mount.get::<String>("Target").ok().flatten().as_deref() == Some(note.wait.as_str())
            && Path::new(&source) == wait_path
    });
    // `omitempty` in the engine: an empty list is not there at all.
    if host.get::<Vec<Object>>("Mounts").ok().flatten().is_none_or(|mounts| mounts.is_empty()) {
        host.remove("Mounts");
    }
}

fn restore_mounts(top: &mut Object, note: &Note) -> Result<(), BodyError> {
    if top.raw("Mounts").is_some() {
        let mounts: Vec<Object> = top.get("Mounts")?.unwrap_or_default();
        let target = |mount: &Object| mount.get::<String>("Destination").ok().flatten();
        let kept: Vec<&Object> =
            mounts.iter().filter(|mount| target(mount).as_deref() != Some(note.wait.as_str())).collect();
        top.set("Mounts", &kept);
    }
    Ok(())
}

fn without_entries(object: &mut Object, key: &str, is_ours: impl Fn(&Object) -> bool) {
    if let Ok(Some(entries)) = object.get::<Vec<Object>>(key) {
        let kept: Vec<&Object> = entries.iter().filter(|entry| !is_ours(entry)).collect();
        object.set(key, &kept);
    }
}

/// Shows the wire's address where clients look for a container's: at the top of `NetworkSettings` (until API
/// 1.51) and at its network mode's entry of `Networks`, which is what Mesos reads.
pub(crate) fn show_address(
    settings: &mut Object,
    mode: &str,
    (note, pool6): (&Note, Option<Ipv6Net>),
    with_top: bool,
) {
    let network = if matches!(mode, "" | "default") { "bridge" } else { mode };
    let show = |object: &mut Object| {
        object.set("IPAddress", &note.address);
        object.set("IPPrefixLen", &32);
        object.set("MacAddress", &mac_of(note.address));
        if let Some(pool6) = pool6 {
            object.set("GlobalIPv6Address", &selvedge_netsetup::address6(pool6, note.address));
            object.set("GlobalIPv6PrefixLen", &128);
        }
    };
    if with_top && settings.has("IPAddress") {
        show(settings);
    }
    let _ = settings.edit("Networks", |networks| {
        let _ = networks.edit(network, show);
    });
}
