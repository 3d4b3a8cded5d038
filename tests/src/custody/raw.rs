//! A client by hand, with a connection that it keeps as long as the other side does not say otherwise. Each read has a limit.
//! Must never send anything twice: that is what the other side is tested for.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::tally::Trouble;

/// No call takes longer on an engine that works, whatever becomes of workers; a machine under load is given much.
pub const BOUND: Duration = Duration::from_secs(90);

/// A client.
#[derive(Debug)]
pub struct Raw {
    socket: PathBuf,
    kept: Option<UnixStream>,
    /// Whether to go on with the connection of the last call.
    pub keeps: bool,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Told {
    /// Its status.
    pub status: u16,
    /// Its body, decoded.
    pub body: Vec<u8>,
}

impl Told {
    /// Its body as JSON; null if it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Its body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A side that reads, with what it read too much.
struct Reader<'a> {
    stream: &'a mut UnixStream,
    unread: Vec<u8>,
    until: Instant,
}

impl Reader<'_> {
    /// Reads some more; false at the end.
    fn more(&mut self) -> std::io::Result<bool> {
        let left = self.until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(left))?;
        let mut part = [0; 16 * 1024];
        let length = self.stream.read(&mut part)?;
        self.unread.extend_from_slice(&part[..length]);
        Ok(length > 0)
    }

    fn upto(&mut self, mark: &[u8]) -> std::io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.unread.windows(mark.len()).position(|window| window == mark) {
                let rest = self.unread.split_off(at + mark.len());
                return Ok(std::mem::replace(&mut self.unread, rest));
            }
            if !self.more()? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn exactly(&mut self, length: usize) -> std::io::Result<Vec<u8>> {
        while self.unread.len() < length {
            if !self.more()? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        let rest = self.unread.split_off(length);
        Ok(std::mem::replace(&mut self.unread, rest))
    }

    fn until_closed(&mut self) -> std::io::Result<Vec<u8>> {
        while self.more()? {}
        Ok(std::mem::take(&mut self.unread))
    }

    fn chunks(&mut self) -> std::io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = String::from_utf8_lossy(&self.upto(b"\r\n")?).trim().to_owned();
            let length = usize::from_str_radix(&line, 16).map_err(|_| ErrorKind::InvalidData)?;
            let part = self.exactly(length + 2)?;
            if length == 0 {
                return Ok(body);
            }
            body.extend_from_slice(&part[..length]);
        }
    }
}

impl Raw {
    /// A client of this socket.
    #[must_use]
    pub fn new(socket: &Path, keeps: bool) -> Self {
        Self { socket: socket.to_owned(), kept: None, keeps }
    }

    /// One call, and its answer.
    ///
    /// # Errors
    /// The connection ended without an answer, or the bound passed.
    pub fn call(&mut self, method: &str, path: &str, body: Option<&[u8]>) -> Result<Told, Trouble> {
        self.raw_call(method, path, body).map_err(|error| told(error, method, path))
    }

    /// One call whose answer must have this status.
    ///
    /// # Errors
    /// As [`Raw::call`], or another status.
    pub fn expect(
        &mut self,
        status: u16,
        method: &str,
        path: &str,
        body: Option<&[u8]>,
    ) -> Result<Told, Trouble> {
        let told = self.call(method, path, body)?;
        match told.status == status {
            true => Ok(told),
            false => Err(Trouble::Failed(format!("{method} {path}: {} {}", told.status, told.text().trim()))),
        }
    }

    fn raw_call(&mut self, method: &str, path: &str, body: Option<&[u8]>) -> std::io::Result<Told> {
        let mut stream = match self.kept.take() {
            Some(stream) => stream,
            None => UnixStream::connect(&self.socket)?,
        };
        let kind = if path.contains("/archive") { "application/x-tar" } else { "application/json" };
        let of_body = body.map_or_else(String::new, |body| {
            format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len())
        });
        let manner = if self.keeps { "" } else { "Connection: close\r\n" };
        let head = format!("{method} {path} HTTP/1.1\r\nHost: d\r\n{manner}{of_body}\r\n");
        stream.write_all(&[head.as_bytes(), body.unwrap_or_default()].concat())?;
        let mut reader = Reader { stream: &mut stream, unread: Vec::new(), until: Instant::now() + BOUND };
        let (told, goes_on) = answer(&mut reader)?;
        if self.keeps && goes_on {
            self.kept = Some(stream);
        }
        Ok(told)
    }
}

fn told(error: std::io::Error, method: &str, path: &str) -> Trouble {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            Trouble::Hung(format!("{method} {path}: no answer within {BOUND:?}"))
        }
        _ => Trouble::Failed(format!("{method} {path}: {error}")),
    }
}

/// The answer, and whether the connection can be used again.
fn answer(reader: &mut Reader<'_>) -> std::io::Result<(Told, bool)> {
    let head = String::from_utf8_lossy(&reader.upto(b"\r\n\r\n")?).to_ascii_lowercase();
    let status =
        head.split_whitespace().nth(1).and_then(|word| word.parse().ok()).ok_or(ErrorKind::InvalidData)?;
    let field =
        |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let length = field("content-length").and_then(|text| text.parse::<usize>().ok());
    let (body, ends) = if matches!(status, 204 | 304) {
        (Vec::new(), false)
    } else if field("transfer-encoding") == Some("chunked") {
        (reader.chunks()?, false)
    } else if let Some(length) = length {
        (reader.exactly(length)?, false)
    } else {
        (reader.until_closed()?, true)
    };
    Ok((Told { status, body }, !ends && field("connection") != Some("close")))
}
