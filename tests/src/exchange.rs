//! One request sent byte by byte, and everything that a client can see of what comes back: interim answers, head,
//! body, and what becomes of the connection.
//!
//! Must never wait without a limit: a side that hangs is an outcome like any other.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// What becomes of the connection after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// It answered another request.
    Kept,
    /// It ended.
    Closed,
    /// The answer goes on without an end.
    Open,
    /// It speaks another protocol now.
    Upgraded,
    /// No answer came, and no end either.
    Silent,
}

/// How the length of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// By `Content-Length`, or there is none.
    Length(usize),
    /// In chunks.
    Chunked,
    /// By the end of the connection.
    Close,
}

/// All that a client sees.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Status codes that came before the final one.
    pub interim: Vec<u16>,
    /// The final status line; empty when there was none.
    pub line: String,
    /// Its status.
    pub status: u16,
    /// Fields by name in lower case.
    pub fields: BTreeMap<String, Vec<String>>,
    /// The decoded body.
    pub body: Vec<u8>,
    /// How its end was told.
    pub framing: Framing,
    /// The connection.
    pub after: After,
}

/// No row of a table takes the engine longer for the head of its answer.
const HEAD: Duration = Duration::from_secs(15);
/// An answer that says nothing for so long goes on for ever.
const QUIET: Duration = Duration::from_millis(400);
/// Clients do not wait longer for a `100 Continue`.
const CONTINUE: Duration = Duration::from_millis(700);

struct Wire {
    stream: UnixStream,
    unread: Vec<u8>,
}

/// What a read brought.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    Bytes,
    Nothing,
    End,
}

impl Wire {
    fn more(&mut self, limit: Duration) -> Got {
        let mut part = [0; 16 * 1024];
        let _ = self.stream.set_read_timeout(Some(limit));
        match self.stream.read(&mut part) {
            Ok(0) => Got::End,
            Ok(read) => {
                self.unread.extend_from_slice(&part[..read]);
                Got::Bytes
            }
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
            {
                Got::Nothing
            }
            Err(_) => Got::End,
        }
    }

    fn head(&mut self, limit: Duration) -> Result<String, Got> {
        loop {
            if let Some(end) = self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                let head: Vec<u8> = self.unread.drain(..end + 4).collect();
                return Ok(String::from_utf8_lossy(&head).into_owned());
            }
            match self.more(limit) {
                Got::Bytes => {}
                other => return Err(other),
            }
        }
    }

    /// A side that has refused already does not read the rest.
    fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }
}

/// Sends a request and sees what comes.
///
/// # Panics
/// When nobody listens.
#[must_use]
pub fn exchange(socket: &Path, (head, body): (&[u8], &[u8]), waits: bool) -> Outcome {
    let stream = UnixStream::connect(socket).expect("it listens");
    let _ = stream.set_write_timeout(Some(HEAD));
    let mut wire = Wire { stream, unread: Vec::new() };
    let mut outcome = Outcome {
        interim: Vec::new(),
        line: String::new(),
        status: 0,
        fields: BTreeMap::new(),
        body: Vec::new(),
        framing: Framing::Close,
        after: After::Silent,
    };
    let mut later = None;
    if waits {
        wire.send(head);
        later = Some(body);
    } else {
        wire.send(&[head, body].concat());
    }
    loop {
        let limit = if later.is_some() { CONTINUE } else { HEAD };
        match (wire.head(limit), later) {
            (Ok(text), _) => {
                outcome.read_head(&text);
                if !(100..200).contains(&outcome.status) || outcome.status == 101 {
                    break;
                }
                outcome.interim.push(outcome.status);
                wire.send(later.take().unwrap_or_default());
            }
            (Err(Got::Nothing), Some(body)) => {
                wire.send(body);
                later = None;
            }
            (Err(got), _) => {
                outcome.status = 0;
                outcome.body = std::mem::take(&mut wire.unread);
                outcome.after = if got == Got::End { After::Closed } else { After::Silent };
                return outcome;
            }
        }
    }
    let to_head = head.starts_with(b"HEAD ");
    outcome.finish(&mut wire, to_head);
    outcome
}

