//! The end of a held request's engine, which may or may not be the end of the request.
//!
//! It must never write to a client before it knows what that client has got, and never end one whose container goes on.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use selvedge_keeper::link::Ended;
use selvedge_keeper::position::Position;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tracing::{debug, info, warn};

use super::begin::as_http_1_0;
use super::{Kind, Note, catch_up};
use crate::docker::engine::EngineError;
use crate::docker::life::{Since, moment};
use crate::docker::model::Container;
use crate::front::head;
use crate::front::message::{Buffered, response_head};
use crate::front::relay::has_left;
use crate::handover::{Pair, Resumable};
use crate::route::percent_encode;
use crate::worker::Worker;

/// A client that came back.
#[derive(Debug)]
pub(crate) struct Parked {
    pub(crate) id: u64,
    pub(crate) client: OwnedFd,
    pub(crate) note: Vec<u8>,
    pub(crate) ended: Ended,
}

/// What is to be done with it.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It has got all.
    Over,
    /// This is the last of it.
    Last(Vec<u8>),
    /// It goes on.
    On(Rest),
}

/// The rest of a stream.
#[derive(Debug)]
pub(super) struct Rest {
    pub(super) engine: Buffered,
    /// Comes before what is read from the engine, `engine.unread` included.
    pub(super) first: Vec<u8>,
    pub(super) position: Position,
    /// The client's half-close is not passed on.
    pub(super) hold_upstream: bool,
}

/// Lets a client go, or finds the rest of its answer, however long that takes. Ends without a trace when this worker
/// has to leave: the client is parked, and the next worker begins anew.
pub(crate) async fn resume(worker: Arc<Worker>, parked: Parked) {
    let Parked { id, client, note, ended } = parked;
    let (Ok(note), Ok(client)) = (serde_json::from_slice::<Note>(&note), UnixStream::from_std(client.into()))
    else {
        warn!("a held request cannot be read; its client is let go");
        return worker.keeper.unpark(id).await;
    };
    let mut leaving = worker.leaving();
    let verdict = tokio::select! {
        biased;
        _ = leaving.wait_for(|leaving| *leaving) => return,
        () = left(&client) => Verdict::Over,
        verdict = decide(&worker, &note, ended) => verdict,
    };
    match verdict {
        Verdict::Over => worker.keeper.unpark(id).await,
        Verdict::Last(bytes) => {
            let mut client = client;
            if let Err(error) = client.write_all(&bytes).await {
                debug!(%error, "a held client left");
            }
            worker.keeper.unpark(id).await;
        }
        Verdict::On(rest) => go_on(&worker, id, client, (&note, rest)).await,
    }
}

async fn go_on(worker: &Worker, id: u64, client: UnixStream, (note, rest): (&Note, Rest)) {
    info!(request = note.target(), "goes on with the engine that is there now");
    let mut to_client = rest.first;
    to_client.extend_from_slice(&rest.engine.unread);
    let resume = Some(Resumable {
        note: serde_json::to_vec(note).unwrap_or_default(),
        position: rest.position,
        hold_upstream: rest.hold_upstream,
        replaces: Some(id),
    });
    let label = format!("{} {}", note.head.split(' ').next().unwrap_or_default(), note.target());
    let pair = Pair { label, client, engine: rest.engine.io, to_upstream: Vec::new(), to_client, resume };
    if let Err((_, error)) = worker.keeper.give(pair).await {
        warn!(%error, "a held request could not be given back to the keeper");
        worker.keeper.unpark(id).await;
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

async fn decide(worker: &Worker, note: &Note, ended: Ended) -> Verdict {
    match note.kind {
        // The engine writes the whole of the body at once.
        Kind::Wait if ended.position.moved > 0 => Verdict::Over,
        Kind::Wait => wait(worker, note, ended).await,
        Kind::Events => events(worker, note, ended).await,
        Kind::Logs | Kind::Attach => output(worker, note, ended).await,
    }
}

const AGAIN: Duration = Duration::from_millis(100);

/// Asks until there is an engine that answers. `None`: it knows no such container.
async fn inspect(worker: &Worker, note: &Note) -> Option<Container> {
    loop {
        match worker.engine.inspect(&note.container).await {
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

/// Asks the engine of now the same with another target, by HTTP/1.0; gives what comes behind its head.
pub(super) async fn ask(worker: &Worker, note: &Note, target: &str) -> Option<Buffered> {
    let method = if note.kind == Kind::Wait { "POST" } else { "GET" };
    let question =
        head::with_fields(&as_http_1_0(&note.head, (method, target)), &["connection", "upgrade"], "");
    let mut engine = Buffered::new(worker.upstream.connect_now().await.ok()?);
    engine.io.write_all(&question).await.ok()?;
    let answer = response_head(&mut engine, false).await.ok()?;
    engine.used(answer.len);
    // By HTTP/1.0 the body ends with the connection, also where the engine knew its length beforehand.
    (answer.status == 200).then_some(engine)
}

async fn wait(worker: &Worker, note: &Note, ended: Ended) -> Verdict {
    loop {
        let Some(container) = inspect(worker, note).await else {
            return Verdict::Last(removed(worker, &note.container));
        };
        let condition = condition(note, &container);
        let path = format!("{}/containers/{}/wait", note.version(), percent_encode(&container.id));
        if let Some(engine) = ask(worker, note, &format!("{path}?condition={condition}")).await {
            let (first, position) = (Vec::new(), ended.position);
            return Verdict::On(Rest { engine, first, position, hold_upstream: false });
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

fn removed(worker: &Worker, id: &str) -> Vec<u8> {
    let told = worker.life.exit_of(id).map_or_else(
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
async fn events(worker: &Worker, note: &Note, ended: Ended) -> Verdict {
    let since = catch_up::seconds(ended.at);
    let kept: Vec<&str> = crate::route::query_of(note.target())
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.starts_with("since="))
        .collect();
    let target =
        format!("{}/events?{}", note.version(), [kept, vec![&format!("since={since}")]].concat().join("&"));
    loop {
        if let Some(engine) = ask(worker, note, &target).await {
            let (first, position) = (Vec::new(), ended.position);
            return Verdict::On(Rest { engine, first, position, hold_upstream: false });
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Output ends with its container, or with the engine: only then it goes on.
async fn output(worker: &Worker, note: &Note, ended: Ended) -> Verdict {
    loop {
        let Some(container) = inspect(worker, note).await else { return Verdict::Over };
        // What the engine's end does to our own connection to it may not have been noticed yet.
        tokio::task::yield_now().await;
        let since = worker.life.since(ended.at);
        debug!(request = note.target(), ?since, position = ?ended.position, state = ?container.state, "output ended");
        match since {
            Since::Same => return Verdict::Over,
            Since::Unknown if container.state.running && moment(&container.state.started_at) > ended.at => {
                return Verdict::Over;
            }
            Since::Another | Since::Unknown => {}
        }
        if let Some(verdict) = catch_up::catch_up(worker, note, &container, ended).await {
            return verdict;
        }
        tokio::time::sleep(AGAIN).await;
    }
}
