//! `POST /containers/{id}/start` and `/restart`: the answer comes when the wire, the names and the program are
//! there, or when none of them is.

use std::sync::Arc;

use selvedge_containers::entry::Phase;
use selvedge_containers::find::ours;
use selvedge_containers::guests;
use selvedge_containers::readiness;
use selvedge_containers::reconcile::{self, Outcome, ReconcileError};
use selvedge_containers::span;
use selvedge_engine::client::EngineError;
use selvedge_engine::gone::{EngineGone, Unanswered};
use selvedge_engine::http::framing::BodyLength;
use selvedge_engine::http::message::Answer;
use selvedge_engine::lifetime::moment;
use selvedge_engine::model::short;
use selvedge_engine::refusal::Refusal;
use selvedge_engine::route::{Endpoint, path_of, split_version};
use selvedge_engine::wording;
use tracing::Instrument;

use super::request::Request;
use crate::api::Api;
use crate::exchange::Exchange;
use crate::held::api_version;
use crate::then::Then;

/// Answers a start or restart of the container that the client calls `reference`.
pub(crate) async fn answer(
    api: &Arc<Api>,
    request: &Request<'_>,
    reference: &str,
) -> Result<Answer, Unanswered> {
    let Some(id) = ours(&api.containers, reference).await else {
        let answer = request.order(api, request.body, Then::Pass).await?;
        guests::started(&api.containers, reference).await;
        return Ok(answer);
    };
    start(api, request, &id).instrument(span::container(&id)).await
}

async fn start(api: &Arc<Api>, request: &Request<'_>, id: &str) -> Result<Answer, Unanswered> {
    if brings_host_config(request) {
        let told = "a start with a HostConfig in its body is not supported; give it at create";
        return Err(Refusal::new(400, told).into());
    }
    hold(api, id).await?;
    // Registered before the engine hears of it: the event of this start then leaves the work, and the
    // telling, to us.
    let _pending = api.containers.book.expect_start(id);
    // A restart is in doubt only when the engine has done it: until then it stops a container that shows as running.
    let is_restart = matches!(request.endpoint, Endpoint::Restart(_));
    let _doubt = (!is_restart).then(|| api.containers.book.doubt(id));
    if is_restart {
        let time = readiness::stop_time(request.query_value("t").as_deref());
        readiness::drain(&api.containers, id, time, true).await;
    }
    let answer = match started_before(api, request, id).await? {
        Some(answer) => answer,
        None => request.order(api, request.body, Then::Started(id.to_owned())).await?,
    };
    started(api, request, id, answer).await
}

/// Goes on with a start or restart that was asked of the engine.
pub(crate) async fn go_on(
    api: &Arc<Api>,
    request: &Request<'_>,
    id: &str,
    exchange: &mut Exchange,
) -> Result<Answer, Unanswered> {
    resumed(api, request, id, exchange).instrument(span::container(id)).await
}

async fn resumed(
    api: &Arc<Api>,
    request: &Request<'_>,
    id: &str,
    exchange: &mut Exchange,
) -> Result<Answer, Unanswered> {
    let _pending = api.containers.book.expect_start(id);
    api.containers.book.start_resumed(id);
    let is_restart = matches!(request.endpoint, Endpoint::Restart(_));
    let _doubt = (!is_restart).then(|| api.containers.book.doubt(id));
    let answer = exchange.answer(false).await?;
    started(api, request, id, answer).await
}

/// The engine has answered to a start: gives the container what it lacks.
async fn started(
    api: &Arc<Api>,
    request: &Request<'_>,
    id: &str,
    answer: Answer,
) -> Result<Answer, Unanswered> {
    if answer.status >= 300 {
        if answer.status >= 400
            && api.containers.book.entry(id).is_some_and(|entry| entry.phase == Phase::Stopped)
        {
            api.containers.book.ended(id);
        }
        return Ok(answer);
    }
    let _doubt = api.containers.book.doubt(id);
    match reconcile::container(&api.containers, id).await {
        Ok(Outcome::Wired | Outcome::NotRunning) => Ok(answer),
        Ok(Outcome::NeverRan(lookup)) => {
            let failure = never_ran(api, id, lookup).await;
            Ok(told(api, &request.endpoint, failure))
        }
        Err(ReconcileError::Engine(EngineError::Unreachable(reason))) => Err(EngineGone::new(reason).into()),
        Err(error @ ReconcileError::Taken { .. }) => {
            reconcile::abandon(&api.containers, id).await;
            Err(refusal(id, &error).into())
        }
        Err(error) => {
            tracing::warn!(container = %short(id), %error, "start failed: the container is stopped before its program ran");
            reconcile::abandon(&api.containers, id).await;
            Err(refusal(id, &error).into())
        }
    }
}

