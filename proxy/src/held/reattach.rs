//! A new attach to a container that goes on, for a client whose first one ended with its engine.
//!
//! It must never be silent about output that the client does not get.

use selvedge_engine::http::head;
use selvedge_engine::http::message::{Buffered, response_head};
use selvedge_engine::model::Container;
use selvedge_engine::route::percent_encode;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::log::{Log, Reading};
use super::verdict::{Rest, Verdict};
use super::{Note, gap};
use crate::api::Api;

/// More than this is held for no client.
pub(super) const HELD_MAX: usize = selvedge_keeper::protocol::PENDING_MAX / 2;

/// An attach for the client's input alone: its output comes from the log. `None`: try again, with what the container is
/// by then.
pub(super) async fn input(api: &Api, note: &Note, container: &Container) -> Option<UnixStream> {
    let query = "stream=1&stdin=1&stdout=0&stderr=0";
    let target = format!("{}/containers/{}/attach?{query}", note.version(), percent_encode(&container.id));
    let question = head::with_first_line(note.head.as_bytes(), &format!("POST {target} HTTP/1.1"));
    let (status, engine) = ask(api, &question).await?;
    (status == 101).then_some(engine.io)
}

/// The same attach again, for input and for what is to come; what was said in between comes from the log.
pub(super) async fn whole(api: &Api, note: &Note, log: &Log<'_>) -> Option<Verdict> {
    let (status, engine) = ask(api, note.head.as_bytes()).await?;
    if status != 101 {
        return Some(Verdict::Over);
    }
    // Before a start there is nothing to catch up with.
    if !log.has_begun() {
        return Some(Verdict::On(Box::new(Rest::from(engine, log.position))));
    }
    let (mut rest, _) = log.rest(api).await?;
    let reading = log.read(api, &log.target(false, false), |kind, message| rest.take(kind, message)).await?;
    let lacked = rest.lacked;
    let (first, position) = match (reading, rest.into_whole()) {
        (Reading::Refused, _) => gap::told(note, log.position, None),
        (Reading::Done, first) if first.len() > HELD_MAX => {
            gap::told(note, behind(log, lacked), Some(lacked.iter().sum()))
        }
        (Reading::Done, first) => (first, log.position),
    };
    Some(Verdict::On(Box::new(Rest { first, ..Rest::from(engine, position) })))
}

/// Where the client stands when so much has been left out.
fn behind(log: &Log<'_>, lacked: [u64; 3]) -> selvedge_keeper::position::Position {
    let mut position = log.position;
    match &mut position.frames {
        Some(frames) => {
            for (passed, lacked) in frames.passed.iter_mut().zip(lacked) {
                *passed += lacked;
            }
        }
        None => position.moved += lacked[1],
    }
    position
}

/// Asks for an upgrade: the answer's status, and what is behind its head.
async fn ask(api: &Api, question: &[u8]) -> Option<(u16, Buffered)> {
    let mut engine = Buffered::new(api.upstream.connect_now().await.ok()?);
    engine.io.write_all(question).await.ok()?;
    let answer = response_head(&mut engine, false).await.ok()?;
    engine.used(answer.len);
    Some((answer.status, engine))
}
