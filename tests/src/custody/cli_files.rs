//! What goes into containers and images by the CLI, and comes out of them.

use super::cli::{ends, ok};
use super::registry::IMAGE;
use super::scene::{Scene, same};
use super::tally::Verdict;
use crate::docker::Docker;

/// ps, inspect, version.
///
/// # Errors
/// What is wrong.
pub fn look(scene: &Scene, docker: &Docker) -> Verdict {
    let listed = ok(docker, &["ps", "--no-trunc", "-a", "--format", "{{.ID}} {{.Names}}"])?;
    same("ps", &listed.lines().any(|line| line == format!("{} standing", scene.standing)), &true)?;
    same("inspect", &ok(docker, &["inspect", "-f", "{{.State.Running}}", "standing"])?.as_str(), &"true")?;
    ok(docker, &["version", "--format", "{{.Server.APIVersion}}"]).map(drop)
}

/// An exec: its code and its bytes, once.
///
/// # Errors
/// What is wrong.
pub fn exec(scene: &Scene, docker: &Docker) -> Verdict {
    let name = scene.name();
    let script = format!("echo x >> /tmp/{name}; cat; echo err-{name} >&2; exit 6");
    let bytes: Vec<u8> = (0..20_000).flat_map(|n: u32| format!("{n}\n").into_bytes()).collect();
    let said = ends(docker, 6, &["exec", "-i", "standing", "sh", "-c", &script], &bytes)?;
    same("the bytes of an exec", &(said.stdout == bytes), &true)?;
    same("its stderr", &said.stderr, &format!("err-{name}\n"))?;
    let count =
        ok(docker, &["exec", "standing", "sh", "-c", &format!("wc -l < /tmp/{name}; rm /tmp/{name}")])?;
    same("an exec was done once", &count.as_str(), &"1")
}

/// A copy both ways.
///
/// # Errors
/// What is wrong.
pub fn copy(scene: &Scene, docker: &Docker) -> Verdict {
    let name = scene.name();
    let (from, to) =
        (scene.lab.host.path(&format!("{name}-in")), scene.lab.host.path(&format!("{name}-out")));
    let bytes: Vec<u8> = (0..50_000).flat_map(|n: u32| format!("{name} {n}\n").into_bytes()).collect();
    std::fs::write(&from, &bytes).expect("a file can be written");
    ok(docker, &["cp", &from.display().to_string(), &format!("standing:/tmp/{name}")])?;
    ok(docker, &["cp", &format!("standing:/tmp/{name}"), &to.display().to_string()])?;
    same("a file that was copied in and out", &(std::fs::read(&to).unwrap_or_default() == bytes), &true)?;
    let _ = (std::fs::remove_file(from), std::fs::remove_file(to));
    ok(docker, &["exec", "standing", "rm", &format!("/tmp/{name}")]).map(drop)
}

/// A commit, and what runs from it.
///
/// # Errors
/// What is wrong.
pub fn commit(scene: &Scene, docker: &Docker) -> Verdict {
    let (name, label) = (scene.name(), "custody=commit");
    ok(docker, &["create", "--name", &name, "-l", label, "busybox", "echo", &name])?;
    let image = ok(docker, &["commit", &name, &format!("image-{name}")])?;
    let found = ok(docker, &["image", "inspect", "-f", "{{.Id}} {{.Config.Cmd}}", &format!("image-{name}")])?;
    same("the committed image", &found, &format!("{image} [echo {name}]"))?;
    ok(docker, &["rm", &name])?;
    ok(docker, &["rmi", &format!("image-{name}")]).map(drop)
}

/// A build by the classic builder.
///
/// # Errors
/// What is wrong.
pub fn build(scene: &Scene, docker: &Docker) -> Verdict {
    let (name, tag) = (scene.name(), format!("built-{}", scene.name()));
    let file = format!("FROM busybox\nRUN echo {name} > /built && sleep 0.2\nCMD [\"cat\", \"/built\"]\n");
    let said = ends(docker, 0, &["build", "-q", "--no-cache", "-t", &tag, "-"], file.as_bytes())?;
    same("the id of a build", &said.text().starts_with("sha256:"), &true)?;
    same("what runs from it", &ok(docker, &["run", "--rm", &tag])?, &name)?;
    ok(docker, &["rmi", &tag]).map(drop)
}

/// A network, and a container that is connected to it.
///
/// # Errors
/// What is wrong.
pub fn network(scene: &Scene, docker: &Docker) -> Verdict {
    let name = scene.name();
    ok(docker, &["create", "--name", &name, "busybox", "true"])?;
    ok(docker, &["network", "connect", "side", &name])?;
    let shown =
        ok(docker, &["inspect", "-f", "{{range $k, $v := .NetworkSettings.Networks}}{{$k}} {{end}}", &name])?;
    same("its networks", &shown.split(' ').any(|one| one == "side"), &true)?;
    ok(docker, &["network", "disconnect", "side", &name])?;
    ok(docker, &["rm", &name]).map(drop)
}

/// A pull, and the image's removal; one at a time.
///
/// # Errors
/// What is wrong.
pub fn pull(scene: &Scene, docker: &Docker) -> Verdict {
    let (_turn, id) = scene.registry.turn(&scene.lab.host, &scene.lab.engine);
    let said = ok(docker, &["pull", IMAGE])?;
    same("a pull", &said.contains("Status: Downloaded newer image"), &true)?;
    same("what was pulled", &ok(docker, &["image", "inspect", "-f", "{{.Id}}", IMAGE])?.as_str(), &id)?;
    ok(docker, &["rmi", IMAGE]).map(drop)
}
