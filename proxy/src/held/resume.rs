//! The end of a held request's engine, which may or may not be the end of the request.
//!
//! It must never write to a client before it knows what that client has got, and never end one whose container goes on.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use selvedge_engine::client::EngineError;
use selvedge_engine::http::relay::has_left;
use selvedge_engine::lifetime::{Since, moment};
use selvedge_engine::model::Container;
use selvedge_engine::route::percent_encode;
use selvedge_keeper::link::Ended;
use tokio::net::UnixStream;
use tracing::{Instrument, Span, debug, info, warn};

use super::verdict::{Rest, Verdict, ask, with_head};
use super::{Kind, Note, catch_up, log};
use crate::api::Api;
use crate::handover::{Pair, Resumable};

/// A client that came back.
#[derive(Debug)]
pub struct Parked {
    /// The keeper's number for it.
    pub id: u64,
    /// Its socket.
    pub client: OwnedFd,
    /// What was written down when its request began.
    pub note: Vec<u8>,
    /// When and where its stream broke off.
    pub ended: Ended,
}

/// Lets a client go, or finds the rest of its answer, however long that takes. Ends without a trace when this worker
/// has to leave: the client is parked, and the next worker starts over.
pub async fn resume(api: Arc<Api>, parked: Parked) {
    let Parked { id, client, note, ended } = parked;
    let (Ok(note), Ok(client)) = (serde_json::from_slice::<Note>(&note), UnixStream::from_std(client.into()))
    else {
        warn!("a held request cannot be read; its client is let go");
        return api.keeper.unpark(id).await;
    };
    let span = match note.request.as_str() {
        "" => Span::none(),
        id => tracing::error_span!("request", id),
    };
    serve(api, (id, client), note, ended).instrument(span).await;
}

async fn serve(api: Arc<Api>, (id, client): (u64, UnixStream), note: Note, ended: Ended) {
    let mut leaving = api.leaving();
    let verdict = tokio::select! {
        biased;
        _ = leaving.wait_for(|leaving| *leaving) => return,
        () = left(&client) => Verdict::Over,
        verdict = decide(&api, &note, ended) => verdict,
    };
    match verdict {
        Verdict::Over => api.keeper.unpark(id).await,
        Verdict::Last(bytes) => {
            // By the keeper, so that they are written once, whatever becomes of us.
            let Ok((engine, _)) = UnixStream::pair() else { return api.keeper.unpark(id).await };
            give(&api, (id, client), &note, (engine, None), (bytes, None)).await;
        }
        Verdict::On(rest) => go_on(&api, id, client, (&note, *rest)).await,
    }
}

async fn go_on(api: &Api, id: u64, client: UnixStream, (note, rest): (&Note, Rest)) {
    info!(target = note.target(), "reconnected to the engine");
    let mut to_client = rest.first;
    to_client.extend_from_slice(&rest.engine.unread);
    let resume = Some(Resumable {
        note: serde_json::to_vec(&Note { piece: rest.piece, ..note.clone() }).unwrap_or_default(),
        position: rest.position,
        hold_upstream: rest.hold_upstream,
    });
    give(api, (id, client), note, (rest.engine.io, rest.input), (to_client, resume)).await;
}

async fn give(
    api: &Api,
    (id, client): (u64, UnixStream),
    note: &Note,
    (engine, input): (UnixStream, Option<UnixStream>),
    (to_client, resume): (Vec<u8>, Option<Resumable>),
) {
    let label = format!("{} {}", note.head.split(' ').next().unwrap_or_default(), note.target());
    let (to_upstream, held, replaces) = (Vec::new(), None, Some(id));
    let pair = Pair { label, client, engine, to_upstream, to_client, resume, held, replaces, input };
    if let Err((_, error)) = api.keeper.give(pair).await {
        warn!(%error, "a held request could not be given back to the keeper");
        api.keeper.unpark(id).await;
    }
}

const LOOK: Duration = Duration::from_millis(250);

/// Ends when the client is gone.
async fn left(client: &UnixStream) {
    loop {
        tokio::time::sleep(LOOK).await;
        if has_left(client).unwrap_or(true) {
            return;
        }
    }
}

