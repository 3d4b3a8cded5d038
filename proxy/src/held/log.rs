//! The log that has what a client lacks. It must never be taken for whole where a part of it was asked for.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Method;
use selvedge_engine::lifetime::moment;
use selvedge_engine::model::Container;
use selvedge_engine::route::percent_encode;
use selvedge_keeper::link::Ended;
use selvedge_keeper::position::{Frames, Position};

use super::frames::{self, Messages, Tally};
use super::{Kind, Note};
use crate::api::Api;

/// Nanoseconds of the Unix epoch as the engine takes them in a query.
pub(super) fn seconds(nanoseconds: u64) -> String {
    format!("{}.{:09}", nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000)
}

/// How a reading went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// All of it was read.
    Done,
    /// The engine cannot read this log.
    Refused,
}

/// The log that has what a client lacks.
pub(super) struct Log<'a> {
    note: &'a Note,
    id: &'a str,
    pub(super) framed: bool,
    /// What the client has got is all in it, from its beginning on.
    exact: bool,
    /// When the container was started; 0 for never.
    began: u64,
    ended: u64,
    pub(super) position: Position,
}

impl<'a> Log<'a> {
    pub(super) fn of(note: &'a Note, container: &'a Container, ended: Ended) -> Self {
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

    /// The container has been started.
    pub(super) fn has_begun(&self) -> bool {
        self.began > 0
    }

    pub(super) fn target(&self, follow: bool, stamps: bool) -> String {
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

    /// What the client has of it, to be passed over, and how many bytes it has beyond that. Where it does not tell what the
    /// client has, it is asked for what came later, and all of that is new.
    pub(super) async fn rest(&self, api: &Api) -> Option<(frames::Rest, u64)> {
        if !self.exact {
            return Some((frames::Rest::new(&self.position, [0; 3]), 0));
        }
        let stamps = self.note.kind == Kind::Logs && self.note.is("timestamps");
        let mut tally = Tally::new(self.ended, stamps);
        self.read(api, &self.target(false, true), |kind, message| tally.add(kind, message)).await?;
        let rest = frames::Rest::new(&self.position, tally.bytes);
        let lacks = tally.all.saturating_sub(rest.to_skip());
        Some((rest, lacks))
    }

    /// Reads all of a log that has an end. `None`: the engine broke off.
    pub(super) async fn read(
        &self,
        api: &Api,
        target: &str,
        mut take: impl FnMut(u8, &[u8]),
    ) -> Option<Reading> {
        let answer = api.containers.engine.send(Method::GET, target, Vec::new()).await.ok()?;
        if answer.status() != 200 {
            return Some(Reading::Refused);
        }
        let (mut body, mut messages) = (answer.into_body(), Messages::new(self.framed));
        while let Some(frame) = body.frame().await {
            let data: Bytes = frame.ok()?.into_data().unwrap_or_default();
            messages.push(&data);
            while let Some((kind, message)) = messages.next().ok()? {
                take(kind, message);
            }
        }
        Some(Reading::Done)
    }
}
