//! Runs commands and keeps what they say.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a command said and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its stdout.
    pub stdout: String,
    /// Its stderr.
    pub stderr: String,
    /// Its exit code; 128 and the signal when one ended it.
    pub code: i32,
}

impl Output {
    /// Its stdout without white space around, when it succeeded.
    ///
    /// # Panics
    /// When it failed.
    pub fn ok(&self) -> &str {
        assert_eq!(self.code, 0, "failed: {}{}", self.stdout, self.stderr);
        self.stdout.trim()
    }
}

// No command of a suite takes as long; one that hangs is ended and told.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs a command to its end.
///
/// # Panics
/// When it cannot be started, or hangs.
pub fn run(command: &mut Command, stdin: &[u8]) -> Output {
    let told = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{told}: {error}"));
    let mut input = child.stdin.take().expect("stdin is a pipe");
    let bytes = stdin.to_vec();
    // A command that does not read its stdin must not stop us from reading its output.
    std::thread::spawn(move || {
        let _ = input.write_all(&bytes);
    });
    let pid = child.id();
    let (done, ended) = std::sync::mpsc::channel::<()>();
    let told_again = told.clone();
    let guard = std::thread::spawn(move || {
        if ended.recv_timeout(LIMIT) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            eprintln!("{told_again}: hangs; ending it");
            let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap_or(0));
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
    });
    let output = child.wait_with_output().unwrap_or_else(|error| panic!("{told}: {error}"));
    drop(done);
    let _ = guard.join();
    Output {
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        code: code(output.status),
    }
}

fn code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

/// Runs a line of shell.
pub fn sh(line: &str) -> Output {
    run(Command::new("sh").args(["-c", line]), b"")
}

/// How long something took.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let result = work();
    (result, began.elapsed())
}
