//! The docker CLI with a bound for each call, and what it must say. Must never end a call that still may end by itself.

use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::tally::Trouble;
use crate::docker::Docker;

/// No call takes longer.
pub const BOUND: Duration = Duration::from_secs(120);

/// What a CLI said, and its code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Its code.
    pub code: i32,
    /// Its stdout, byte for byte.
    pub stdout: Vec<u8>,
    /// Its stderr.
    pub stderr: String,
}

impl Said {
    /// Its stdout as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// A CLI that runs.
#[derive(Debug)]
pub struct Call {
    what: String,
    child: Child,
    stdout: Pipe,
    stderr: Pipe,
}

/// What a CLI has said so far, and the thread that reads it.
#[derive(Debug)]
struct Pipe {
    said: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Pipe {
    fn of(pipe: Option<impl Read + Send + 'static>) -> Self {
        let said: Arc<Mutex<Vec<u8>>> = Arc::default();
        let kept = Arc::clone(&said);
        let reader = std::thread::spawn(move || {
            let (mut part, Some(mut pipe)) = ([0; 16 * 1024], pipe) else { return };
            while let Ok(length @ 1..) = pipe.read(&mut part) {
                kept.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&part[..length]);
            }
        });
        Self { said, reader }
    }

    fn lines(&self) -> Vec<String> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&said).lines().map(str::to_owned).collect()
    }

    fn all(self) -> Vec<u8> {
        let _ = self.reader.join();
        std::mem::take(&mut *self.said.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Call {
    /// Starts it, with something to read.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(docker: &Docker, arguments: &[&str], stdin: &[u8]) -> Self {
        let mut command = docker.command(arguments);
        // The classic builder.
        command.env("DOCKER_BUILDKIT", "0");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the docker CLI can be started");
        let (mut input, bytes) = (child.stdin.take().expect("a pipe"), stdin.to_vec());
        std::thread::spawn(move || {
            let _ = input.write_all(&bytes);
        });
        let (stdout, stderr) = (Pipe::of(child.stdout.take()), Pipe::of(child.stderr.take()));
        Self { what: arguments.join(" "), child, stdout, stderr }
    }

    /// What it has said when a line of it is this; it is ended then.
    ///
    /// # Errors
    /// It does not say so.
    pub fn until_said(mut self, line: &str) -> Result<Vec<String>, Trouble> {
        let until = Instant::now() + BOUND;
        while !self.stdout.lines().iter().any(|one| one == line) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = (self.child.kill(), self.child.wait());
        let said = self.stdout.lines();
        match said.iter().any(|one| one == line) {
            true => Ok(said),
            false => Err(Trouble::Hung(format!("docker {}: no {line} in {said:?}", self.what))),
        }
    }

    /// Its end.
    ///
    /// # Errors
    /// It hangs; it is ended then.
    pub fn end(mut self) -> Result<Said, Trouble> {
        let until = Instant::now() + BOUND;
        let code = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status.code().unwrap_or(-1),
                _ if Instant::now() > until => {
                    let _ = self.child.kill();
                    let _ = self.child.wait();
                    let said = self.stderr.all();
                    let said = String::from_utf8_lossy(&said);
                    return Err(Trouble::Hung(format!(
                        "docker {}: no end within {BOUND:?}: {said}",
                        self.what
                    )));
                }
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        let (stdout, stderr) = (self.stdout.all(), self.stderr.all());
        Ok(Said { code, stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() })
    }
}

/// Runs it to its end, which must have this code.
///
/// # Errors
/// It hangs, or has another code.
pub fn ends(docker: &Docker, code: i32, arguments: &[&str], stdin: &[u8]) -> Result<Said, Trouble> {
    let said = Call::start(docker, arguments, stdin).end()?;
    match said.code == code {
        true => Ok(said),
        false => Err(Trouble::Failed(format!(
            "docker {}: {} instead of {code}: {}{}",
            arguments.join(" "),
            said.code,
            said.text().chars().take(200).collect::<String>(),
            said.stderr.trim()
        ))),
    }
}

/// Runs it to its good end; its stdout without white space around.
///
/// # Errors
/// It hangs, or fails.
pub fn ok(docker: &Docker, arguments: &[&str]) -> Result<String, Trouble> {
    Ok(ends(docker, 0, arguments, b"")?.text().trim().to_owned())
}
