//! The engine's own words for a program that is not there.
//!
//! `wait` finds that out, so the engine never gets to say it. Each engine and runtime says it differently, so
//! we let ours say it once of a program that cannot exist, in a container of the same image that has nothing
//! and is gone at once, and put the real name in.

use std::collections::HashMap;
use std::sync::Mutex;

use hyper::Method;
use serde::Serialize;

use crate::client::{Engine, EngineError, message_of};
use crate::object::Object;

/// Why a program cannot be run; the states of `wait`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lookup {
    /// A bare name that no directory of $PATH has.
    NotInPath,
    /// A path that is not there.
    NoEntry,
    /// A file that may not be executed.
    NotExecutable,
    /// A directory.
    Directory,
    /// Found in the working directory, by way of $PATH; runtimes refuse that.
    InWorkingDirectory,
    /// A path that stat(2) fails on, with this errno.
    Unreachable(i32),
}

// What the engine guesses of any ENOTDIR at a start (moby: `translateContainerdStartErr`).
const NOT_DIRECTORY: &str = ": Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host \
                             path exists and is the expected type";

impl Lookup {
    /// What a program of this kind is called in the question: nothing in any image has these names, and
    /// nothing of the image's can be run by them.
    fn stand_in(self) -> &'static str {
        match self {
            Self::NotInPath => "selvedge-no-such-program-7f3a",
            Self::NoEntry => "/selvedge-no-such-program-7f3a",
            Self::NotExecutable => "/proc/self/environ",
            Self::Directory => "/proc/self/task",
            // No image can be made to fail so: the words of a kin are taken, and changed.
            Self::InWorkingDirectory => Self::NotInPath.stand_in(),
            Self::Unreachable(_) => Self::NoEntry.stand_in(),
        }
    }

    /// What the runtime says of it (Go's `exec.LookPath` and `syscall.Errno`).
    fn words(self) -> String {
        match self {
            Self::NotInPath => "executable file not found in $PATH".to_owned(),
            Self::NoEntry => "no such file or directory".to_owned(),
            Self::NotExecutable => "permission denied".to_owned(),
            Self::Directory => "is a directory".to_owned(),
            Self::InWorkingDirectory => {
                "cannot run executable found relative to current directory".to_owned()
            }
            Self::Unreachable(number) => nix::errno::Errno::from_raw(number).desc().to_lowercase(),
        }
    }

    /// The words of the stand-in made into those of this kind.
    fn adapt(self, template: &str) -> String {
        let kin = match self {
            Self::InWorkingDirectory => Self::NotInPath,
            Self::Unreachable(_) => Self::NoEntry,
            own => own,
        };
        let mut text = template.replace(&kin.words(), &self.words());
        if self == Self::Unreachable(nix::libc::ENOTDIR) {
            text.push_str(NOT_DIRECTORY);
        }
        text
    }

    /// As the engine derives it from the runtime's words (moby: `translateContainerdStartErr`).
    fn exit_code(self) -> i32 {
        match self {
            Self::NotInPath | Self::NoEntry | Self::Unreachable(nix::libc::ENOTDIR) => 127,
            Self::NotExecutable | Self::Directory | Self::Unreachable(nix::libc::EACCES) => 126,
            Self::InWorkingDirectory | Self::Unreachable(_) => 128,
        }
    }

    /// The engine takes what it does not know for a failure of its own.
    fn status(self, of_the_stand_in: u16) -> u16 {
        if self.exit_code() == 128 { 500 } else { of_the_stand_in }
    }
}

/// A start that failed because of the program, as the engine tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// HTTP status of the start.
    pub status: u16,
    /// Text of the start's error, and `State.Error` later.
    pub message: String,
    /// `State.ExitCode` later.
    pub exit_code: i32,
}

impl Failure {
    /// Shows a container whose start failed: the engine leaves it as `created`.
    pub fn restore_state(&self, state: &mut Object) {
        const NEVER: &str = "0001-01-01T00:00:00Z";
        state.set("Status", &"created");
        state.set("ExitCode", &self.exit_code);
        state.set("Error", &self.message);
        state.set("StartedAt", &NEVER);
        state.set("FinishedAt", &NEVER);
    }
}

