//! Clients older than the engine takes (`--compat api-min=1.24`): their requests are asked with the oldest version that the
//! engine has, and `rewrite/old.rs` puts back what it left out of its answers since.
//!
//! Must never change the length of a head: what is on record of a client is counted in bytes.

use selvedge_engine::http::head::RequestHead;
use selvedge_engine::http::message::Buffered;
use selvedge_engine::refusal::Refusal;
use selvedge_engine::route::path_of;
use serde::Deserialize;

use crate::api::Api;

/// No engine refuses this one, or a later one.
const NEVER_REFUSED: u32 = 44;

/// What an engine says of its versions.
#[derive(Deserialize)]
struct Version {
    #[serde(rename = "MinAPIVersion", default)]
    oldest: String,
}

/// Lets an old request at the beginning of `client.unread` be one of a version that the engine takes.
///
/// # Errors
/// One that is older than clients may be here.
pub(super) async fn translate(
    api: &Api,
    client: &mut Buffered,
    head: &mut RequestHead,
) -> Result<(), Refusal> {
    let Some(min) = api.settings.api_min else { return Ok(()) };
    let Some(asked) = minor(path_of(&head.target)).filter(|asked| *asked < NEVER_REFUSED) else {
        return Ok(());
    };
    if asked < min {
        let message = format!(
            "client version 1.{asked} is too old. Minimum supported API version is 1.{min}, please upgrade your client to a newer version"
        );
        return Err(Refusal::new(400, message));
    }
    // Asked each time: the next engine may be another. One that is away answers nothing, and is waited for as always.
    let known = api.containers.engine.get::<Version>("/version").await.ok();
    let Some(oldest) = known.and_then(|known| minor(&format!("/v{}/", known.oldest))) else { return Ok(()) };
    head.asked_as = Some(asked);
    if asked < oldest {
        put(client, head, oldest);
    }
    Ok(())
}

/// N of a path that begins with `/v1.N/`, as two digits.
fn minor(path: &str) -> Option<u32> {
    let digits = path.strip_prefix("/v1.")?.get(..3)?.strip_suffix('/')?;
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Both versions have two digits.
fn put(client: &mut Buffered, head: &mut RequestHead, version: u32) {
    let Some(path) = head.target.find("/v1.").filter(|_| (10..100).contains(&version)) else { return };
    let (from, digits) = (path + "/v1.".len(), version.to_string());
    head.target.replace_range(from..from + 2, &digits);
    let line = head.method.len() + 1 + from;
    client.unread[line..line + 2].copy_from_slice(digits.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_of_two_digits_is_read() {
        assert_eq!(minor("/v1.24/containers/json"), Some(24));
        for path in ["/v1.9/info", "/v1.240/info", "/v2.24/info", "/info", "/v1.2x/info", "/v1.24"] {
            assert_eq!(minor(path), None, "{path}");
        }
    }
}
