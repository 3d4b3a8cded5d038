//! `GET /containers/{id}/top`: without `wait` on the command line of the engine's init.
//!
//! With `--init` the first process is the engine's, and keeps on its command line what it was told to run:
//! `docker-init -- WAIT PROGRAM`. Our own processes have become the user's program and need no change.

use super::Request;
use super::start::ours;
use crate::docker::error::Refusal;
use crate::docker::object::{BodyError, Object};
use crate::front::message::Answer;
use crate::worker::Worker;

/// Answers the question for the processes of the container that the client calls `reference`.
pub(crate) async fn answer(
    worker: &Worker,
    request: &Request<'_>,
    reference: &str,
) -> Result<Answer, Refusal> {
    let mut answer = request.ask(worker, b"").await?;
    if answer.status != 200 {
        return Ok(answer);
    }
    let Some(id) = ours(worker, reference).await else { return Ok(answer) };
    if let Some(note) = worker.book.note(&id) {
        match restored(&answer.body, &note.wait) {
            Ok(Some(body)) => answer.body = body,
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "a list of processes that we cannot read passes as it is"),
        }
    }
    Ok(answer)
}

/// The body without our part; `None` when there is none of it.
fn restored(body: &[u8], wait: &str) -> Result<Option<Vec<u8>>, BodyError> {
    let mut top = Object::parse(body)?;
    let Some(mut processes) = top.get::<Vec<Vec<String>>>("Processes")? else { return Ok(None) };
    let told = format!(" -- {wait} ");
    let mut changed = false;
    for cell in processes.iter_mut().flatten() {
        // Of another program that says the same on its command line only what the user gave is there.
        if is_init(cell) && cell.contains(&told) {
            *cell = cell.replacen(&told, " -- ", 1);
            changed = true;
        }
    }
    if !changed {
        return Ok(None);
    }
    top.set("Processes", &processes);
    let mut out = top.to_bytes();
    if body.ends_with(b"\n") {
        out.push(b'\n');
    }
    Ok(Some(out))
}

// The engine mounts its init at /sbin/docker-init (moby: `inContainerInitPath`).
fn is_init(cell: &str) -> bool {
    cell.starts_with("/sbin/docker-init ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_init_of_the_engine_shows_the_users_program() {
        let body = r#"{"Processes":[["1","/sbin/docker-init -- /dev/.w sleep 9"],["2","sleep 9"]],"Titles":["PID","CMD"]}"#;
        let out = restored(body.as_bytes(), "/dev/.w").unwrap().unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), body.replace("/dev/.w ", ""));
    }

    #[test]
    fn all_else_passes_as_it_is() {
        for body in [
            r#"{"Processes":[["1","echo -- /dev/.w x"]],"Titles":["PID","CMD"]}"#,
            r#"{"Processes":null}"#,
            "{}",
        ] {
            assert_eq!(restored(body.as_bytes(), "/dev/.w").unwrap(), None, "{body}");
        }
    }
}