impl Outcome {
    fn read_head(&mut self, text: &str) {
        self.fields.clear();
        let mut lines = text.split("\r\n");
        lines.next().unwrap_or_default().clone_into(&mut self.line);
        self.status = self.line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            self.fields.entry(name.to_ascii_lowercase()).or_default().push(value.trim().to_owned());
        }
    }

    /// Puts other words in the place of names, everywhere.
    pub fn replace(&mut self, names: &[(String, String)]) {
        for (name, word) in names.iter().filter(|(name, _)| !name.is_empty()) {
            let text = String::from_utf8_lossy(&self.body).replace(name, word);
            self.body = text.into_bytes();
            for value in self.fields.values_mut().flatten() {
                *value = value.replace(name, word);
            }
        }
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name)?.first().map(String::as_str)
    }

    fn finish(&mut self, wire: &mut Wire, to_head: bool) {
        if self.status == 101 {
            self.after = After::Upgraded;
            self.framing = Framing::Length(0);
            return;
        }
        let length = self.field("content-length").and_then(|length| length.parse().ok());
        self.framing = match length {
            _ if to_head || matches!(self.status, 204 | 304) => Framing::Length(0),
            _ if self.field("transfer-encoding") == Some("chunked") => Framing::Chunked,
            Some(length) => Framing::Length(length),
            None => Framing::Close,
        };
        self.after = match self.read_body(wire) {
            Some(after) => after,
            // A client closes, too, when it is told so. Go's server may wait for that.
            None if self.field("connection") == Some("close") => After::Closed,
            None => next(wire),
        };
    }

    /// Reads the body; what became of the connection, if that is clear then.
    fn read_body(&mut self, wire: &mut Wire) -> Option<After> {
        while !self.is_complete(wire) {
            let after = match wire.more(QUIET) {
                Got::Bytes => continue,
                Got::End => After::Closed,
                Got::Nothing => After::Open,
            };
            let bytes = std::mem::take(&mut wire.unread);
            self.body = if self.framing == Framing::Chunked { unchunked(&bytes).0 } else { bytes };
            return Some(after);
        }
        None
    }

    fn is_complete(&mut self, wire: &mut Wire) -> bool {
        let end = match self.framing {
            Framing::Length(length) => Some(length).filter(|length| wire.unread.len() >= *length),
            Framing::Chunked => unchunked(&wire.unread).1,
            Framing::Close => None,
        };
        let Some(end) = end else { return false };
        let bytes: Vec<u8> = wire.unread.drain(..end).collect();
        self.body = if self.framing == Framing::Chunked { unchunked(&bytes).0 } else { bytes };
        true
    }
}

/// The payload so far, and where the last chunk ends.
fn unchunked(bytes: &[u8]) -> (Vec<u8>, Option<usize>) {
    let (mut out, mut at) = (Vec::new(), 0);
    while let Some(end) = bytes[at..].windows(2).position(|pair| pair == b"\r\n").map(|end| at + end) {
        let size = usize::from_str_radix(String::from_utf8_lossy(&bytes[at..end]).trim(), 16).unwrap_or(0);
        let data = end + 2;
        if bytes.len() < data + size + 2 {
            break;
        }
        out.extend_from_slice(&bytes[data..data + size]);
        at = data + size + 2;
        if size == 0 {
            return (out, Some(at));
        }
    }
    (out, None)
}

/// Whether the connection takes another request.
fn next(wire: &mut Wire) -> After {
    wire.send(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n");
    match wire.head(HEAD) {
        Ok(head) if head.contains(" 200 ") => After::Kept,
        Ok(_) | Err(Got::End) => After::Closed,
        Err(_) => After::Silent,
    }
}
