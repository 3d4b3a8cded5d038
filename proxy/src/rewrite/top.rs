//! `GET /containers/{id}/top`: with `--init` the engine's init has `wait` on its command line for as long as
//! it lives. The answer shows it without.

use selvedge_containers::find::ours;
use selvedge_engine::gone::Unanswered;
use selvedge_engine::http::message::Answer;
use selvedge_engine::object::{BodyError, Object};

use super::request::Request;
use crate::api::Api;

/// Answers the question for the processes of the container that the client calls `reference`.
pub(crate) async fn answer(api: &Api, request: &Request<'_>, reference: &str) -> Result<Answer, Unanswered> {
    let mut answer = request.ask(api).await?;
    if answer.status != 200 {
        return Ok(answer);
    }
    let Some(id) = ours(&api.containers, reference).await else { return Ok(answer) };
    if let Some(note) = api.containers.book.note(&id) {
        match restored(&answer.body, &note.wait) {
            Ok(Some(body)) => answer.body = body,
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "a list of processes that we cannot read passes as it is"),
        }
    }
    Ok(answer)
}

/// The list without `wait`; `None` when it does not stand there.
fn restored(body: &[u8], wait: &str) -> Result<Option<Vec<u8>>, BodyError> {
    let mut top = Object::parse(body)?;
    let mut processes = top.get::<Vec<Vec<String>>>("Processes")?.unwrap_or_default();
    let ours = format!(" {wait} ");
    let mut found = false;
    for cell in processes.iter_mut().flatten().filter(|cell| cell.contains(&ours)) {
        *cell = cell.replacen(&ours, " ", 1);
        found = true;
    }
    if !found {
        return Ok(None);
    }
    top.set("Processes", &processes);
    let mut out = top.to_bytes();
    if body.ends_with(b"\n") {
        out.push(b'\n');
    }
    Ok(Some(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(body: &str) -> Option<String> {
        restored(body.as_bytes(), "/dev/.w").unwrap().map(|body| String::from_utf8(body).unwrap())
    }

    #[test]
    fn wait_is_taken_out_of_inits_command_line() {
        let ours = "{\"Processes\":[[\"1\",\"/sbin/docker-init -- /dev/.w sleep 9\"],[\"2\",\"sleep 9\"]],\"Titles\":[\"PID\",\"CMD\"]}\n";
        let theirs = ours.replace("/dev/.w ", "");
        assert_eq!(shown(ours).unwrap(), theirs);
        assert_eq!(shown(&theirs), None);
    }
}
