//! Bodies that cannot be rewritten: the engine refuses them itself, in its own words, wherever it is certain to.
//!
//! It must never let a body pass unread that the engine could take.

use selvedge_engine::client::message_of;
use selvedge_engine::gone::Unanswered;
use selvedge_engine::http::message::Answer;
use selvedge_engine::json::first_value;
use selvedge_engine::refusal::Refusal;

use super::request::Request;
use crate::api::Api;
use crate::then::Then;

/// A key that the engine reads and we do not, and a value that it cannot take.
const POISON: (&str, &str) = ("StdinOnce", "\"selvedge\"");

/// Whether a body begins with an object. All others the engine refuses, or takes for nothing (null).
pub(crate) fn is_object(body: &[u8]) -> bool {
    first_value(body).is_some_and(|(value, _)| value.starts_with(b"{"))
}

/// The first value of a body: what comes behind it some engines do not look at.
pub(crate) fn value(body: &[u8]) -> &[u8] {
    first_value(body).map_or(body, |(value, _)| value)
}

/// The rewritten value, with what came behind the client's own.
pub(crate) fn with_rest(mut value: Vec<u8>, body: &[u8]) -> Vec<u8> {
    value.extend_from_slice(first_value(body).map_or(&[][..], |(_, rest)| rest));
    value
}

/// What the engine says of a body that we cannot take. Go's decoder tells the first value of a wrong kind: one that
/// we put at the end is told only if the engine finds nothing else wrong, and then `refusal` is the answer.
///
/// # Errors
/// That refusal, or the engine cannot be asked.
pub(crate) async fn in_the_engines_words(
    api: &Api,
    request: &Request<'_>,
    refusal: Refusal,
) -> Result<Answer, Unanswered> {
    let then = Then::Words(refusal.clone());
    judged(request.order(api, &poisoned(request.body), then).await?, refusal)
}

/// The engine's answer, if it is about what the client wrote; else that refusal.
pub(crate) fn judged(answer: Answer, refusal: Refusal) -> Result<Answer, Unanswered> {
    let ours = answer.status < 400 || message_of(&answer.body).contains(POISON.0);
    if ours { Err(refusal.into()) } else { Ok(answer) }
}

fn poisoned(body: &[u8]) -> Vec<u8> {
    let value = value(body);
    let open = value.strip_suffix(b"}").unwrap_or(value);
    let comma = if open.trim_ascii_end() == b"{" { "" } else { "," };
    [open, format!("{comma}\"{}\":{}}}", POISON.0, POISON.1).as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poisoned_body_says_all_that_it_said() {
        assert_eq!(poisoned(b" {\"Env\":1} x"), b"{\"Env\":1,\"StdinOnce\":\"selvedge\"}");
        assert_eq!(poisoned(b"{ }"), b"{ \"StdinOnce\":\"selvedge\"}");
    }

    #[test]
    fn what_follows_the_value_stays_behind_it() {
        assert_eq!(with_rest(b"{2}".to_vec(), b" {} x"), b"{2} x");
        assert!(is_object(b" {}{}") && !is_object(b"[]") && !is_object(b"{") && !is_object(b"nullx"));
    }
}
