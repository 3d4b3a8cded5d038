//! Requests that end a container: before they are passed on, new connections are led to others.
//!
//! The request itself passes untouched. Only a container behind a virtual address is waited for; a worker that dies then is
//! followed by one that starts over with the same request.

use std::sync::Arc;
use std::time::Duration;

use selvedge_containers::find::ours;
use selvedge_containers::readiness::{self, AFTER_A_SIGNAL, is_stop_signal, stop_time};
use selvedge_engine::http::head::RequestHead;
use selvedge_engine::route::{path_of, percent_decode, query_of, query_value, split_version};

use crate::api::Api;
use crate::held::truth;

/// A container that a request is about to end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ending {
    /// As the client calls it.
    container: String,
    /// By then it has ended, or never will.
    within: Duration,
}

/// The container that the request is about to end; none for most requests.
pub(super) fn of(head: &RequestHead) -> Option<Ending> {
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
        "stop" => stop_time(value("t").as_deref()),
        "kill" if is_stop_signal(value("signal").as_deref()) => AFTER_A_SIGNAL,
        "remove" if truth(value("force")) => AFTER_A_SIGNAL,
        _ => return None,
    };
    Some(Ending { container: container.to_owned(), within })
}

/// Leads new connections to others, if the container stands behind a virtual address.
pub(super) async fn before(api: &Arc<Api>, head: &RequestHead) {
    let Some(Ending { container, within }) = of(head).filter(|_| api.containers.book.has_vips()) else {
        return;
    };
    let Some(id) = served_by(api, &container).await else { return };
    if api.containers.book.entry(&id).is_none_or(|entry| entry.vips().is_empty()) {
        return;
    }
    readiness::drain(&api.containers, &id, within, true).await;
}

/// Whose wire leads to the container: its own, or that of the one whose network it has joined.
async fn served_by(api: &Api, container: &str) -> Option<String> {
    match api.containers.book.joined_by(container) {
        Some(host) => Some(host),
        None => ours(&api.containers, container).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use selvedge_engine::http::head;

    fn within(request: &str) -> Option<(String, u64)> {
        let head = head::request(format!("{request} HTTP/1.1\r\nHost: d\r\n\r\n").as_bytes()).ok()??;
        of(&head).map(|ending| (ending.container, ending.within.as_secs()))
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
