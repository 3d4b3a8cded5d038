//! `POST /containers/{id}/start` and `/restart`: the answer comes when the wire, the names and the program are
//! there, or when none of them is.

use std::sync::Arc;

use super::Request;
use crate::docker::engine::EngineError;
use crate::docker::error::Refusal;
use crate::docker::life::moment;
use crate::docker::model::short;
use crate::docker::wording;
use crate::front::message::Answer;
use crate::front::parting;
use crate::reconcile::{self, Outcome, ReconcileError};
use crate::route::Endpoint;
use crate::serving;
use crate::worker::Worker;

/// Answers a start or restart of the container that the client calls `reference`.
pub(crate) async fn answer(
    worker: &Arc<Worker>,
    request: &Request<'_>,
    reference: &str,
) -> Result<Answer, Refusal> {
    let Some(id) = ours(worker, reference).await else { return request.ask(worker, request.body).await };
    if !matches!(request.body.trim_ascii(), b"" | b"null" | b"{}") {
        // Until API 1.23 a start could bring a HostConfig along that replaces the one of the create.
        return Err(Refusal::new(
            400,
            "a start with a HostConfig in its body is not supported; give it at create",
        ));
    }
    // Registered before the engine hears of it: the event of this start then leaves the work, and the
    // telling, to us.
    let _pending = worker.book.expect_start(&id);
    if matches!(request.endpoint, Endpoint::Restart(_)) {
        serving::drain(worker, &id, parting::time(request.query_value("t").as_deref()), true).await;
    }
    let answer = match started_before(worker, request, &id).await? {
        Some(answer) => answer,
        None => request.ask(worker, request.body).await?,
    };
    if answer.status >= 300 {
        return Ok(answer);
    }
    match reconcile::container(worker, &id).await {
        Ok(Outcome::Wired | Outcome::NotRunning) => Ok(answer),
        Ok(Outcome::NeverRan(lookup)) => {
            let failure = never_ran(worker, &id, lookup).await;
            Ok(told(&request.endpoint, failure))
        }
        Err(ReconcileError::Engine(EngineError::Unreachable(reason))) => {
            Err(Refusal::new(502, format!("the engine broke off: {reason}")))
        }
        Err(error) => {
            tracing::warn!(container = %short(&id), %error, "start failed: the container is stopped before its program ran");
            reconcile::abandon(worker, &id).await;
            Err(Refusal::new(500, format!("cannot connect container {}: {error}", short(&id))))
        }
    }
}

/// The answer of a start that is asked again and has been done: what has run once is not run twice.
async fn started_before(worker: &Worker, request: &Request<'_>, id: &str) -> Result<Option<Answer>, Refusal> {
    if !request.asked.again {
        return Ok(None);
    }
    let broke_off = |error: EngineError| Refusal::new(502, format!("the engine broke off: {error}"));
    let container = worker.engine.inspect(id).await.map_err(broke_off)?;
    let done = moment(&container.state.started_at) >= request.asked.when;
    let head = b"HTTP/1.1 204 No Content\r\n\r\n".to_vec();
    Ok(done.then(|| Answer { head, status: 204, body: Vec::new(), has_body: false }))
}

/// The id of the container that the client calls `reference`, if it is one of ours.
pub(crate) async fn ours(worker: &Worker, reference: &str) -> Option<String> {
    if let Some(id) = worker.book.find(reference) {
        return Some(id);
    }
    // One that another worker or another client created a moment ago.
    let container = worker.engine.inspect(reference).await.ok()?;
    worker.book.learn(&container).then_some(container.id)
}

/// The program is not there: the engine's own words and status, and a container that looks as if the engine
/// had found out by itself.
async fn never_ran(worker: &Worker, id: &str, lookup: wording::Lookup) -> wording::Failure {
    let failure = wording::of(worker, id, lookup).await;
    worker.book.note_never_ran(id, failure.clone());
    reconcile::abandon(worker, id).await;
    failure
}

/// A restart wraps the error in words of its own, by which it becomes a failure of the engine's (moby:
/// `ContainerRestart` in `daemon/restart.go`).
fn told(endpoint: &Endpoint, failure: wording::Failure) -> Answer {
    let (status, message) = match endpoint {
        Endpoint::Restart(name) => (500, format!("Cannot restart container {name}: {}", failure.message)),
        _ => (failure.status, failure.message),
    };
    Answer::json(status, crate::docker::error::message_body(&message))
}
