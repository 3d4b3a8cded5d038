//! moby's Go client on a unix socket: a version that is negotiated by `HEAD /_ping`, connections that are kept and asked again,
//! heads as Go writes them, streams that are taken over.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

/// The newest version that it speaks.
const NEWEST: (u32, u32) = (1, 55);

/// One client of the driver's; it has two, and the one of the logs is a third.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    /// How long a whole request may take; the driver's second client waits for ever.
    timeout: Option<Duration>,
    version: Mutex<Option<String>>,
    idle: Mutex<Vec<BufReader<UnixStream>>>,
}

/// An answer whose body is still to be read.
#[derive(Debug)]
pub struct Answer {
    /// Its status code.
    pub status: u16,
    /// Its body.
    pub body: Body,
}

/// Why there is no good answer, in words that do not depend on who stood in between.
pub type Failure = String;

impl Client {
    /// A client that has not asked for anything yet.
    #[must_use]
    pub fn new(socket: &Path, timeout: Option<Duration>) -> Self {
        Self { socket: socket.to_owned(), timeout, version: Mutex::default(), idle: Mutex::default() }
    }

    /// Asks, and reads the answer whole; the engine's own message where it refuses.
    ///
    /// # Errors
    /// `STATUS: MESSAGE`, or that the connection broke.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let (answer, mut reader) = self.send(method, path, body, "")?;
        let bytes = reader.read_all(answer.body.kind).map_err(|error| told(&error))?;
        if reader.may_be_kept {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(reader.stream);
        }
        let value = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        match answer.status {
            200..=299 | 304 => Ok(value),
            status => Err(format!("{status}: {}", value["message"].as_str().unwrap_or_default())),
        }
    }

    /// Asks for a stream, or takes the connection over (`headers`: the upgrade's).
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn stream(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        headers: &str,
    ) -> Result<Answer, Failure> {
        let (answer, mut reader) = self.send(method, path, body, headers)?;
        let kind = if answer.status == 101 { Kind::ToEnd } else { answer.body.kind };
        if answer.status > 299 {
            let bytes = reader.read_all(kind).map_err(|error| told(&error))?;
            let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            return Err(format!("{}: {}", answer.status, value["message"].as_str().unwrap_or_default()));
        }
        let _ = reader.stream.get_ref().set_read_timeout(None);
        Ok(Answer { status: answer.status, body: Body { stream: Some(reader.stream), kind, left: 0 } })
    }

    fn version(&self) -> Result<String, Failure> {
        let mut version = self.version.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = version.as_ref() {
            return Ok(known.clone());
        }
        let (head, stream) = self.exchange("HEAD", "/_ping", None, "").map_err(|error| told(&error))?;
        let theirs = field(&head, "api-version").and_then(|text| {
            let (major, minor) = text.split_once('.')?;
            Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
        });
        let (major, minor) = theirs.unwrap_or((1, 24)).min(NEWEST);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
        Ok(version.insert(format!("{major}.{minor}")).clone())
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        headers: &str,
    ) -> Result<(Answer, Reader), Failure> {
        let path = format!("/v{}{path}", self.version()?);
        let (head, stream) = self.exchange(method, &path, body, headers).map_err(|error| told(&error))?;
        let status = crate::http::status(&head);
        let kind = Kind::of(&head, status);
        let closes = field(&head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let may_be_kept = !closes && !matches!(kind, Kind::ToEnd);
        Ok((Answer { status, body: Body { stream: None, kind, left: 0 } }, Reader { stream, may_be_kept }))
    }

    /// Sends a request and reads the head of its answer.
    fn exchange(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        headers: &str,
    ) -> io::Result<(String, BufReader<UnixStream>)> {
        let mut stream = self.connection()?;
        let text = body.map(ToString::to_string).unwrap_or_default();
        let length = match (body, method) {
            (Some(_), _) => format!("Content-Length: {}\r\nContent-Type: application/json\r\n", text.len()),
            (None, "POST") => "Content-Length: 0\r\n".to_owned(),
            _ => String::new(),
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: api.moby.localhost\r\nUser-Agent: Go-http-client/1.1\r\n{length}{headers}\r\n"
        );
        stream.get_mut().write_all(head.as_bytes())?;
        stream.get_mut().write_all(text.as_bytes())?;
        let head = read_head(&mut stream)?;
        Ok((head, stream))
    }

    /// One that is kept and still open, as Go's transport sees by its reading side, or a new one.
    fn connection(&self) -> io::Result<BufReader<UnixStream>> {
        while let Some(kept) = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            if is_open(kept.get_ref()) {
                return Ok(kept);
            }
        }
        let stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(self.timeout)?;
        Ok(BufReader::new(stream))
    }
}

