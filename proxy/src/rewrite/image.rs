//! `GET /images/{name}/json`, and what only `--compat mesos` needs: image inspects and pings as engines
//! before API 1.45 gave them.

use std::collections::HashMap;

use selvedge_containers::label::{LABEL, Note};
use selvedge_engine::gone::Unanswered;
use selvedge_engine::http::head;
use selvedge_engine::http::message::Answer;
use selvedge_engine::object::{BodyError, Object};

use super::inspect::{hide_labels, mentions_us, restore_config};
use super::old;
use super::request::Request;
use crate::api::Api;

/// The last API version whose image inspect has `ContainerConfig`, without which Mesos launches nothing.
const LAST_WITH_CONTAINER_CONFIG: (u16, u16) = (1, 44);

/// Answers an image inspect.
pub(crate) async fn inspect(api: &Api, request: &Request<'_>) -> Result<Answer, Unanswered> {
    let mut answer = request.ask(api).await?;
    let compat = api.settings.compat_mesos;
    if answer.status == 200 && (compat || mentions_us(&answer.body)) {
        match restored(&answer.body, compat) {
            Ok(body) => answer.body = body,
            Err(error) => tracing::warn!(%error, "an image inspect that we cannot read passes as it is"),
        }
    }
    old::image(request, &mut answer);
    Ok(answer)
}

fn restored(body: &[u8], compat: bool) -> Result<Vec<u8>, BodyError> {
    let mut top = Object::parse(body)?;
    for key in ["Config", "ContainerConfig"] {
        top.edit(key, restore)?;
    }
    if compat
        && top.raw("ContainerConfig").is_none()
        && let Some(config) = top.get::<Object>("Config")?
    {
        top.set("ContainerConfig", &with_keys_of_mesos(config));
    }
    let mut out = top.to_bytes();
    if body.ends_with(b"\n") {
        out.push(b'\n');
    }
    Ok(out)
}

fn restore(config: &mut Object) {
    let labels: HashMap<String, String> = config.get("Labels").ok().flatten().unwrap_or_default();
    if let Some(note) = Note::read(&labels) {
        return restore_config(config, &note);
    }
    // Our commits write an empty list where there was null: `commit` says why.
    let entrypoint: Option<Vec<String>> = config.get("Entrypoint").ok().flatten();
    if labels.contains_key(LABEL) && entrypoint.is_some_and(|words| words.is_empty()) {
        config.set("Entrypoint", &Option::<Vec<String>>::None);
    }
    hide_labels(config);
}

// Mesos wants both keys to be there; null will do.
fn with_keys_of_mesos(mut config: Object) -> Object {
    for key in ["Entrypoint", "Env"] {
        if !config.has(key) {
            config.set(key, &Option::<Vec<String>>::None);
        }
    }
    config
}

/// Answers a ping, with an `Api-Version` that both the docker CLI and Mesos can live with.
pub(crate) async fn ping(api: &Api, request: &Request<'_>) -> Result<Answer, Unanswered> {
    let mut answer = request.ask(api).await?;
    if let Some(version) = api_version(&answer.head).filter(|version| *version > LAST_WITH_CONTAINER_CONFIG) {
        tracing::debug!(?version, "lowering the API version for Mesos");
        let (major, minor) = LAST_WITH_CONTAINER_CONFIG;
        answer.head =
            head::with_fields(&answer.head, &["api-version"], &format!("Api-Version: {major}.{minor}\r\n"));
    }
    Ok(answer)
}

fn api_version(head: &[u8]) -> Option<(u16, u16)> {
    let text = std::str::from_utf8(head).ok()?;
    let value = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("api-version").then(|| value.trim())
    })?;
    let (major, minor) = value.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
