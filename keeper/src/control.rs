//! Asks a running keeper to do something: `RUNTIME_DIR/keeper.sock`, one line to it, lines back.
//!
//! The keeper must never need it to work. Only root can connect to that socket.

use crate::error::Error;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The socket's name in the runtime directory.
pub const CONTROL_SOCKET: &str = "keeper.sock";
/// Prefix of a last line that reports success.
pub(crate) const OK: &str = "ok ";
/// Prefix of a last line that reports failure.
pub(crate) const FAILED: &str = "failed: ";
/// How long the keeper may take to answer, beyond the timeout of the upgrade itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// What an upgrade should do.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct UpgradeRequest {
    /// The binary to start; by default the path that the keeper was started with.
    pub binary: Option<PathBuf>,
    /// The time in which it must be ready, in milliseconds; by default the keeper's own limit.
    pub timeout_ms: Option<u64>,
    /// Replace the keeper itself, in place, instead of its worker.
    pub keeper: bool,
}

/// Asks the keeper of that runtime directory for an upgrade, and waits until it has finished. Passes each line of
/// progress to `tell` as it arrives. Returns the last line.
///
/// # Errors
/// `NoKeeper` if there is no answer; `Upgrade` with the reason if the upgrade failed: then the old process keeps
/// running.
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

/// Asks the keeper of that runtime directory for its status, without going through a worker.
///
/// # Errors
/// `NoKeeper` if there is no answer.
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
