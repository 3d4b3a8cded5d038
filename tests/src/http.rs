//! HTTP by hand on unix sockets, for what no client library would send.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Status line and fields, as they came.
    pub head: String,
    /// What followed, as it came (chunks undecoded).
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text, chunks taken off.
    #[must_use]
    pub fn text(&self) -> String {
        if !self.head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            return String::from_utf8_lossy(&self.body).into_owned();
        }
        let mut rest = &self.body[..];
        let mut out = Vec::new();
        while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
            let size = String::from_utf8_lossy(&rest[..end]).trim().to_owned();
            let size = usize::from_str_radix(&size, 16).unwrap_or(0);
            if size == 0 || rest.len() < end + 2 + size {
                break;
            }
            out.extend_from_slice(&rest[end + 2..end + 2 + size]);
            rest = rest.get(end + 4 + size..).unwrap_or_default();
        }
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// Connects, with a limit on every read.
///
/// # Errors
/// Nobody listens.
pub fn connect(socket: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok(stream)
}

/// Reads a head; what came behind it is given back too.
///
/// # Errors
/// The peer closed before its end.
pub fn read_head(stream: &mut impl Read) -> io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), rest));
        }
        match stream.read(&mut part)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => bytes.extend_from_slice(&part[..read]),
        }
    }
}

/// The status code of a head.
#[must_use]
pub fn status(head: &str) -> u16 {
    head.split_whitespace().nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

/// Sends bytes and reads until the peer closes.
///
/// # Errors
/// Nobody listens, or the peer says nothing.
pub fn send(socket: &Path, request: &[u8]) -> io::Result<Answer> {
    ask(&mut connect(socket)?, request)
}

/// The same on a connection of any kind.
///
/// # Errors
/// The peer says nothing.
pub fn ask(stream: &mut (impl Read + Write), request: &[u8]) -> io::Result<Answer> {
    stream.write_all(request)?;
    let (head, mut body) = read_head(stream)?;
    stream.read_to_end(&mut body)?;
    Ok(Answer { status: status(&head), head, body })
}

/// A `GET` on a connection of its own.
///
/// # Errors
/// As [`send`].
pub fn get(socket: &Path, path: &str) -> io::Result<Answer> {
    send(socket, format!("GET {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n").as_bytes())
}

/// A `POST` of JSON on a connection of its own.
///
/// # Errors
/// As [`send`].
pub fn post(socket: &Path, path: &str, body: &str) -> io::Result<Answer> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    send(socket, format!("{head}{body}").as_bytes())
}
