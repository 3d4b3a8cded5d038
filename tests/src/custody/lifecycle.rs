//! Containers' lives by hand: each step is done once, and each answer is so.

use serde_json::{Value, json};

use super::raw::Raw;
use super::scene::{Scene, same};
use super::tally::{Trouble, Verdict};

/// A container that an operation has made.
struct Made {
    name: String,
    id: String,
}

/// Creates one of this name; the answer's id is that of the only container with its label.
fn create(scene: &Scene, raw: &mut Raw, body: &Value, named: bool) -> Result<Made, Trouble> {
    let name = body["Labels"]["custody"].as_str().unwrap_or_default().to_owned();
    let query = if named { format!("?name={name}") } else { String::new() };
    let told =
        raw.expect(201, "POST", &format!("/containers/create{query}"), Some(body.to_string().as_bytes()))?;
    let id = told.json()["Id"].as_str().unwrap_or_default().to_owned();
    scene.made(&name, 1)?;
    same("the created one's id", &scene.labelled(&name)?[0]["Id"].as_str(), &Some(id.as_str()))?;
    Ok(Made { name, id })
}

fn state(raw: &mut Raw, id: &str) -> Result<Value, Trouble> {
    Ok(raw.expect(200, "GET", &format!("/containers/{id}/json"), None)?.json())
}

fn remove(scene: &Scene, raw: &mut Raw, made: &Made) -> Verdict {
    raw.expect(204, "DELETE", &format!("/containers/{}?force=1&v=1", made.id), None)?;
    scene.made(&made.name, 0)
}

fn post(raw: &mut Raw, status: u16, id: &str, what: &str) -> Verdict {
    raw.expect(status, "POST", &format!("/containers/{id}/{what}"), None).map(drop)
}

/// Creates of every kind, and their removal.
///
/// # Errors
/// What is wrong.
pub fn creates(scene: &Scene, raw: &mut Raw) -> Verdict {
    let modes = ["default", "bridge", "none", "host", "container:standing", "side"];
    let name = scene.name();
    let nth: usize = name[2..].parse().unwrap_or(0);
    let mut body = scene.body(&name, "true");
    body["HostConfig"]["NetworkMode"] = modes[nth % modes.len()].into();
    if nth.is_multiple_of(4) {
        body["Entrypoint"] = json!(["sh"]);
        body["Cmd"] = json!(["-c", "true"]);
    }
    let made = create(scene, raw, &body, nth.is_multiple_of(2))?;
    let mode = |shown: Value| shown["HostConfig"]["NetworkMode"].clone();
    let engines = mode(scene.engine(&format!("/containers/{}/json", made.id))?);
    same("its network mode", &mode(state(raw, &made.id)?), &engines)?;
    remove(scene, raw, &made)
}

/// Create, start, wait, logs, remove.
///
/// # Errors
/// What is wrong.
pub fn life(scene: &Scene, raw: &mut Raw) -> Verdict {
    let name = scene.name();
    let body = scene.body(&name, "ip addr show selvedge0 | grep -c inet; exit 3");
    let made = create(scene, raw, &body, true)?;
    post(raw, 204, &made.id, "start")?;
    let told = raw.expect(200, "POST", &format!("/containers/{}/wait", made.id), None)?.json();
    same("the code of a wait", &told["StatusCode"], &3.into())?;
    scene.marked(&made.name, 1)?;
    let told = raw.expect(200, "GET", &format!("/containers/{}/logs?stdout=1&stderr=1", made.id), None)?;
    let said = super::questions::frames(&told.body).map(|(out, err)| out + &err);
    same("its logs", &said.as_deref(), &Some("1\n"))?;
    remove(scene, raw, &made)
}

