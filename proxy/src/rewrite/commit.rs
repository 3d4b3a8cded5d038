//! `POST /commit`: the image gets the command that the user gave, and nothing of ours.

use std::collections::HashMap;

use super::Request;
use super::inspect::restore_config;
use crate::docker::engine::EngineError;
use crate::docker::error::Refusal;
use crate::docker::object::Object;
use crate::front::message::Answer;
use crate::note::{LABEL, Note};
use crate::route::percent_encode;
use crate::worker::Worker;

/// Answers a commit.
pub(crate) async fn answer(worker: &Worker, request: &Request<'_>) -> Result<Answer, Refusal> {
    let reference = request.query_value("container").unwrap_or_default();
    let container = match worker
        .engine
        .get::<Object>(&format!("/containers/{}/json", percent_encode(&reference)))
        .await
    {
        Ok(container) => container,
        Err(EngineError::Refused { .. }) => return request.ask(worker, request.body).await,
        Err(error) => return Err(Refusal::new(503, error.to_string())),
    };
    let Some(config) = container.get::<Object>("Config")? else {
        return request.ask(worker, request.body).await;
    };
    let labels: HashMap<String, String> = config.get("Labels")?.unwrap_or_default();
    let Some(note) = Note::read(&labels) else { return request.ask(worker, request.body).await };
    let body = config_of_image(request.body, config, &note)?;
    request.ask(worker, &body.to_bytes()).await
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
