//! Requests that end a container: before they are passed on, new connections are led to others.
//!
//! The request itself passes untouched. Only a container behind a virtual address is waited for, and while we wait the
//! keeper has the client: a worker that dies then is followed by one that begins anew with the same request.

use std::sync::Arc;
use std::time::Duration;

use super::head::RequestHead;
use super::message::Buffered;
use super::promise;
use crate::held::truth;
use crate::rewrite::start;
use crate::route::{path_of, percent_decode, query_of, query_value, split_version};
use crate::serving;
use crate::worker::Worker;

/// A program that was sent a signal and runs on after this time meant something else by it.
pub(crate) const AFTER_A_SIGNAL: Duration = Duration::from_secs(60);
/// How long the engine waits for a container where nobody says something else (`docker stop`).
const ENGINE_S_OWN: u64 = 10;
/// What the engine may need beyond that.
const LATE: u64 = 60;

/// A container that a request is about to end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parting {
    /// As the client calls it.
    container: String,
    /// By then it has ended, or never will.
    within: Duration,
}

/// Whom the request is about to end; nobody, mostly.
pub(super) fn of(head: &RequestHead) -> Option<Parting> {
    // Most requests are none of these, and pay nothing.
    if !matches!(head.method.as_str(), "POST" | "DELETE") {
        return None;
    }
    let path = percent_decode(path_of(&head.target))?;
    let (_, bare) = split_version(&path);
    let (container, verb) = match (head.method.as_str(), bare.strip_prefix("/containers/")?) {
        ("DELETE", name) => (name, "remove"),
        ("POST", rest) => rest.rsplit_once('/')?,
        _ => return None,
    };
    let value = |key: &str| query_value(query_of(&head.target), key);
    let within = match verb {
        "stop" => time(value("t").as_deref()),
        "kill" if is_parting(value("signal").as_deref()) => AFTER_A_SIGNAL,
        "remove" if truth(value("force")) => AFTER_A_SIGNAL,
        _ => return None,
    };
    Some(Parting { container: container.to_owned(), within })
}

/// By when a container has ended that is stopped with this `t`, in seconds; a negative one waits for ever.
pub(crate) fn time(t: Option<&str>) -> Duration {
    let seconds = t.map_or(Ok(ENGINE_S_OWN as i64), str::parse::<i64>).unwrap_or(ENGINE_S_OWN as i64);
    let seconds = u64::try_from(seconds).map_or(24 * 3600, |seconds| seconds.min(24 * 3600));
    Duration::from_secs(seconds + LATE)
}

/// Whether a program that gets this signal mostly ends: no signal is SIGKILL, and so is what cannot be caught.
pub(crate) fn is_parting(signal: Option<&str>) -> bool {
    let signal = signal.unwrap_or_default().to_ascii_uppercase();
    let name = signal.strip_prefix("SIG").unwrap_or(&signal);
    matches!(name, "" | "KILL" | "9" | "TERM" | "15" | "INT" | "2" | "QUIT" | "3")
}

/// Leads new connections to others, if the container stands behind a virtual address.
pub(super) async fn before(worker: &Arc<Worker>, client: &Buffered, head: &RequestHead, listener: &str) {
    let Some(Parting { container, within }) = of(head).filter(|_| worker.book.has_vips()) else { return };
    let Some(id) = start::ours(worker, &container).await else { return };
    if worker.book.note(&id).is_none_or(|note| note.vips.is_empty()) {
        return;
    }
    let kept = promise::hold(worker, client, head, listener);
    serving::drain(worker, &id, within, true).await;
    if let Some(kept) = kept {
        worker.keeper.unpark(kept).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::head;

    fn within(request: &str) -> Option<(String, u64)> {
        let head = head::request(format!("{request} HTTP/1.1\r\nHost: d\r\n\r\n").as_bytes()).ok()??;
        of(&head).map(|parting| (parting.container, parting.within.as_secs()))
    }

    #[test]
    fn what_ends_a_container_is_known() {
        let db = |seconds| Some(("db".to_owned(), seconds));
        for (request, expected) in [
            ("POST /v1.41/containers/db/stop", db(70)),
            ("POST /containers/db/stop?t=3", db(63)),
            ("POST /containers/db/stop?t=-1", db(24 * 3600 + 60)),
            ("POST /containers/db/kill", db(60)),
            ("POST /containers/db/kill?signal=SIGTERM", db(60)),
            ("POST /containers/db/kill?signal=HUP", None),
            ("POST /containers/db/kill?signal=WINCH", None),
            ("DELETE /v1.41/containers/db?force=1&v=1", db(60)),
            ("DELETE /v1.41/containers/db?v=1", None),
            ("POST /containers/db/start", None),
            ("GET /containers/db/stop", None),
            ("POST /images/x/stop", None),
        ] {
            assert_eq!(within(request), expected, "{request}");
        }
    }
}