/// Start, stop, start, restart, kill: each once.
///
/// # Errors
/// What is wrong.
pub fn restarts(scene: &Scene, raw: &mut Raw) -> Verdict {
    let name = scene.name();
    let body = scene.body(&name, "trap 'exit 0' TERM; while :; do sleep 0.1; done");
    let made = create(scene, raw, &body, true)?;
    post(raw, 204, &made.id, "start")?;
    scene.marked(&made.name, 1)?;
    post(raw, 304, &made.id, "start")?;
    post(raw, 204, &made.id, "stop?t=5")?;
    post(raw, 304, &made.id, "stop?t=5")?;
    post(raw, 204, &made.id, "start")?;
    scene.marked(&made.name, 2)?;
    post(raw, 204, &made.id, "restart?t=5")?;
    scene.marked(&made.name, 3)?;
    post(raw, 204, &made.id, "kill?signal=KILL")?;
    let told = raw.expect(200, "POST", &format!("/containers/{}/wait", made.id), None)?.json();
    same("the code of a kill", &told["StatusCode"], &137.into())?;
    post(raw, 409, &made.id, "kill")?;
    scene.marked(&made.name, 3)?;
    remove(scene, raw, &made)
}

/// Rename, update, connect, disconnect: seen at once.
///
/// # Errors
/// What is wrong.
pub fn changes(scene: &Scene, raw: &mut Raw) -> Verdict {
    let name = scene.name();
    let made = create(scene, raw, &scene.body(&name, "true"), true)?;
    post(raw, 204, &made.id, &format!("rename?name={name}-new"))?;
    same("its new name", &state(raw, &made.id)?["Name"], &format!("/{name}-new").into())?;
    raw.expect(404, "GET", &format!("/containers/{name}/json"), None)?;
    let update = br#"{"CpuShares":512}"#;
    raw.expect(200, "POST", &format!("/containers/{}/update", made.id), Some(update))?;
    same("its shares", &state(raw, &made.id)?["HostConfig"]["CpuShares"], &512.into())?;
    let of = json!({"Container": made.id}).to_string();
    raw.expect(200, "POST", "/networks/side/connect", Some(of.as_bytes()))?;
    let networks = |shown: &Value| shown["NetworkSettings"]["Networks"].get("side").is_some();
    same("connected", &networks(&state(raw, &made.id)?), &true)?;
    raw.expect(200, "POST", "/networks/side/disconnect", Some(of.as_bytes()))?;
    same("disconnected", &networks(&state(raw, &made.id)?), &false)?;
    remove(scene, raw, &made)
}

/// A commit, and an archive both ways.
///
/// # Errors
/// What is wrong.
pub fn copies(scene: &Scene, raw: &mut Raw) -> Verdict {
    let name = scene.name();
    let made = create(scene, raw, &scene.body(&name, "true"), true)?;
    let archive = archive(&name, name.repeat(1000).as_bytes());
    raw.expect(200, "PUT", &format!("/containers/{}/archive?path=/root", made.id), Some(&archive))?;
    let told = raw.expect(200, "GET", &format!("/containers/{}/archive?path=/root/{name}", made.id), None)?;
    let content = told.body.get(512..512 + 1000 * name.len()).unwrap_or_default();
    same("a file that was copied in and out", &(content == name.repeat(1000).as_bytes()), &true)?;
    let path = format!("/commit?container={}&repo=image-{name}", made.id);
    let told = raw.expect(201, "POST", &path, Some(b"{}"))?.json();
    let image = told["Id"].as_str().unwrap_or_default().to_owned();
    let found = raw.expect(200, "GET", &format!("/images/image-{name}/json"), None)?.json();
    same("the committed image", &found["Id"].as_str(), &Some(image.as_str()))?;
    raw.expect(200, "DELETE", &format!("/images/image-{name}?force=1"), None)?;
    remove(scene, raw, &made)
}

/// A tar archive of one file.
fn archive(name: &str, content: &[u8]) -> Vec<u8> {
    let mut head = vec![0_u8; 512];
    let mut put = |at: usize, text: &str| head[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644");
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{:011o}", content.len()));
    put(136, "00000000000");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar");
    put(263, "00");
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut all = [&head[..], content].concat();
    all.resize(all.len().next_multiple_of(512) + 1024, 0);
    all
}
