//! The requests that are rewritten: one file per endpoint, each a question to the engine and what is changed
//! on the way there and back. Sockets and framing are `front`'s.

mod body;
pub(crate) mod changes;
pub(crate) mod commit;
pub(crate) mod create;
pub(crate) mod image;
pub(crate) mod inspect;
pub(crate) mod labels;
pub(crate) mod list;
pub(crate) mod old;
pub(crate) mod request;
pub(crate) mod start;
pub(crate) mod top;
mod weave;

use std::sync::Arc;

use selvedge_engine::gone::{EngineGone, Unanswered};
use selvedge_engine::http::message::Answer;
use selvedge_engine::route::Endpoint;

use self::request::Request;
use crate::api::Api;
use crate::exchange::Exchange;
use crate::then::Then;

/// Answers a request.
///
/// # Errors
/// The engine broke off: the request may have been done.
pub(crate) async fn answer(api: &Arc<Api>, request: Request<'_>) -> Result<Answer, EngineGone> {
    let result = match &request.endpoint {
        Endpoint::Create => create::answer(api, &request).await,
        Endpoint::Start(name) | Endpoint::Restart(name) => start::answer(api, &request, name).await,
        Endpoint::Inspect(name) => inspect::answer(api, &request, name).await,
        Endpoint::List => list::answer(api, &request).await,
        Endpoint::Changes(name) => changes::answer(api, &request, name).await,
        Endpoint::Top(name) => top::answer(api, &request, name).await,
        Endpoint::Commit => commit::answer(api, &request).await,
        Endpoint::ImageInspect(_) => image::inspect(api, &request).await,
        Endpoint::Ping => image::ping(api, &request).await,
        Endpoint::Images => old::images(api, &request).await,
        Endpoint::Version => old::version(api, &request).await,
    };
    settled(api, &request, result)
}

/// Goes on with a request that was asked of the engine.
///
/// # Errors
/// The engine broke off: the request may have been done.
pub(crate) async fn go_on(
    api: &Arc<Api>,
    request: Request<'_>,
    then: Then,
    exchange: &mut Exchange,
) -> Result<Answer, EngineGone> {
    let result = match then {
        Then::Started(id) => start::go_on(api, &request, &id, exchange).await,
        then => match exchange.answer(false).await {
            Ok(answer) => read_on(api, &request, then, answer).await,
            Err(gone) => Err(gone.into()),
        },
    };
    settled(api, &request, result)
}

async fn read_on(
    api: &Arc<Api>,
    request: &Request<'_>,
    then: Then,
    answer: Answer,
) -> Result<Answer, Unanswered> {
    match then {
        Then::Words(refusal) => body::judged(answer, refusal),
        Then::Unseen => create::go_on_unseen(api, request, answer).await,
        Then::Created(made) => create::go_on(api, request, &made, Ok(answer)).await,
        Then::Pass | Then::Relay | Then::Upgrade | Then::Attach | Then::Started(_) => Ok(answer),
    }
}

fn settled(
    api: &Arc<Api>,
    request: &Request<'_>,
    result: Result<Answer, Unanswered>,
) -> Result<Answer, EngineGone> {
    let (refusal, gone) = match result {
        Ok(answer) => return Ok(answer),
        Err(Unanswered::Refused(refusal)) => (refusal, None),
        Err(Unanswered::Gone(gone)) => (gone.clone().into(), Some(gone)),
    };
    tracing::info!(endpoint = ?request.endpoint, status = refusal.status, reason = refusal.message, "refused");
    gone.map_or_else(|| Ok(Answer::refusal(api.containers.engine.identity(), &refusal)), Err)
}