/// The id in an answer.
pub(super) fn id(answer: &Value) -> String {
    answer["Id"].as_str().unwrap_or_default().to_owned()
}

fn told(error: &io::Error) -> Failure {
    format!("connection: {:?}", error.kind())
}

fn is_open(stream: &UnixStream) -> bool {
    use nix::sys::socket::{MsgFlags, recv};
    use std::os::fd::AsRawFd;
    let peeked = recv(stream.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT);
    peeked == Err(nix::errno::Errno::EAGAIN)
}

fn read_head(stream: &mut BufReader<UnixStream>) -> io::Result<String> {
    let mut head = String::new();
    loop {
        if stream.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if head.ends_with("\r\n\r\n") {
            return Ok(head);
        }
    }
}

fn field(head: &str, name: &str) -> Option<String> {
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    None,
    Length(u64),
    Chunked,
    ToEnd,
}

impl Kind {
    fn of(head: &str, status: u16) -> Self {
        if matches!(status, 100..=199 | 204 | 304) {
            return Self::None;
        }
        if field(head, "transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return Self::Chunked;
        }
        let length = field(head, "content-length").and_then(|text| text.parse().ok());
        length.map_or(Self::ToEnd, Self::Length)
    }
}

struct Reader {
    stream: BufReader<UnixStream>,
    may_be_kept: bool,
}

impl Reader {
    fn read_all(&mut self, kind: Kind) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        match kind {
            Kind::None => {}
            Kind::Length(length) => {
                out.resize(usize::try_from(length).unwrap_or(0), 0);
                self.stream.read_exact(&mut out)?;
            }
            Kind::ToEnd => drop(self.stream.read_to_end(&mut out)?),
            Kind::Chunked => while chunk(&mut self.stream, &mut out)? {},
        }
        Ok(out)
    }
}

/// The next chunk; false at the end.
fn chunk(stream: &mut BufReader<UnixStream>, out: &mut Vec<u8>) -> io::Result<bool> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let size = usize::from_str_radix(line.trim(), 16).map_err(|_| io::ErrorKind::InvalidData)?;
    let start = out.len();
    out.resize(start + size + 2, 0);
    stream.read_exact(&mut out[start..])?;
    out.truncate(start + size);
    Ok(size > 0)
}

/// A body that comes bit by bit.
#[derive(Debug)]
pub struct Body {
    stream: Option<BufReader<UnixStream>>,
    kind: Kind,
    left: usize,
}

impl Body {
    /// Its connection, to be written to or shut down.
    #[must_use]
    pub fn connection(&self) -> Option<UnixStream> {
        self.stream.as_ref()?.get_ref().try_clone().ok()
    }
}

impl Read for Body {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(stream) = self.stream.as_mut() else { return Ok(0) };
        match self.kind {
            Kind::None => Ok(0),
            Kind::Length(0) => Ok(0),
            Kind::ToEnd => stream.read(into),
            Kind::Length(left) => {
                let most = into.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let read = stream.read(&mut into[..most])?;
                self.kind = Kind::Length(left - read as u64);
                if read == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(read) }
            }
            Kind::Chunked => read_chunked(stream, &mut self.left, into),
        }
    }
}

fn read_chunked(stream: &mut BufReader<UnixStream>, left: &mut usize, into: &mut [u8]) -> io::Result<usize> {
    if *left == 0 {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        *left = usize::from_str_radix(line.trim(), 16).map_err(|_| io::ErrorKind::InvalidData)?;
        if *left == 0 {
            return Ok(0);
        }
    }
    let most = into.len().min(*left);
    let read = stream.read(&mut into[..most])?;
    if read == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    *left -= read;
    if *left == 0 {
        stream.read_exact(&mut [0; 2])?;
    }
    Ok(read)
}
