//! Asking a running keeper for something: `RUNTIME_DIR/keeper.sock`, a line to it, lines back.
//!
//! It must never be needed for the keeper to work: who can reach that socket is root already.

use crate::error::Error;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The socket's name in the runtime directory.
pub const CONTROL_SOCKET: &str = "keeper.sock";
/// How a last line begins that tells of success.
pub(crate) const OK: &str = "ok ";
/// How a last line begins that tells of failure.
pub(crate) const FAILED: &str = "failed: ";
/// The keeper answers on its own account; this is beyond the timeout of the upgrade itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// What an upgrade shall do.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct UpgradeRequest {
    /// The binary to start; else the path that the keeper was started with.
    pub binary: Option<PathBuf>,
    /// The time until it must be ready, in milliseconds; else the keeper's own.
    pub timeout_ms: Option<u64>,
    /// Replace the keeper itself, in place, instead of its worker.
    pub keeper: bool,
}

/// Asks the keeper of that runtime directory for an upgrade, and waits for its end. Each line of progress is given to `tell`
/// as it comes. Returns the last line.
///
/// # Errors
/// `NoKeeper` if nobody answers; `Upgrade` with the reason if the upgrade failed: what ran before goes on then.
pub fn request_upgrade(
    runtime_dir: &Path,
    request: &UpgradeRequest,
    mut tell: impl FnMut(&str),
) -> Result<String, Error> {
    let request_json = serde_json::to_string(request).map_err(|error| Error::Garbled(error.to_string()))?;
    let limit = Duration::from_millis(request.timeout_ms.unwrap_or(30_000)) + PATIENCE;
    let mut lines = ask(runtime_dir, &format!("upgrade {request_json}"), limit)?;
    loop {
        let line = lines.next_line()?;
        if let Some(rest) = line.strip_prefix(OK) {
            return Ok(rest.to_owned());
        }
        if let Some(reason) = line.strip_prefix(FAILED) {
            return Err(Error::Upgrade(reason.to_owned()));
        }
        tell(&line);
    }
}

/// Asks the keeper of that runtime directory about itself, past any worker.
///
/// # Errors
/// `NoKeeper` if nobody answers.
pub fn request_status(runtime_dir: &Path) -> Result<crate::status::Snapshot, Error> {
    let line = ask(runtime_dir, "status", PATIENCE)?.next_line()?;
    serde_json::from_str(&line).map_err(|error| Error::Garbled(error.to_string()))
}

struct Lines(BufReader<UnixStream>);

impl Lines {
    fn next_line(&mut self) -> Result<String, Error> {
        let mut line = String::new();
        let read = self.0.read_line(&mut line).map_err(Error::os("waiting for the keeper"))?;
        if read == 0 || !line.ends_with('\n') {
            return Err(Error::NoKeeper("it ended before it was done; see its log".to_owned()));
        }
        line.truncate(line.trim_end().len());
        Ok(line)
    }
}

fn ask(runtime_dir: &Path, line: &str, limit: Duration) -> Result<Lines, Error> {
    let path = runtime_dir.join(CONTROL_SOCKET);
    let absent = |error| Error::NoKeeper(format!("{}: {error}", path.display()));
    let mut stream = UnixStream::connect(&path).map_err(absent)?;
    stream.set_read_timeout(Some(limit)).map_err(Error::os("keeper.sock"))?;
    stream.write_all(format!("{line}\n").as_bytes()).map_err(Error::os("asking the keeper"))?;
    Ok(Lines(BufReader::new(stream)))
}
