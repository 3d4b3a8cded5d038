//! `POST /containers/{id}/start` and `/restart`: the answer comes when the wire, the names and the program are
//! there, or when none of them is.

use std::sync::Arc;

use super::Request;
use crate::docker::error::Refusal;
use crate::docker::wording;
use crate::front::message::Answer;
use crate::reconcile::{self, Outcome};
use crate::route::Endpoint;
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
    let answer = request.ask(worker, request.body).await?;
    if answer.status >= 300 {
        return Ok(answer);
    }
    match reconcile::container(worker, &id).await {
        Ok(Outcome::Wired | Outcome::NotRunning) => Ok(answer),
        Ok(Outcome::NeverRan(lookup)) => {
            let failure = never_ran(worker, &id, lookup).await;
            Ok(told(&request.endpoint, failure))
        }
        Err(error) => {
            tracing::warn!(container = %super::create::short(&id), %error, "start failed: the container is stopped before its program ran");
            reconcile::abandon(worker, &id).await;
            Err(Refusal::new(500, format!("cannot connect container {}: {error}", super::create::short(&id))))
        }
    }
}

/// The id of the container that the client calls `reference`, if it is one of ours.
pub(super) async fn ours(worker: &Worker, reference: &str) -> Option<String> {
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
