//! Output that went on while there was no engine: found in the container's log, from the byte on that the client lacks.
//!
//! It must never repeat a byte, and never skip one that the log has.

use std::time::Duration;

use selvedge_engine::http::message::Buffered;
use selvedge_engine::model::Container;
use selvedge_keeper::link::Ended;
use selvedge_keeper::position::Frames;
use tracing::warn;

use super::frames::{self, Messages};
use super::log::Log;
use super::verdict::{Rest, Verdict, answer};
use super::{Kind, Note, gap, reattach};
use crate::api::Api;

/// Goes on with a client's output. `None`: try again, with another engine or with what the container is by then.
pub(super) async fn catch_up(
    api: &Api,
    note: &Note,
    container: &Container,
    mut ended: Ended,
) -> Option<Verdict> {
    let header = ended.position.frames.as_mut().map(Frames::end_header).unwrap_or_default();
    if ended.position.frames.is_some_and(|frames| frames.lost) {
        warn!(target = note.target(), "the output of a held request is not in frames, and cannot go on");
        return Some(Verdict::Over);
    }
    Some(rest(api, note, container, ended).await?.behind(header))
}

async fn rest(api: &Api, note: &Note, container: &Container, ended: Ended) -> Option<Verdict> {
    let (log, state) = (Log::of(note, container, ended), &container.state);
    if note.kind == Kind::Attach && !log.has_begun() {
        return reattach::whole(api, note, &log).await;
    }
    let has_input = note.kind == Kind::Attach && note.is("stdin") && state.running;
    if has_input && (state.paused || state.restarting) {
        // An engine refuses to attach to it, and it says nothing.
        return None;
    }
    // A log has only whole lines, and a terminal's echo is none.
    if has_input && !(log.framed && api.keeper.takes_inputs()) {
        return directly(api, note, &log).await;
    }
    from_log(api, note, (container, &log), has_input).await
}

/// Goes on with an attach for all, for which little may be lacking: of more, the log has its end first.
async fn directly(api: &Api, note: &Note, log: &Log<'_>) -> Option<Verdict> {
    let (rest, lacks) = log.rest(api).await?;
    if lacks < reattach::HELD_MAX as u64 / 2 {
        return reattach::whole(api, note, log).await;
    }
    let (200, engine) = answer(api, note, &log.target(false, false)).await? else { return None };
    let (engine, first) = follow(engine, rest, (log.framed, false)).await?;
    let position = log.position;
    Some(Verdict::On(Box::new(Rest {
        first,
        hold_upstream: true,
        piece: true,
        ..Rest::from(engine, position)
    })))
}

/// Goes on with the log. What the client says takes another way: a log takes nothing, and an attach cannot tell which byte
/// of the output is its first.
async fn from_log(
    api: &Api,
    note: &Note,
    (container, log): (&Container, &Log<'_>),
    has_input: bool,
) -> Option<Verdict> {
    let (rest, _) = log.rest(api).await?;
    let engine = match answer(api, note, &log.target(true, false)).await? {
        (200, engine) => engine,
        (404 | 409, _) => return None,
        _ => return unreadable(api, note, log, container.state.running).await,
    };
    let (engine, first) = follow(engine, rest, (log.framed, has_input)).await?;
    // The last thing to be done: an engine may close the container's stdin when this connection ends.
    let input = if has_input { Some(reattach::input(api, note, container).await?) } else { None };
    let hold_upstream = note.kind == Kind::Attach;
    Some(Verdict::On(Box::new(Rest { first, hold_upstream, input, ..Rest::from(engine, log.position) })))
}

/// What was said meanwhile is lost, what comes is not.
async fn unreadable(api: &Api, note: &Note, log: &Log<'_>, is_running: bool) -> Option<Verdict> {
    if note.kind == Kind::Attach && is_running {
        return reattach::whole(api, note, log).await;
    }
    let (bytes, _) = gap::told(note, log.position, None);
    Some(if bytes.is_empty() { Verdict::Over } else { Verdict::Last(bytes) })
}

// How long a client's input waits for the rest of a frame that the engine's end broke off. It is in the log at once, or it
// never was, and then the next output has its place: which may be waiting for that input.
const REST: Duration = Duration::from_secs(1);

/// Reads a log up to where the client stands.
async fn follow(
    mut engine: Buffered,
    mut rest: frames::Rest,
    (framed, has_input): (bool, bool),
) -> Option<(Buffered, Vec<u8>)> {
    let mut messages = Messages::new(framed);
    messages.push(&std::mem::take(&mut engine.unread));
    loop {
        while !rest.is_caught_up()
            && let Some((kind, message)) = messages.next().ok()?
        {
            rest.take(kind, message);
        }
        if rest.is_caught_up() {
            break;
        }
        let patience = if has_input { REST } else { Duration::MAX };
        match tokio::time::timeout(patience, engine.fill()).await.ok().transpose().ok()? {
            Some(true) => messages.push(&std::mem::take(&mut engine.unread)),
            Some(false) => break,
            None => rest.fill(),
        }
    }
    engine.unread = messages.into_rest();
    Some((engine, rest.into_whole()))
}
