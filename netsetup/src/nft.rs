//! Runs nft: a text in, a text out. Must never leave a child behind; it blocks for some milliseconds.

use std::io::{self, Write};
use std::process::{Output, Stdio};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tracing::Instrument;

use crate::error::Error;
use crate::{generation, program};

/// nft needs a second for a hundred thousand containers. A caller that waits longer than this gets an error.
const PATIENCE: Duration = Duration::from_secs(30);

/// Applies the whole text, or nothing.
///
/// # Errors
/// [`Error::Nft`] with nft's message.
pub(crate) fn run(text: &str) -> Result<(), Error> {
    give(&["-f", "-"], text)
}

/// Checks whether the whole text could be applied, and applies nothing.
///
/// # Errors
/// [`Error::Nft`] with nft's message.
pub(crate) fn check(text: &str) -> Result<(), Error> {
    give(&["-c", "-f", "-"], text)
}

fn give(arguments: &[&str], text: &str) -> Result<(), Error> {
    let output = feed(arguments, text).map_err(|error| told(&error.to_string()))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(told(&String::from_utf8_lossy(&output.stderr))),
    }
}

/// The listing; none if there is no such object, or no nft.
///
/// # Errors
/// [`Error::Nft`] with nft's message.
pub(crate) fn list<T: DeserializeOwned>(arguments: &[&str]) -> Result<Option<T>, Error> {
    let output = match feed(&[&["-j"], arguments].concat(), "") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        output => output.map_err(|error| told(&error.to_string()))?,
    };
    let complaint = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => serde_json::from_slice(&output.stdout)
            .map(Some)
            .map_err(|error| told(&format!("its JSON cannot be read: {error}"))),
        false if complaint.contains("No such file or directory") => Ok(None),
        false => Err(told(&complaint)),
    }
}

/// The version of nft, if there is one: `nftables v1.0.6 (Lester Gooch #5)`.
pub(crate) fn version() -> Option<String> {
    let output = feed(&["--version"], "").ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn feed(arguments: &[&str], text: &str) -> io::Result<Output> {
    let mut child = program::start("nft", arguments, Stdio::piped)?;
    // It may end before it has read everything, and say why.
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output()?;
    if output.status.success() {
        written?;
    }
    Ok(output)
}

/// The first line of its output names the place; the others draw it.
fn told(complaint: &str) -> Error {
    let message =
        complaint.lines().find(|line| !line.trim().is_empty()).unwrap_or("it failed and says nothing");
    Error::Nft { message: message.trim().to_owned() }
}

/// Sends a transaction; returns the generation after it, if there were no outside changes since `before`.
pub(crate) fn transact(text: &str, before: Option<u32>) -> Result<Option<u32>, Error> {
    run(text)?;
    let now = generation::now()?;
    Ok(before.filter(|before| before.wrapping_add(1) == now).map(|_| now))
}

/// A caller that goes away must not leave this half done: what the kernel was told has to be recorded.
pub(crate) async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    tokio::spawn(work.in_current_span()).await.unwrap_or(Err(Error::Stopped))
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(work)).await {
        Ok(done) => done.unwrap_or(Err(Error::Stopped)),
        Err(_) => Err(Error::Nft { message: format!("it does not end within {} s", PATIENCE.as_secs()) }),
    }
}
