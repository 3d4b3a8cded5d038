//! A task of a Nomad group: its container joins the network of the group's pause container, and its names and labels count for
//! the wire there. What they come to is written on it; all else of the create passes as it is.

use selvedge_containers::find::ours;
use selvedge_containers::guests;
use selvedge_containers::joined::Joined;
use selvedge_containers::label::LABEL;
use selvedge_containers::names;
use selvedge_containers::nomad::{ALLOC, Task, holds_network};
use selvedge_engine::gone::Unanswered;
use selvedge_engine::http::message::Answer;
use selvedge_engine::model;
use selvedge_engine::object::BodyError;
use selvedge_engine::refusal::Refusal;
use selvedge_registry::allow;
use tracing::warn;

use super::command::Command;
use super::identity::{names_of, ports, tenant_of};
use super::plain::without_wire;
use super::sent::Body;
use super::{address, image};
use crate::api::Api;
use crate::rewrite::labels::Wanted;
use crate::rewrite::request::Request;

/// The container of ours whose network the create joins, if that is how Nomad gives a task its group's.
pub(super) async fn of(api: &Api, body: &Body) -> Option<String> {
    let alloc = body.labels.get(ALLOC)?;
    Task::of(|key| body.env(key))?;
    let mode = body.host.get::<String>("NetworkMode").ok().flatten()?;
    let id = ours(&api.containers, mode.strip_prefix("container:")?).await?;
    let entry = api.containers.book.entry(&id)?;
    holds_network(&entry.name, alloc).then_some(id)
}

/// Passes the create with what counts for the wire written on it; whose the wire is by that is known before the answer.
pub(super) async fn join(
    api: &Api,
    request: &Request<'_>,
    mut body: Body,
    (host, command, image): (&str, Command, &model::Config),
) -> Result<Answer, Unanswered> {
    check(api, request, &body)?;
    let joined = joined(api, &body, (host, image))?;
    body.labels.insert(LABEL.to_owned(), joined.to_text());
    let answer = without_wire(api, request, body, image, command).await?;
    if let Some(id) = image::created(&answer) {
        guests::look(&api.containers, host, &id).await;
    }
    Ok(answer)
}

/// What cannot be had is refused as elsewhere; what cannot count is told.
fn check(api: &Api, request: &Request<'_>, body: &Body) -> Result<(), Refusal> {
    address::allowed(api, &body.wishes)?;
    if body.wishes.network == Some(Wanted::None) {
        let name = request.query_value("name").unwrap_or_default();
        let why = "its group has a wire already, which all of its tasks share";
        warn!(name, label = "selvedge.network=none", why, "a label does not count");
    }
    Ok(())
}

fn joined(api: &Api, body: &Body, (host, image): (&str, &model::Config)) -> Result<Joined, BodyError> {
    Ok(Joined {
        joins: host.to_owned(),
        names: names_of(api, body)?,
        tenant: tenant_of(api, body),
        allow: allow::text(&names::rules(&body.wishes.allow, &api.settings.domain)),
        ports: ports(body, image)?,
        vips: body.wishes.vips.iter().map(ToString::to_string).collect(),
        exclusive: body.wishes.exclusive,
    })
}
