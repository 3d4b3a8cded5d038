//! What the engine will start: entrypoint and command of the create and of the image, merged as the engine itself does.

use selvedge_containers::label::LABEL;
use selvedge_containers::place::Place;
use selvedge_engine::model;
use selvedge_engine::object::{BodyError, Object};
use serde::Deserialize;

use super::sent::Body;

/// Entrypoint and command as the engine itself would merge them (moby: `merge` in `daemon/commit.go` and
/// `verifyContainerConfig`): null, `[]`, `[""]` and a bare string all mean different things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) entrypoint: Option<Vec<String>>,
    pub(super) cmd: Option<Vec<String>>,
}

impl Command {
    pub(super) fn merge(body: &Body, image: &model::Config) -> Result<Self, BodyError> {
        let mut entrypoint = words(&body.top, "Entrypoint")?;
        let mut cmd = words(&body.top, "Cmd")?;
        if entrypoint.as_ref().is_none_or(Vec::is_empty) {
            if cmd.as_ref().is_none_or(Vec::is_empty) {
                cmd.clone_from(&image.cmd);
            }
            if entrypoint.is_none() {
                entrypoint = without_wait(inherited(image));
            }
        }
        if entrypoint.as_ref().is_some_and(|words| words.len() == 1 && words[0].is_empty()) {
            entrypoint = None;
        }
        Ok(Self { entrypoint, cmd })
    }

    pub(super) fn is_empty(&self) -> bool {
        [&self.entrypoint, &self.cmd].into_iter().flatten().all(Vec::is_empty)
    }
}

/// A list of words, or one word (moby: `strslice.StrSlice`).
fn words(object: &Object, key: &str) -> Result<Option<Vec<String>>, BodyError> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Words {
        Many(Vec<Option<String>>),
        One(String),
    }
    Ok(object.get::<Words>(key)?.map(|words| match words {
        Words::Many(list) => list.into_iter().map(Option::unwrap_or_default).collect(),
        Words::One(word) => vec![word],
    }))
}

/// An image's entrypoint; the empty list that our commits write for null is null again.
fn inherited(image: &model::Config) -> Option<Vec<String>> {
    let committed = image.labels.as_ref().is_some_and(|labels| labels.contains_key(LABEL));
    image.entrypoint.clone().filter(|words| !(committed && words.is_empty()))
}

/// An image that was committed behind our back carries our own entrypoint.
pub(super) fn without_wait(entrypoint: Option<Vec<String>>) -> Option<Vec<String>> {
    let mut words = entrypoint?;
    if words.first().is_some_and(|word| Place::at(word).is_some()) {
        words.remove(0);
    }
    Some(words)
}
