//! Questions that change nothing: each is answered, and right.

use serde_json::Value;

use super::raw::Raw;
use super::scene::{Scene, same};
use super::tally::{Trouble, Verdict};

/// A ping.
///
/// # Errors
/// What is wrong.
pub fn ping(_: &Scene, raw: &mut Raw) -> Verdict {
    let told = raw.expect(200, "GET", "/_ping", None)?;
    same("a ping", &told.text().as_str(), &"OK")
}

/// The version.
///
/// # Errors
/// What is wrong.
pub fn version(_: &Scene, raw: &mut Raw) -> Verdict {
    let told = raw.expect(200, "GET", "/version", None)?.json();
    same("a version", &told["ApiVersion"].is_string(), &true)
}

/// The list.
///
/// # Errors
/// What is wrong.
pub fn list(scene: &Scene, raw: &mut Raw) -> Verdict {
    let told = raw.expect(200, "GET", "/containers/json?all=1", None)?.json();
    let list = told.as_array().cloned().unwrap_or_default();
    let standing = list.iter().find(|one| one["Id"] == scene.standing.as_str());
    same("the list has the standing one", &standing.map(|one| one["State"].clone()), &Some("running".into()))
}

/// An inspect of a container that runs.
///
/// # Errors
/// What is wrong.
pub fn inspect(scene: &Scene, raw: &mut Raw) -> Verdict {
    let told = raw.expect(200, "GET", "/containers/standing/json", None)?.json();
    same("its id", &told["Id"].as_str(), &Some(scene.standing.as_str()))?;
    let address = told["NetworkSettings"]["IPAddress"].as_str().unwrap_or_default().to_owned();
    same("its address is ours", &address.starts_with("10.32."), &true)?;
    same("its command", &told["Config"]["Cmd"], &serde_json::json!(["sleep", "100000"]))
}

/// One of what is not there.
///
/// # Errors
/// What is wrong.
pub fn absent(_: &Scene, raw: &mut Raw) -> Verdict {
    raw.expect(404, "GET", "/containers/nonexistent/json", None).map(drop)
}

/// Images, by the short way.
///
/// # Errors
/// What is wrong.
pub fn images(_: &Scene, raw: &mut Raw) -> Verdict {
    let told = raw.expect(200, "GET", "/images/busybox/json", None)?.json();
    same("an image", &told["Id"].as_str().is_some_and(|id| id.starts_with("sha256:")), &true)
}

/// Events of the past, as a stream that ends.
///
/// # Errors
/// What is wrong.
pub fn events(scene: &Scene, raw: &mut Raw) -> Verdict {
    let filter =
        format!("%7B%22container%22%3A%5B%22{}%22%5D%2C%22event%22%3A%5B%22start%22%5D%7D", scene.standing);
    // The engine keeps few of them: the standing one's own may be gone, and must not be there twice.
    let told = raw.expect(200, "GET", &format!("/events?since=1&until=1000&filters={filter}"), None)?;
    same("events of long ago", &told.text().as_str(), &"")
}

/// An exec, from its creation to its code, and each byte that it says.
///
/// # Errors
/// What is wrong.
pub fn exec(scene: &Scene, raw: &mut Raw) -> Verdict {
    let name = scene.name();
    let script = format!("echo begin-{name}; echo {name} >&2; exit 5");
    let body = serde_json::json!({"AttachStdout": true, "AttachStderr": true, "Cmd": ["sh", "-c", script]});
    let told = raw.expect(201, "POST", "/containers/standing/exec", Some(body.to_string().as_bytes()))?;
    let id = told.json()["Id"].as_str().unwrap_or_default().to_owned();
    let start = br#"{"Detach":false,"Tty":false}"#;
    let told = raw.expect(200, "POST", &format!("/exec/{id}/start"), Some(start))?;
    let (out, err) =
        frames(&told.body).ok_or_else(|| Trouble::Wrong(format!("frames of exec: {:?}", told.text())))?;
    same("what an exec said", &(out, err), &(format!("begin-{name}\n"), format!("{name}\n")))?;
    let ended: Value = raw.expect(200, "GET", &format!("/exec/{id}/json"), None)?.json();
    same("the code of an exec", &ended["ExitCode"], &5.into())
}

/// Stdout and stderr out of Docker's frames; none if they are cut.
#[must_use]
pub fn frames(mut bytes: &[u8]) -> Option<(String, String)> {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while !bytes.is_empty() {
        let length = usize::try_from(u32::from_be_bytes(bytes.get(4..8)?.try_into().ok()?)).ok()?;
        let content = bytes.get(8..8 + length)?;
        if bytes[0] == 2 {
            err.extend_from_slice(content)
        } else {
            out.extend_from_slice(content)
        }
        bytes = &bytes[8 + length..];
    }
    Some((String::from_utf8(out).ok()?, String::from_utf8(err).ok()?))
}
