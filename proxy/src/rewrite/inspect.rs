//! `GET /containers/{id}/json`: what a client would see without us, with the wire's address as the container's.

use std::collections::HashMap;
use std::path::Path;

use ipnet::Ipv6Net;
use selvedge_containers::label::{Kept, Note, OWN_PREFIX};
use selvedge_engine::gone::Unanswered;
use selvedge_engine::http::message::Answer;
use selvedge_engine::object::{BodyError, Object};

use super::labels;
use super::request::Request;
use crate::api::Api;

/// Answers an inspect.
pub(crate) async fn answer(api: &Api, request: &Request<'_>, reference: &str) -> Result<Answer, Unanswered> {
    if let Some(id) = api.containers.book.find(reference) {
        api.containers.book.out_of_doubt(&id).await;
    }
    let mut is_fresh = false;
    loop {
        let mut answer = request.ask(api).await?;
        if answer.status != 200 || !mentions_us(&answer.body) {
            return Ok(answer);
        }
        match restored(api, &answer.body, is_fresh) {
            Ok(Shown::As(body)) => answer.body = body,
            // The engine itself makes an inspect wait for a start.
            Ok(Shown::Later(id)) => {
                api.containers.book.out_of_doubt(&id).await;
                is_fresh = true;
                continue;
            }
            Err(error) => tracing::warn!(%error, "an inspect answer that we cannot read passes as it is"),
        }
        return Ok(answer);
    }
}

/// What a client sees of a container.
#[derive(Debug)]
enum Shown {
    As(Vec<u8>),
    /// Nothing before the outcome of its start is known; its id.
    Later(String),
}

/// Whether one of our labels can be in there at all. Saves the parsing of all other answers.
pub(crate) fn mentions_us(body: &[u8]) -> bool {
    let needle = OWN_PREFIX.as_bytes();
    body.windows(needle.len()).any(|window| window == needle)
}

/// `is_fresh`: the engine was asked after the outcome of a start was known.
fn restored(api: &Api, body: &[u8], is_fresh: bool) -> Result<Shown, BodyError> {
    let mut top = Object::parse(body)?;
    let Some(note) = note_of(&top)? else {
        top.edit("Config", hide_labels)?;
        return Ok(Shown::As(finish(top, body)));
    };
    let pool6 = api.settings.pool6;
    let id = top.get::<String>("Id")?.unwrap_or_default();
    let running = state_flag(&top, "Running")?;
    let never_started = status(&top)?.as_deref() == Some("created");
    let failed = api.containers.book.never_ran(&id);
    // The answer may also be older than what came of the start.
    if api.containers.book.is_in_doubt(&id) || (running && failed.is_some() && !is_fresh) {
        return Ok(Shown::Later(id));
    }
    top.edit("Config", |config| {
        restore_config(config, &note);
        restore_hostname(config, &note, &id);
    })?;
    if top.has("Path") {
        let command = note.command();
        top.set("Path", &command.first());
        top.set("Args", &command.get(1..).unwrap_or_default());
    }
    let mut mode = String::new();
    top.edit("HostConfig", |host| {
        mode = host.get("NetworkMode").ok().flatten().unwrap_or_default();
        restore_host(host, &note, &api.settings.wait_path);
        if never_started && note.original.bare && fills_in_late(api) {
            host.remove("Runtime");
        }
    })?;
    restore_mounts(&mut top, &note)?;
    if let Some(failure) = failed.filter(|_| !running) {
        top.edit("State", |state| failure.restore_state(state))?;
    } else if running {
        top.edit("NetworkSettings", |settings| show_address(settings, &mode, (&note, pool6), true))?;
    }
    Ok(Shown::As(finish(top, body)))
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

fn status(top: &Object) -> Result<Option<String>, BodyError> {
    let Some(state) = top.get::<Object>("State")? else { return Ok(None) };
    state.get("Status")
}

/// Engines up to API 1.41 choose the runtime of a container without HostConfig when it is started.
fn fills_in_late(api: &Api) -> bool {
    api.containers.engine.identity().api().is_some_and(|api| api <= (1, 41))
}

/// Puts a `Config` back: entrypoint, command and labels.
pub(crate) fn restore_config(config: &mut Object, note: &Note) {
    config.set("Entrypoint", &note.original.entrypoint);
    config.set("Cmd", &note.original.cmd);
    hide_labels(config);
}

/// What the engine calls a container that was given no hostname: ours must not come back as a wish in another create.
pub(crate) fn restore_hostname(config: &mut Object, note: &Note, id: &str) {
    if note.original.unnamed
        && let Some(short) = id.get(..12)
    {
        config.set("Hostname", &short);
    }
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
    // Until API 1.19.
    for key in ["Volumes", "VolumesRW"] {
        top.edit(key, |volumes| volumes.remove(&note.wait))?;
    }
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
/// 1.51) and at its network mode's entry of `Networks`, which is what Mesos reads. The MAC address stays the engine's: who
/// makes a container afresh from its inspect gives it back, and the engine takes that for a wish.
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
        if let Some(pool6) = pool6 {
            object.set("GlobalIPv6Address", &selvedge_datapath::addresses::address6(pool6, note.address));
            object.set("GlobalIPv6PrefixLen", &128);
        }
    };
    if with_top && settings.has("IPAddress") {
        show(settings);
    }
    // On a network of the user's its peers there find it at the address that it has there.
    if note.beside {
        return;
    }
    let _ = settings.edit("Networks", |networks| {
        // podman's network for the mode `bridge` has a name of its own, by which alone it is listed.
        let only =
            networks.iter().map(|(name, _)| name.to_owned()).next().filter(|_| networks.iter().count() == 1);
        let listed = if networks.has(network) || network != "bridge" { None } else { only };
        let _ = networks.edit(listed.as_deref().unwrap_or(network), show);
    });
}
