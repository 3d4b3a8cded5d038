//! Containers' lives by the CLI.

use super::cli::{Call, ends, ok};
use super::scene::{Scene, same};
use super::tally::{Trouble, Verdict};
use crate::docker::Docker;

fn label(name: &str) -> String {
    format!("custody={name}")
}

/// A foreground run.
///
/// # Errors
/// What is wrong.
pub fn run(scene: &Scene, docker: &Docker) -> Verdict {
    let (name, bind) = (scene.name(), scene.bind());
    let script = format!("{}; echo said-{name}; echo told-{name} >&2; exit 9", Scene::mark(&name));
    let label = label(&name);
    let said =
        ends(docker, 9, &["run", "--rm", "-l", &label, "-v", &bind, "busybox", "sh", "-c", &script], b"")?;
    same("stdout", &said.text(), &format!("said-{name}\n"))?;
    same("stderr", &said.stderr, &format!("told-{name}\n"))?;
    scene.marked(&name, 1)?;
    gone(scene, &name)
}

/// It is removed, if not in the same moment.
fn gone(scene: &Scene, name: &str) -> Verdict {
    for _ in 0..500 {
        if scene.labelled(name)?.is_empty() {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Err(Trouble::Wrong(format!("{name} is still there after --rm")))
}

/// Bytes in and out of a foreground run.
///
/// # Errors
/// What is wrong.
pub fn run_with_stdin(scene: &Scene, docker: &Docker) -> Verdict {
    let name = scene.name();
    let bytes: Vec<u8> = (0..60_000).flat_map(|n: u32| format!("{name} {n}\n").into_bytes()).collect();
    let said = ends(docker, 0, &["run", "-i", "--rm", "-l", &label(&name), "busybox", "cat"], &bytes)?;
    same("as many bytes came back", &said.stdout.len(), &bytes.len())?;
    same("each byte came back", &(said.stdout == bytes), &true)?;
    gone(scene, &name)
}

/// In the background, with wait, logs and removal.
///
/// # Errors
/// What is wrong.
pub fn run_detached(scene: &Scene, docker: &Docker) -> Verdict {
    let (name, bind) = (scene.name(), scene.bind());
    let script = format!("{}; echo said-{name}; sleep 0.3; exit 4", Scene::mark(&name));
    let label = label(&name);
    let arguments = ["run", "-d", "--name", &name, "-l", &label, "-v", &bind, "busybox", "sh", "-c", &script];
    let id = ok(docker, &arguments)?;
    same("the id", &scene.labelled(&name)?.first().and_then(|one| one["Id"].as_str()), &Some(id.as_str()))?;
    same("a wait", &ok(docker, &["wait", &name])?.as_str(), &"4")?;
    scene.marked(&name, 1)?;
    same("logs", &ok(docker, &["logs", &name])?, &format!("said-{name}"))?;
    same(
        "inspect",
        &ok(docker, &["inspect", "-f", "{{.Id}} {{.State.ExitCode}}", &name])?,
        &format!("{id} 4"),
    )?;
    ok(docker, &["rm", &name])?;
    scene.made(&name, 0)
}

/// create, start, stop, restart, kill, rename, rm.
///
/// # Errors
/// What is wrong.
pub fn verbs(scene: &Scene, docker: &Docker) -> Verdict {
    let (name, bind) = (scene.name(), scene.bind());
    let script = format!("{}; trap 'exit 0' TERM; while :; do sleep 0.1; done", Scene::mark(&name));
    let label = label(&name);
    let id =
        ok(docker, &["create", "--name", &name, "-l", &label, "-v", &bind, "busybox", "sh", "-c", &script])?;
    scene.made(&name, 1)?;
    ok(docker, &["start", &name])?;
    scene.marked(&name, 1)?;
    ok(docker, &["restart", "-t", "5", &name])?;
    scene.marked(&name, 2)?;
    ok(docker, &["stop", "-t", "5", &name])?;
    ok(docker, &["start", &id])?;
    scene.marked(&name, 3)?;
    let renamed = format!("{name}-new");
    ok(docker, &["rename", &name, &renamed])?;
    ok(docker, &["kill", &renamed])?;
    same("its code", &ok(docker, &["wait", &renamed])?.as_str(), &"137")?;
    scene.marked(&name, 3)?;
    ok(docker, &["rm", &renamed])?;
    scene.made(&name, 0)
}

/// Logs and events that are followed until the end.
///
/// # Errors
/// What is wrong.
pub fn follow(scene: &Scene, docker: &Docker) -> Verdict {
    let name = scene.name();
    let script = "i=0; while [ $i -lt 40 ]; do echo $i; i=$((i+1)); sleep 0.05; done";
    ok(docker, &["create", "--name", &name, "-l", &label(&name), "busybox", "sh", "-c", script])?;
    let filter = format!("container={name}");
    // From before its start on, so that there is nothing to wait for.
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let since = clock.unwrap_or_default().as_secs().to_string();
    let format = ["--format", "{{.Action}}"];
    let arguments = ["events", "--filter", &filter, "--since", &since];
    let events = Call::start(docker, &[&arguments[..], &format[..]].concat(), b"");
    ok(docker, &["start", &name])?;
    let said = ends(docker, 0, &["logs", "-f", &name], b"")?.text();
    same("logs that were followed", &said, &(0..40).map(|n| format!("{n}\n")).collect::<String>())?;
    let heard = events.until_said("die")?;
    let of = |what: &str| heard.iter().filter(|one| *one == what).count();
    same("no event of its start is there twice", &(of("start") < 2), &true)?;
    ok(docker, &["rm", &name])?;
    scene.made(&name, 0)
}
