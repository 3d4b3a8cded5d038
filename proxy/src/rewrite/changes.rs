//! `GET /containers/{id}/changes`: without the mount point of `wait`.
//!
//! The engine makes mount points on the container's disk whenever it mounts a container's volumes for itself,
//! as for `docker cp`; also where the container has a tmpfs of its own over it.

use selvedge_containers::find::ours;
use selvedge_engine::gone::Unanswered;
use selvedge_engine::http::message::Answer;
use selvedge_engine::object::{BodyError, Object};

use super::request::Request;
use crate::api::Api;

/// Answers the question for the changes of the container that the client calls `reference`.
pub(crate) async fn answer(api: &Api, request: &Request<'_>, reference: &str) -> Result<Answer, Unanswered> {
    let mut answer = request.ask(api).await?;
    if answer.status != 200 {
        return Ok(answer);
    }
    let Some(id) = ours(&api.containers, reference).await else { return Ok(answer) };
    if let Some(note) = api.containers.book.note(&id) {
        match restored(&answer.body, &note.wait) {
            Ok(body) => answer.body = body,
            Err(error) => tracing::warn!(%error, "a list of changes that we cannot read passes as it is"),
        }
    }
    Ok(answer)
}

fn restored(body: &[u8], wait: &str) -> Result<Vec<u8>, BodyError> {
    let unreadable = |error: serde_json::Error| BodyError::Syntax(error.to_string());
    let changes: Vec<Object> =
        serde_json::from_slice::<Option<_>>(body).map_err(unreadable)?.unwrap_or_default();
    let path = |change: &Object| change.get::<String>("Path").ok().flatten().unwrap_or_default();
    let parent = wait.rsplit_once('/').map_or("", |(parent, _)| parent);
    let inside = format!("{parent}/");
    let is_there = changes.iter().any(|change| path(change) == wait);
    // The directory counts as changed because of the mount point; when it has other changes it stays.
    let only_child = is_there
        && !parent.is_empty()
        && !changes.iter().any(|change| path(change) != wait && path(change).starts_with(&inside));
    let is_ours = |change: &Object| path(change) == wait || (only_child && path(change) == parent);
    let kept: Vec<&Object> = changes.iter().filter(|change| !is_ours(change)).collect();
    // The engine says null for no changes.
    let kept = Some(kept).filter(|kept| !kept.is_empty());
    let mut out = serde_json::to_vec(&kept).map_err(unreadable)?;
    if body.ends_with(b"\n") {
        out.push(b'\n');
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(body: &str, wait: &str) -> String {
        String::from_utf8(restored(body.as_bytes(), wait).unwrap()).unwrap()
    }

    #[test]
    fn the_mount_point_and_its_directory_are_hidden() {
        let ours = r#"[{"Path":"/dev","Kind":0},{"Path":"/dev/.w","Kind":1},{"Path":"/a","Kind":1}]"#;
        assert_eq!(left(ours, "/dev/.w"), r#"[{"Path":"/a","Kind":1}]"#);
        assert_eq!(left(r#"[{"Path":"/.w","Kind":1}]"#, "/.w"), "null");
        assert_eq!(left("null\n", "/dev/.w"), "null\n");
    }

    #[test]
    fn a_directory_with_changes_of_its_own_stays() {
        let both = r#"[{"Path":"/dev","Kind":0},{"Path":"/dev/.w","Kind":1},{"Path":"/dev/x","Kind":1}]"#;
        assert_eq!(left(both, "/dev/.w"), r#"[{"Path":"/dev","Kind":0},{"Path":"/dev/x","Kind":1}]"#);
        let without = r#"[{"Path":"/dev","Kind":0}]"#;
        assert_eq!(left(without, "/dev/.w"), without);
    }
}
