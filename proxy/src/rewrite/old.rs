//! What an old client finds in answers that its engine of today has left out (`--compat api-min`), and asks in words that it
//! does not know any more. Must never change an answer to a client of today.

use selvedge_engine::gone::Unanswered;
use selvedge_engine::http::message::Answer;
use selvedge_engine::object::{BodyError, Object};
use selvedge_engine::route::{path_of, percent_encode, query_of, query_value};

use super::request::Request;
use crate::api::Api;

/// Since this version the size of an image is told once.
const ONE_SIZE: u32 = 44;
/// Since this version images are found by a filter and not by a word of the query.
const FILTERS: u32 = 28;

/// Whether the client is older than this version.
fn is_before(request: &Request<'_>, version: u32) -> bool {
    request.head.asked_as.is_some_and(|asked| asked < version)
}

/// Answers `GET /images/json`.
pub(crate) async fn images(api: &Api, request: &Request<'_>) -> Result<Answer, Unanswered> {
    let mut head = request.head.clone();
    if is_before(request, FILTERS)
        && let Some(target) = with_filter(&head.target)
    {
        head.target = target;
    }
    let again = Request { head: &head, endpoint: request.endpoint.clone(), ..*request };
    let mut answer = again.ask(api).await?;
    if answer.status == 200 && is_before(request, ONE_SIZE) {
        let images = serde_json::from_slice::<Vec<Object>>(&answer.body);
        if let Ok(mut images) = images {
            images.iter_mut().for_each(|image| drop(with_size(image)));
            put(&mut answer, serde_json::to_vec(&images).unwrap_or_default());
        }
    }
    Ok(answer)
}

/// `filter=busybox` in today's words, unless those are there as well.
fn with_filter(target: &str) -> Option<String> {
    let query = query_of(target);
    let name = query_value(query, "filter").filter(|name| !name.is_empty())?;
    if query_value(query, "filters").is_some_and(|filters| !matches!(filters.as_str(), "" | "{}")) {
        return None;
    }
    let filters = serde_json::json!({"reference": {name: true}}).to_string();
    let kept = query.split('&').filter(|pair| !pair.starts_with("filter=") && !pair.starts_with("filters="));
    let kept: String = kept.map(|pair| format!("{pair}&")).collect();
    Some(format!("{}?{kept}filters={}", path_of(target), percent_encode(&filters)))
}

/// Puts back what an image's inspect had.
pub(super) fn image(request: &Request<'_>, answer: &mut Answer) {
    if answer.status != 200 || !is_before(request, ONE_SIZE) {
        return;
    }
    let Ok(mut image) = Object::parse(&answer.body) else { return };
    if with_size(&mut image).is_ok() {
        put(answer, image.to_bytes());
    }
}

fn with_size(image: &mut Object) -> Result<(), BodyError> {
    if let (Some(size), false) = (image.get::<u64>("Size")?, image.has("VirtualSize")) {
        image.set("VirtualSize", &size);
    }
    Ok(())
}

/// Answers `GET /version`: with the oldest version that is served here, by which clients decide whether they ask at all.
pub(crate) async fn version(api: &Api, request: &Request<'_>) -> Result<Answer, Unanswered> {
    let mut answer = request.ask(api).await?;
    if let (200, Some(min)) = (answer.status, api.settings.api_min)
        && let Ok(mut top) = Object::parse(&answer.body)
    {
        lower(&mut top, min);
        if let Ok(Some(mut components)) = top.get::<Vec<Object>>("Components") {
            components.iter_mut().for_each(|one| drop(one.edit("Details", |details| lower(details, min))));
            top.set("Components", &components);
        }
        put(&mut answer, top.to_bytes());
    }
    Ok(answer)
}

fn lower(object: &mut Object, min: u32) {
    let oldest = object.get::<String>("MinAPIVersion").ok().flatten();
    let oldest = oldest.and_then(|oldest| oldest.strip_prefix("1.")?.parse::<u32>().ok());
    if oldest.is_some_and(|oldest| oldest > min) {
        object.set("MinAPIVersion", &format!("1.{min}"));
    }
}

/// The engine ends its JSON with a line feed.
fn put(answer: &mut Answer, mut body: Vec<u8>) {
    body.push(b'\n');
    answer.body = body;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_becomes_a_filter() {
        let target = with_filter("/v1.40/images/json?all=0&filter=busybox").unwrap();
        assert_eq!(query_value(query_of(&target), "all").as_deref(), Some("0"));
        let filters = query_value(query_of(&target), "filters").unwrap();
        assert_eq!(filters, r#"{"reference":{"busybox":true}}"#);
        assert_eq!(with_filter("/images/json?all=1"), None);
        assert_eq!(with_filter("/images/json?filter=a&filters=%7B%22x%22%3A%5B%5D%7D"), None);
    }
}