async fn decide(api: &Api, note: &Note, ended: Ended) -> Verdict {
    match note.kind {
        // The engine writes the whole of the body at once.
        Kind::Wait if ended.position.moved > 0 => Verdict::Over,
        Kind::Wait => wait(api, note, ended).await,
        Kind::Events => events(api, note, ended).await,
        Kind::Logs | Kind::Attach => output(api, note, ended).await,
    }
}

const AGAIN: Duration = Duration::from_millis(100);

/// Asks until there is an engine that answers. `None`: it knows no such container.
async fn inspect(api: &Api, note: &Note) -> Option<Container> {
    loop {
        match api.containers.engine.inspect(&note.container).await {
            Ok(container) => return Some(container),
            Err(error) if error.is_not_found() => return None,
            Err(EngineError::Refused { status, message }) => {
                debug!(status, message, "an engine that comes up")
            }
            Err(error) => debug!(%error, "no engine yet"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn wait(api: &Api, note: &Note, ended: Ended) -> Verdict {
    loop {
        let Some(container) = inspect(api, note).await else {
            return Verdict::Last(removed(api, &note.container));
        };
        let condition = condition(note, &container);
        let path = format!("{}/containers/{}/wait", note.version(), percent_encode(&container.id));
        if let Some(engine) = ask(api, note, &format!("{path}?condition={condition}")).await {
            return Verdict::On(Box::new(Rest::from(engine, ended.position)));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// `next-exit` is the next one seen from when the client asked: a container that has ended since is not to be waited
/// for once more, and one that runs may end between our look and our question.
fn condition(note: &Note, container: &Container) -> String {
    let asked = note.value("condition").unwrap_or_default();
    let state = &container.state;
    let has_run = [&state.started_at, &state.finished_at].iter().any(|then| moment(then) > note.began);
    match asked.as_str() {
        "next-exit" if state.running || has_run => "not-running".to_owned(),
        "" => "not-running".to_owned(),
        other => percent_encode(other),
    }
}

fn removed(api: &Api, id: &str) -> Vec<u8> {
    let told = api.containers.life.exit_of(id).map_or_else(
        || {
            let message =
                "selvedge: the container was removed while the engine was away; its exit code is not known";
            serde_json::json!({"StatusCode": 125, "Error": {"Message": message}})
        },
        |code| serde_json::json!({"StatusCode": code, "Error": null}),
    );
    format!("{told}\n").into_bytes()
}

/// An engine's memory of events begins with it, so all that it knows is news.
async fn events(api: &Api, note: &Note, ended: Ended) -> Verdict {
    let since = log::seconds(ended.at);
    let kept: Vec<&str> = selvedge_engine::route::query_of(note.target())
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.starts_with("since="))
        .collect();
    let target =
        format!("{}/events?{}", note.version(), [kept, vec![&format!("since={since}")]].concat().join("&"));
    loop {
        if let Some((answer, mut engine)) = with_head(api, note, &target).await
            && answer.status == 200
        {
            if !note.has_form_of(&engine.unread[..answer.len]) {
                warn!(
                    target = note.target(),
                    "the engine of now writes events in another form; their client is let go"
                );
                return Verdict::Over;
            }
            engine.used(answer.len);
            return Verdict::On(Box::new(Rest::from(engine, ended.position)));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Output ends with its container, or with the engine: only then it goes on.
async fn output(api: &Api, note: &Note, ended: Ended) -> Verdict {
    loop {
        let Some(container) = inspect(api, note).await else { return Verdict::Over };
        let since = api.containers.life.since(ended.at);
        debug!(target = note.target(), ?since, position = ?ended.position, state = ?container.state, "output ended");
        match since {
            _ if note.piece => {}
            Since::Same => return Verdict::Over,
            Since::Unknown if container.state.running && moment(&container.state.started_at) > ended.at => {
                return Verdict::Over;
            }
            Since::Another | Since::Unknown => {}
        }
        if let Some(verdict) = catch_up::catch_up(api, note, &container, ended).await {
            return verdict;
        }
        tokio::time::sleep(AGAIN).await;
    }
}
