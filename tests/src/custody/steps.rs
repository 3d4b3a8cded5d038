//! Single calls, each with what must be there before, and the engine's own word on what was done. Nothing but the call itself
//! goes by way of the worker.

use serde_json::{Value, json};

use super::raw::Raw;
use super::scene::{Scene, same};
use super::tally::{Trouble, Verdict};
use super::{cli_files, cli_lives};
use crate::docker::Docker;

/// What a call is about: a name, and the id of what was prepared.
#[derive(Debug, Clone)]
pub struct Subject {
    name: String,
    id: String,
}

/// A call.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Its name.
    pub name: &'static str,
    /// What must be there before.
    prepare: fn(&Scene, &mut Raw) -> Result<Subject, Trouble>,
    /// The call by way of the worker, and its answer.
    act: fn(&Scene, &mut Raw, &Subject) -> Verdict,
}

impl Step {
    /// Prepares it.
    ///
    /// # Errors
    /// What kept it from that.
    pub fn prepare(&self, scene: &Scene) -> Result<Subject, Trouble> {
        (self.prepare)(scene, &mut Raw::new(&scene.lab.socket(), false))
    }

    /// Makes the call on a connection of its own, and asks the engine what was done.
    ///
    /// # Errors
    /// What is wrong.
    pub fn act(&self, scene: &Scene, subject: &Subject) -> Verdict {
        (self.act)(scene, &mut Raw::new(&scene.lab.socket(), true), subject)
    }

    /// Takes away what it was about, past the worker.
    ///
    /// # Errors
    /// It does not go.
    pub fn clear(&self, scene: &Scene, subject: &Subject) -> Verdict {
        let mut engine = Raw::new(&scene.lab.engine.socket, false);
        for one in scene.labelled(&subject.name)? {
            let id = one["Id"].as_str().unwrap_or_default();
            engine.call("DELETE", &format!("/containers/{id}?force=1&v=1"), None)?;
        }
        Ok(())
    }
}

/// All of them.
pub const STEPS: [Step; 15] = [
    Step { name: "ping", prepare: nothing, act: |scene, raw, _| super::questions::ping(scene, raw) },
    Step { name: "list", prepare: nothing, act: |scene, raw, _| super::questions::list(scene, raw) },
    Step { name: "inspect", prepare: nothing, act: |scene, raw, _| super::questions::inspect(scene, raw) },
    Step { name: "create", prepare: nothing, act: |scene, raw, of| create(scene, raw, of, true) },
    Step {
        name: "create without a name",
        prepare: nothing,
        act: |scene, raw, of| create(scene, raw, of, false),
    },
    Step { name: "start", prepare: created, act: start },
    Step { name: "stop", prepare: started, act: |scene, raw, of| ended(scene, raw, of, "stop?t=1", None) },
    Step { name: "kill", prepare: started, act: |scene, raw, of| ended(scene, raw, of, "kill", Some(137)) },
    Step { name: "restart", prepare: started, act: restart },
    Step { name: "rename", prepare: created, act: rename },
    Step { name: "remove", prepare: created, act: |scene, raw, of| remove(scene, raw, of, "") },
    Step {
        name: "remove by force",
        prepare: started,
        act: |scene, raw, of| remove(scene, raw, of, "?force=1"),
    },
    Step { name: "wait", prepare: over, act: wait },
    Step { name: "commit", prepare: created, act: commit },
    Step { name: "exec", prepare: nothing, act: |scene, raw, _| super::questions::exec(scene, raw) },
];

/// What a CLI does, each of several calls.
pub const CLI_STEPS: [Step; 6] = [
    Step { name: "cli run", prepare: nothing, act: |scene, _, _| by_each(scene, cli_lives::run) },
    Step {
        name: "cli run -i",
        prepare: nothing,
        act: |scene, _, _| by_each(scene, cli_lives::run_with_stdin),
    },
    Step { name: "cli verbs", prepare: nothing, act: |scene, _, _| by_each(scene, cli_lives::verbs) },
    Step { name: "cli cp", prepare: nothing, act: |scene, _, _| by_each(scene, cli_files::copy) },
    Step { name: "cli build", prepare: nothing, act: |scene, _, _| by_each(scene, cli_files::build) },
    Step { name: "cli pull", prepare: nothing, act: |scene, _, _| by_each(scene, cli_files::pull) },
];

/// Once by each CLI, beside each other.
fn by_each(scene: &Scene, call: fn(&Scene, &Docker) -> Verdict) -> Verdict {
    std::thread::scope(|scope| {
        let calls: Vec<_> = scene.clis.iter().map(|cli| scope.spawn(move || call(scene, cli))).collect();
        calls.into_iter().try_for_each(|call| call.join().expect("no panic in here"))
    })
}

fn nothing(scene: &Scene, _: &mut Raw) -> Result<Subject, Trouble> {
    Ok(Subject { name: scene.name(), id: String::new() })
}

fn body(scene: &Scene, name: &str) -> Value {
    scene.body(name, "trap 'exit 0' TERM; while :; do sleep 0.1; done")
}

