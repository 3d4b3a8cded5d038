//! A create that gets no wire of its own. Must never change a body that could not be mistaken for one of ours.

use selvedge_containers::label::LABEL;
use selvedge_engine::gone::Unanswered;
use selvedge_engine::http::message::Answer;
use selvedge_engine::model;

use super::command::{Command, without_wait};
use super::sent::Body;
use crate::api::Api;
use crate::rewrite::body;
use crate::rewrite::request::Request;
use crate::then::Then;

/// Passes a create that gets no wire of its own; its body is only touched where the image would make it look like ours, or where
/// it counts for another one's wire.
pub(super) async fn without_wire(
    api: &Api,
    request: &Request<'_>,
    mut sent: Body,
    image: &model::Config,
    command: Command,
) -> Result<Answer, Unanswered> {
    let labelled = image.labels.as_ref().is_some_and(|labels| labels.contains_key(LABEL));
    let waits = without_wait(image.entrypoint.clone()) != image.entrypoint;
    let joins = sent.labels.contains_key(LABEL);
    if !labelled && !waits && !joins {
        return request.order(api, request.body, Then::Pass).await;
    }
    if labelled || joins {
        sent.labels.entry(LABEL.to_owned()).or_default();
        sent.top.set("Labels", &sent.labels);
    }
    if waits && !command.is_empty() {
        sent.top.set("Entrypoint", &command.entrypoint.unwrap_or_default());
        sent.top.set("Cmd", &command.cmd);
    }
    request.order(api, &body::with_rest(sent.top.to_bytes(), request.body), Then::Pass).await
}
