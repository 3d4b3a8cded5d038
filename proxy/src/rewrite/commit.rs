//! `POST /commit`: the image gets the command that the user gave, and nothing of ours.

use std::collections::HashMap;

use selvedge_containers::label::{LABEL, Note};
use selvedge_engine::client::EngineError;
use selvedge_engine::gone::Unanswered;
use selvedge_engine::http::message::Answer;
use selvedge_engine::object::Object;
use selvedge_engine::refusal::Refusal;
use selvedge_engine::route::{is_form, percent_encode};

use super::body;
use super::inspect::{restore_config, restore_hostname};
use super::request::Request;
use crate::api::Api;
use crate::then::Then;

/// Answers a commit.
pub(crate) async fn answer(api: &Api, request: &Request<'_>) -> Result<Answer, Unanswered> {
    let reference = request.query_value("container").unwrap_or_default();
    let is_blank = matches!(request.body.trim_ascii(), b"" | b"null") || is_form(request.bytes);
    if reference.is_empty() || !(is_blank || body::is_object(request.body)) {
        return request.order(api, request.body, Then::Pass).await;
    }
    let container = match api
        .containers
        .engine
        .get::<Object>(&format!("/containers/{}/json", percent_encode(&reference)))
        .await
    {
        Ok(container) => container,
        Err(EngineError::Refused { .. }) => return request.order(api, request.body, Then::Pass).await,
        Err(EngineError::Unreachable(reason)) => return Err(Refusal::new(503, reason).into()),
        Err(EngineError::Unreadable(reason)) => return Err(Refusal::new(502, reason).into()),
    };
    let Some(config) = container.get::<Object>("Config")? else {
        return request.order(api, request.body, Then::Pass).await;
    };
    let labels: HashMap<String, String> = config.get("Labels")?.unwrap_or_default();
    let Some(note) = Note::read(&labels) else { return request.order(api, request.body, Then::Pass).await };
    let mut config = config;
    restore_hostname(&mut config, &note, &container.get::<String>("Id")?.unwrap_or_default());
    match config_of_image(body::value(request.body), config, &note) {
        // A form is no config; the engine refuses it by its kind, and must not take it for one of ours.
        Ok(_) if is_form(request.bytes) => request.order(api, request.body, Then::Pass).await,
        Ok(config) => {
            let sent = body::with_rest(config.to_bytes(), request.body);
            request.order(api, &sent, Then::Pass).await
        }
        Err(refusal) => body::in_the_engines_words(api, request, refusal).await,
    }
}

/// The engine merges the request's config with the container's own (moby: `merge` in `daemon/commit.go`): an
/// absent entrypoint would let ours in, an empty list keeps it out.
fn config_of_image(sent: &[u8], mut own: Object, note: &Note) -> Result<Object, Refusal> {
    let is_empty = matches!(sent.trim_ascii(), b"" | b"null" | b"{}");
    let mut body = if is_empty {
        restore_config(&mut own, note);
        own
    } else {
        Object::parse(sent)?
    };
    body.settle(&["Entrypoint", "Cmd", "Labels"])?;
    if body.raw("Entrypoint").is_none() {
        body.set("Entrypoint", &note.original.entrypoint.clone().unwrap_or_default());
        if body.raw("Cmd").is_none() {
            body.set("Cmd", &note.original.cmd);
        }
    }
    // A label of the container can be emptied by a commit, not taken away; an empty one means nothing to us,
    // and is hidden.
    let mut labels = body.get::<Object>("Labels")?.unwrap_or_default();
    labels.set(LABEL, &"");
    body.set("Labels", &labels);
    Ok(body)
}
