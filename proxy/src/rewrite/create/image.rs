//! The image of a new container, which may appear, vanish or become another one while the create is under way.
//!
//! What is judged must be what is made: a create whose image was not seen must not succeed, nor one whose image became
//! another one after it was seen.

use hyper::Method;
use selvedge_engine::client::EngineError;
use selvedge_engine::gone::{EngineGone, Unanswered};
use selvedge_engine::http::message::Answer;
use selvedge_engine::model::{self, short};
use selvedge_engine::route::percent_encode;
use serde::Deserialize;

use super::sent::Body;
use crate::api::Api;
use crate::rewrite::body::with_rest;
use crate::rewrite::request::Request;
use crate::then::Then;

/// On a container whose image was not there when we looked: it must not stay.
pub(super) const UNSEEN: &str = "selvedge.internal.unseen";

/// An image as it was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Nothing for a container without an image.
    pub(super) id: String,
    pub(super) config: model::Config,
}

/// The image; `None` when there is no such one.
pub(super) async fn look(api: &Api, body: &Body) -> Result<Option<Seen>, Unanswered> {
    look_at(api, &name(body)?).await
}

/// The image's name, as the client calls it.
pub(super) fn name(body: &Body) -> Result<String, Unanswered> {
    Ok(body.top.get::<String>("Image")?.unwrap_or_default())
}

async fn look_at(api: &Api, name: &str) -> Result<Option<Seen>, Unanswered> {
    if name.is_empty() {
        return Ok(Some(Seen::default()));
    }
    match api.containers.engine.get::<model::Image>(&format!("/images/{}/json", percent_encode(name))).await {
        Ok(image) => Ok(Some(Seen { id: image.id, config: image.config.unwrap_or_default() })),
        Err(EngineError::Refused { .. }) => Ok(None),
        Err(error) => Err(EngineGone::from(error).into()),
    }
}

/// Lets the engine say in its own words that there is no such image. `None`: there is one now, and nothing was made.
pub(super) async fn refused(
    api: &Api,
    request: &Request<'_>,
    mut body: Body,
) -> Result<Option<Answer>, Unanswered> {
    body.labels.insert(UNSEEN.to_owned(), request.asked.when.to_string());
    body.top.set("Labels", &body.labels);
    let sent = with_rest(body.top.to_bytes(), request.body);
    unseen(api, request.order(api, &sent, Then::Unseen).await?).await
}

/// The engine's answer to a create whose image was not there; `None`: it made one, which is gone again.
pub(super) async fn unseen(api: &Api, answer: Answer) -> Result<Option<Answer>, Unanswered> {
    match created(&answer) {
        Some(id) => Ok(remove(api, &id).await.map(|()| None)?),
        None => Ok(Some(answer)),
    }
}

/// Whether a container that was just made is one of the image that was seen, by its name and its id; another one is removed.
pub(super) async fn is_of(api: &Api, id: &str, image: &(String, String)) -> Result<bool, Unanswered> {
    let made = match api.containers.engine.inspect(id).await {
        Ok(made) => made,
        Err(error) if error.is_not_found() => return Ok(true),
        Err(error) => return Err(EngineGone::from(error).into()),
    };
    if made.image == image.1 || is_another_name_of(api, &made.image, image).await? {
        return Ok(true);
    }
    tracing::info!(container = short(id), "its image became another one meanwhile; it is made again");
    remove(api, id).await?;
    Ok(false)
}

/// Whether the engine calls the image so that was seen: one that keeps its images in containerd may have several digests for
/// one. One that it cannot find by that name is told by its tag, which then must not have moved.
async fn is_another_name_of(
    api: &Api,
    id: &str,
    (name, seen): &(String, String),
) -> Result<bool, Unanswered> {
    match api.containers.engine.get::<model::Image>(&format!("/images/{}/json", percent_encode(id))).await {
        Ok(image) => Ok(image.id == *seen),
        Err(EngineError::Refused { .. }) => Ok(look_at(api, name).await?.is_some_and(|now| now.id == *seen)),
        Err(error) => Err(EngineGone::from(error).into()),
    }
}

/// Takes a container away that must not stay, and that no client knows of.
pub(super) async fn remove(api: &Api, id: &str) -> Result<(), EngineGone> {
    let path = format!("/containers/{id}?force=1&v=1");
    match api.containers.engine.expect(Method::DELETE, &path, Vec::new()).await {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}

/// The id of a container that was made.
pub(super) fn created(answer: &Answer) -> Option<String> {
    #[derive(Deserialize)]
    struct Created {
        #[serde(rename = "Id")]
        id: String,
    }
    let body = Some(&answer.body).filter(|_| answer.status == 201)?;
    serde_json::from_slice::<Created>(body).ok().map(|created| created.id)
}