fn made(scene: &Scene, raw: &mut Raw, body: impl Fn(&str) -> Value) -> Result<Subject, Trouble> {
    let name = scene.name();
    let body = body(&name).to_string();
    let path = format!("/containers/create?name={name}");
    let id = raw.expect(201, "POST", &path, Some(body.as_bytes()))?.json()["Id"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    Ok(Subject { name, id })
}

fn created(scene: &Scene, raw: &mut Raw) -> Result<Subject, Trouble> {
    made(scene, raw, |name| body(scene, name))
}

fn started(scene: &Scene, raw: &mut Raw) -> Result<Subject, Trouble> {
    let subject = created(scene, raw)?;
    raw.expect(204, "POST", &format!("/containers/{}/start", subject.id), None)?;
    scene.marked(&subject.name, 1)?;
    Ok(subject)
}

fn over(scene: &Scene, raw: &mut Raw) -> Result<Subject, Trouble> {
    let subject = made(scene, raw, |name| scene.body(name, "exit 8"))?;
    raw.expect(204, "POST", &format!("/containers/{}/start", subject.id), None)?;
    raw.expect(200, "POST", &format!("/containers/{}/wait", subject.id), None)?;
    Ok(subject)
}

fn create(scene: &Scene, raw: &mut Raw, of: &Subject, named: bool) -> Verdict {
    let body = body(scene, &of.name).to_string();
    let query = if named { format!("?name={}", of.name) } else { String::new() };
    let told = raw.expect(201, "POST", &format!("/containers/create{query}"), Some(body.as_bytes()))?.json();
    scene.made(&of.name, 1)?;
    same("the id", &scene.labelled(&of.name)?[0]["Id"], &told["Id"])
}

fn state(scene: &Scene, of: &Subject) -> Result<Value, Trouble> {
    Ok(scene.engine(&format!("/containers/{}/json", of.id))?["State"].clone())
}

fn start(scene: &Scene, raw: &mut Raw, of: &Subject) -> Verdict {
    raw.expect(204, "POST", &format!("/containers/{}/start", of.id), None)?;
    scene.marked(&of.name, 1)?;
    same("it runs", &state(scene, of)?["Running"], &true.into())
}

fn restart(scene: &Scene, raw: &mut Raw, of: &Subject) -> Verdict {
    raw.expect(204, "POST", &format!("/containers/{}/restart?t=1", of.id), None)?;
    scene.marked(&of.name, 2)?;
    same("it runs", &state(scene, of)?["Running"], &true.into())
}

fn ended(scene: &Scene, raw: &mut Raw, of: &Subject, how: &str, code: Option<u32>) -> Verdict {
    raw.expect(204, "POST", &format!("/containers/{}/{how}", of.id), None)?;
    // The answer to a kill comes when the signal was sent.
    let mut engine = Raw::new(&scene.lab.engine.socket, false);
    engine.expect(200, "POST", &format!("/containers/{}/wait", of.id), None)?;
    scene.marked(&of.name, 1)?;
    let found = state(scene, of)?["ExitCode"].clone();
    code.map_or(Ok(()), |code| same("its code", &found, &code.into()))
}

fn rename(scene: &Scene, raw: &mut Raw, of: &Subject) -> Verdict {
    raw.expect(204, "POST", &format!("/containers/{}/rename?name={}-new", of.id, of.name), None)?;
    same(
        "its name",
        &scene.engine(&format!("/containers/{}/json", of.id))?["Name"],
        &format!("/{}-new", of.name).into(),
    )
}

fn remove(scene: &Scene, raw: &mut Raw, of: &Subject, query: &str) -> Verdict {
    raw.expect(204, "DELETE", &format!("/containers/{}{query}", of.id), None)?;
    scene.made(&of.name, 0)
}

fn wait(_: &Scene, raw: &mut Raw, of: &Subject) -> Verdict {
    let told = raw.expect(200, "POST", &format!("/containers/{}/wait", of.id), None)?.json();
    same("a wait", &told["StatusCode"], &json!(8))
}

fn commit(scene: &Scene, raw: &mut Raw, of: &Subject) -> Verdict {
    let path = format!("/commit?container={}&repo=image-{}", of.id, of.name);
    let told = raw.expect(201, "POST", &path, Some(b"{}"))?.json();
    let found = scene.engine(&format!("/images/image-{}/json", of.name))?;
    same("the image", &found["Id"], &told["Id"])?;
    let mut engine = Raw::new(&scene.lab.engine.socket, false);
    let images = scene.engine("/images/json?all=1")?;
    let nameless = images
        .as_array()
        .into_iter()
        .flatten()
        .filter(|image| image["RepoTags"][0] == "<none>:<none>")
        .count();
    engine.expect(200, "DELETE", &format!("/images/image-{}?force=1", of.name), None)?;
    match nameless {
        0 => Ok(()),
        more => Err(Trouble::Twice(format!("{more} images without a name beside {}", of.name))),
    }
}