/// The address comes before the engine: what cannot have it does not start.
async fn hold(api: &Api, id: &str) -> Result<(), Unanswered> {
    let Some(note) = api.containers.book.note(id) else { return Ok(()) };
    if note.fixed {
        api.containers.addresses.known().await;
    }
    match reconcile::hold(&api.containers, id, note.address).await {
        Ok(()) => Ok(()),
        Err(ReconcileError::Engine(EngineError::Unreachable(reason))) => Err(EngineGone::new(reason).into()),
        Err(error) => Err(refusal(id, &error).into()),
    }
}

fn refusal(id: &str, error: &ReconcileError) -> Refusal {
    let status = if matches!(error, ReconcileError::Taken { .. }) { 409 } else { 500 };
    Refusal::new(status, format!("cannot connect container {}: {error}", short(id)))
}

/// Until API 1.23 a start could bring a HostConfig along that replaces the one of the create, and our mount with it.
/// What is shorter than any object the engine does not read, and later versions refuse the rest themselves (moby:
/// `postContainersStart`).
fn brings_host_config(request: &Request<'_>) -> bool {
    let read = match request.head.body {
        BodyLength::Fixed(length) => length > 7,
        _ => true,
    };
    let (version, _) = split_version(path_of(&request.head.target));
    let old = api_version(version).is_some_and(|version| version < (1, 24));
    matches!(request.endpoint, Endpoint::Start(_)) && read && old
}

/// When the container of a start or restart was started last: one that is asked again sees by it whether it has been done.
pub(crate) async fn last_start(api: &Api, endpoint: &Endpoint) -> Option<String> {
    let reference = match endpoint {
        // What the engine does by itself may not have been heard of: a restart that was not done must not be taken for done.
        Endpoint::Restart(reference) => return inspected(api, reference).await,
        Endpoint::Start(reference) => reference,
        _ => return None,
    };
    let known = api.containers.book.find(reference).and_then(|id| api.containers.book.entry(&id)?.started);
    match known {
        Some(started) => Some(started),
        None => inspected(api, reference).await,
    }
}

async fn inspected(api: &Api, reference: &str) -> Option<String> {
    api.containers.engine.inspect(reference).await.ok().map(|container| container.state.started_at)
}

/// The answer of a start that is asked again and has been done: what has run once is not run twice.
async fn started_before(api: &Api, request: &Request<'_>, id: &str) -> Result<Option<Answer>, Unanswered> {
    if !request.asked.again {
        return Ok(None);
    }
    let container = api.containers.engine.inspect(id).await.map_err(EngineGone::from)?;
    let started_at = &container.state.started_at;
    // Promises of earlier versions do not say what was before.
    let done =
        request.started.map_or(moment(started_at) >= request.asked.when, |before| before != started_at);
    Ok(done.then(|| Answer::empty(api.containers.engine.identity(), 204)))
}

/// The program is not there: the engine's own words and status, and a container that looks as if the engine
/// had found out by itself.
async fn never_ran(api: &Api, id: &str, lookup: wording::Lookup) -> wording::Failure {
    let program =
        api.containers.book.note(id).and_then(|note| note.command().into_iter().next()).unwrap_or_default();
    let failure = api.containers.wordings.of(&api.containers.engine, (id, &program), lookup).await;
    api.containers.book.note_never_ran(id, failure.clone());
    reconcile::abandon(&api.containers, id).await;
    failure
}

/// A restart wraps the error in words of its own, by which it becomes a failure of the engine's (moby:
/// `ContainerRestart` in `daemon/restart.go`).
fn told(api: &Api, endpoint: &Endpoint, failure: wording::Failure) -> Answer {
    let (status, message) = match endpoint {
        Endpoint::Restart(name) => (500, format!("Cannot restart container {name}: {}", failure.message)),
        _ => (failure.status, failure.message),
    };
    Answer::json(api.containers.engine.identity(), status, selvedge_engine::refusal::message_body(&message))
}
