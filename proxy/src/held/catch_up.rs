//! Output that went on while there was no engine: found in the container's log, from the byte on that the client lacks.
//!
//! It must never repeat a byte, and never skip one that the log has.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Method;
use selvedge_engine::http::message::{Buffered, response_head};
use selvedge_engine::lifetime::moment;
use selvedge_engine::model::Container;
use selvedge_engine::route::percent_encode;
use selvedge_keeper::link::Ended;
use selvedge_keeper::position::{Frames, Position};
use selvedge_keeper::protocol::PENDING_MAX;
use tokio::io::AsyncWriteExt;
use tracing::debug;

use super::frames::{self, Messages, Tally};
use super::verdict::{Rest, Verdict, ask};
use super::{Kind, Note};
use crate::api::Api;

/// Nanoseconds of the Unix epoch as the engine takes them in a query.
pub(super) fn seconds(nanoseconds: u64) -> String {
    format!("{}.{:09}", nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000)
}

/// Goes on with a client's output. `None`: the engine broke off again.
pub(super) async fn catch_up(api: &Api, note: &Note, container: &Container, ended: Ended) -> Option<Verdict> {
    if ended.position.frames.is_some_and(|frames| frames.is_torn()) {
        debug!(target = note.target(), "broke off in the middle of a frame's header; it cannot go on");
        return Some(Verdict::Over);
    }
    let log = Log::of(note, container, ended);
    let position = log.position;
    // Before a start there is nothing to catch up with; input goes only by an attach.
    let attaches = log.began == 0 || (container.state.running && note.is("stdin"));
    if note.kind == Kind::Attach && attaches {
        return attach_again(api, note, &log).await;
    }
    let logged = if log.exact { log.tally(api, ended.at).await? } else { [0; 3] };
    let Some(engine) = ask(api, note, &log.target(true, false)).await else {
        // No log of this driver can be read: what was said meanwhile is lost, what comes is not.
        return if container.state.running {
            attach_again(api, note, &log).await
        } else {
            Some(Verdict::Over)
        };
    };
    let rest = frames::Rest::new(&log.position, logged);
    let (engine, first) = follow(engine, rest, log.framed).await?;
    let hold_upstream = note.kind == Kind::Attach;
    Some(Verdict::On(Rest { engine, first, position, hold_upstream }))
}

/// Reads a log up to where the client stands.
async fn follow(mut engine: Buffered, mut rest: frames::Rest, framed: bool) -> Option<(Buffered, Vec<u8>)> {
    let mut messages = Messages::new(framed);
    messages.push(&std::mem::take(&mut engine.unread));
    loop {
        while !rest.is_caught_up()
            && let Some((kind, message)) = messages.next().ok()?
        {
            rest.take(kind, message);
        }
        if rest.is_caught_up() || !engine.fill().await.ok()? {
            engine.unread = messages.into_rest();
            return Some((engine, rest.out));
        }
        messages.push(&std::mem::take(&mut engine.unread));
    }
}

/// A new attach, for input and for what is to come; what was said in between comes from the log.
async fn attach_again(api: &Api, note: &Note, log: &Log<'_>) -> Option<Verdict> {
    let mut engine = Buffered::new(api.upstream.connect_now().await.ok()?);
    engine.io.write_all(note.head.as_bytes()).await.ok()?;
    let answer = response_head(&mut engine, false).await.ok()?;
    if answer.status != 101 {
        return Some(Verdict::Over);
    }
    engine.used(answer.len);
    let mut first = Vec::new();
    if log.exact {
        let logged = log.tally(api, log.ended).await?;
        let mut rest = frames::Rest::new(&log.position, logged);
        log.read(api, &log.target(false, false), |kind, message| rest.take(kind, message)).await?;
        first = rest.out;
    }
    // More than this is held for no client.
    if first.len() > PENDING_MAX / 2 {
        first.clear();
    }
    Some(Verdict::On(Rest { engine, first, position: log.position, hold_upstream: false }))
}

/// The log that has what a client lacks.
struct Log<'a> {
    note: &'a Note,
    id: &'a str,
    framed: bool,
    /// What the client has got is all in it, from its beginning on.
    exact: bool,
    /// When the container was started; 0 for never.
    began: u64,
    ended: u64,
    position: Position,
}

impl<'a> Log<'a> {
    fn of(note: &'a Note, container: &'a Container, ended: Ended) -> Self {
        let framed = !container.config.tty;
        let began = moment(&container.state.started_at);
        let whole = match note.kind {
            // An attach that was there before the start has seen all of that run.
            Kind::Attach => began > note.began,
            _ => note.value("tail").is_none_or(|tail| tail.is_empty() || tail == "all"),
        };
        let mut position = ended.position;
        if framed && position.frames.is_none() {
            position.frames = Some(Frames::default());
        }
        let exact = note.counted && whole;
        Self { note, id: &container.id, framed, exact, began, ended: ended.at, position }
    }

    fn target(&self, follow: bool, stamps: bool) -> String {
        let note = self.note;
        let value = |key: &str| note.value(key).unwrap_or_default();
        let since = match note.kind {
            _ if !self.exact => seconds(self.ended),
            Kind::Attach => seconds(note.began),
            _ => value("since"),
        };
        let stamps = stamps || (note.kind == Kind::Logs && note.is("timestamps"));
        let pairs = [
            ("stdout", value("stdout")),
            ("stderr", value("stderr")),
            ("details", value("details")),
            ("since", since),
            ("timestamps", u8::from(stamps).to_string()),
            ("follow", u8::from(follow).to_string()),
        ];
        let query: Vec<String> =
            pairs.iter().map(|(key, value)| format!("{key}={}", percent_encode(value))).collect();
        format!("{}/containers/{}/logs?{}", note.version(), self.id, query.join("&"))
    }

    /// How much was logged up to that moment.
    async fn tally(&self, api: &Api, until: u64) -> Option<[u64; 3]> {
        let stamps = self.note.kind == Kind::Logs && self.note.is("timestamps");
        let mut tally = Tally::new(until, stamps);
        self.read(api, &self.target(false, true), |kind, message| tally.add(kind, message)).await?;
        Some(tally.bytes)
    }

    /// Reads all of a log that has an end. One that cannot be read is empty.
    async fn read(&self, api: &Api, target: &str, mut take: impl FnMut(u8, &[u8])) -> Option<()> {
        let answer = api.containers.engine.send(Method::GET, target, Vec::new()).await.ok()?;
        if answer.status() != 200 {
            return Some(());
        }
        let (mut body, mut messages) = (answer.into_body(), Messages::new(self.framed));
        while let Some(frame) = body.frame().await {
            let data: Bytes = frame.ok()?.into_data().unwrap_or_default();
            messages.push(&data);
            while let Some((kind, message)) = messages.next().ok()? {
                take(kind, message);
            }
        }
        Some(())
    }
}