/// What the engine said of each kind's stand-in.
#[derive(Debug)]
pub struct Wordings {
    /// A label that an image may bring along, and that means nothing while it is empty.
    label: &'static str,
    known: Mutex<HashMap<Lookup, (u16, String)>>,
}

/// Puts the program's name in: in quotes as Go writes them (`%q`), elsewhere as it is.
fn named(template: &str, stand_in: &str, program: &str) -> String {
    template.replace(&format!("\"{stand_in}\""), &quoted(program)).replace(stand_in, program)
}

/// Go's `strconv.Quote`.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\0'..'\u{20}' | '\u{7f}' => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            '\u{80}'..='\u{a0}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

impl Wordings {
    /// Nothing is known yet. Each stand-in is made with this label, emptied: its image may have one with a meaning.
    pub fn new(label: &'static str) -> Self {
        Self { label, known: Mutex::default() }
    }

    /// The failure of a container's program in the engine's words.
    pub async fn of(&self, engine: &Engine, (id, program): (&str, &str), lookup: Lookup) -> Failure {
        let (status, template) = match self.get(lookup) {
            Some(known) => known,
            None => self.ask_and_keep(engine, id, lookup).await,
        };
        let message = named(&lookup.adapt(&template), lookup.stand_in(), program);
        Failure { status: lookup.status(status), message, exit_code: lookup.exit_code() }
    }

    async fn ask_and_keep(&self, engine: &Engine, id: &str, lookup: Lookup) -> (u16, String) {
        match ask(engine, id, (lookup.stand_in(), self.label)).await {
            Ok(words) => {
                if let Ok(mut known) = self.known.lock() {
                    known.insert(lookup, words.clone());
                }
                words
            }
            Err(error) => {
                tracing::warn!(%error, "the engine could not be asked for its words");
                (400, fallback(lookup))
            }
        }
    }

    fn get(&self, lookup: Lookup) -> Option<(u16, String)> {
        self.known.lock().ok()?.get(&lookup).cloned()
    }

    /// Forgets all: another engine may be there.
    pub fn clear(&self) {
        if let Ok(mut known) = self.known.lock() {
            known.clear();
        }
    }
}

fn fallback(lookup: Lookup) -> String {
    format!("unable to start container process: exec: {:?}: {}: unknown", lookup.stand_in(), lookup.words())
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct StandIn<'a> {
    image: &'a str,
    entrypoint: [&'a str; 1],
    network_disabled: bool,
    labels: HashMap<&'a str, &'a str>,
    host_config: HashMap<&'a str, &'a str>,
}

async fn ask(
    engine: &Engine,
    id: &str,
    (program, label): (&str, &str),
) -> Result<(u16, String), EngineError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Of {
        image: String,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Created {
        id: String,
    }
    let of: Of = engine.get(&format!("/containers/{id}/json")).await?;
    let body = StandIn {
        image: &of.image,
        entrypoint: [program],
        network_disabled: true,
        labels: HashMap::from([(label, "")]),
        host_config: HashMap::from([("NetworkMode", "none")]),
    };
    let body = serde_json::to_vec(&body).unwrap_or_default();
    let made = engine.expect(Method::POST, "/containers/create", body).await?;
    let made: Created =
        serde_json::from_slice(&made).map_err(|error| EngineError::Unreadable(error.to_string()))?;
    let started = engine.call(Method::POST, &format!("/containers/{}/start", made.id), Vec::new()).await;
    let removed =
        engine.expect(Method::DELETE, &format!("/containers/{}?force=1&v=1", made.id), Vec::new()).await;
    if let Err(error) = removed {
        tracing::warn!(%error, container = made.id, "a container made for a question could not be removed");
    }
    match started? {
        (status, answer) if status >= 400 => Ok((status, message_of(&answer))),
        (status, _) => {
            Err(EngineError::Refused { status, message: "it started what cannot exist".to_owned() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_name_is_quoted_where_go_quotes_it() {
        let template = "exec: \"/none\": stat /none: no such file";
        assert_eq!(named(template, "/none", "/x y"), "exec: \"/x y\": stat /x y: no such file");
        assert_eq!(named(template, "/none", "a\"b"), "exec: \"a\\\"b\": stat a\"b: no such file");
        assert_eq!(quoted("\u{1}\n\\\u{e9}"), "\"\\x01\\n\\\\\u{e9}\"");
    }
}
