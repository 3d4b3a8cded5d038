//! Mesos' HTTP APIs: calls in JSON, and events in an answer that does not end (RecordIO).
//!
//! It must never connect again by itself: a stream that ends is told to the caller.

use std::io::{self, BufRead, BufReader, Chain, Cursor, Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::host::inside;
use crate::http::{Answer, ask, read_head, status};

/// Where an API is reached.
#[derive(Debug, Clone)]
pub struct Door {
    netns: Option<String>,
    port: u16,
}

impl Door {
    /// A port of a test host's loopback.
    #[must_use]
    pub fn new(netns: &str, port: u16) -> Self {
        Self { netns: Some(netns.to_owned()), port }
    }

    /// A port of the loopback where this program runs.
    #[must_use]
    pub fn here(port: u16) -> Self {
        Self { netns: None, port }
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let address = ("127.0.0.1", self.port);
        match &self.netns {
            Some(netns) => inside(netns, move || TcpStream::connect(address)),
            None => TcpStream::connect(address),
        }
    }

    /// A `GET`.
    ///
    /// # Errors
    /// Nothing listens, or it does not answer.
    pub fn get(&self, path: &str) -> io::Result<Answer> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: mesos\r\nConnection: close\r\n\r\n");
        ask(&mut self.connect()?, request.as_bytes())
    }

    /// A call. `stream` is a framework's stream; executors have none.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn call(&self, path: &str, stream: Option<&str>, call: &Value) -> io::Result<Answer> {
        let field = stream.map(|id| format!("Mesos-Stream-Id: {id}\r\n")).unwrap_or_default();
        ask(&mut self.connect()?, post(path, &format!("{field}Connection: close\r\n"), call).as_bytes())
    }

    /// A subscription: the answer's head, and the events.
    ///
    /// # Errors
    /// As [`Self::get`], or it was refused.
    pub fn subscribe(&self, path: &str, call: &Value) -> io::Result<(String, Events)> {
        let mut stream = self.connect()?;
        stream.write_all(post(path, "", call).as_bytes())?;
        let (head, rest) = read_head(&mut stream)?;
        if status(&head) != 200 {
            return Err(io::Error::other(head));
        }
        let chunks = Chunks { inner: BufReader::new(Cursor::new(rest).chain(stream)), left: 0 };
        Ok((head, Events(BufReader::new(chunks))))
    }
}

fn post(path: &str, fields: &str, call: &Value) -> String {
    let body = call.to_string();
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: mesos\r\nContent-Type: application/json\r\nAccept: application/json\r\n\
         {fields}Content-Length: {length}\r\n\r\n{body}"
    )
}

/// Events, each a line with its length and then so many bytes of JSON.
#[derive(Debug)]
pub struct Events(BufReader<Chunks>);

impl Events {
    /// Waits for the next one.
    ///
    /// # Errors
    /// The stream has ended.
    pub fn take(&mut self) -> io::Result<Value> {
        let length = number(&mut self.0, 10)?;
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    }
}

/// A body in chunks.
#[derive(Debug)]
struct Chunks {
    inner: BufReader<Chain<Cursor<Vec<u8>>, TcpStream>>,
    left: usize,
}

impl Read for Chunks {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            self.left = number(&mut self.inner, 16)?;
        }
        if self.left == 0 {
            return Ok(0);
        }
        let most = into.len().min(self.left);
        let read = self.inner.read(&mut into[..most])?;
        self.left -= read;
        if read > 0 && self.left == 0 {
            self.inner.read_exact(&mut [0; 2])?;
        }
        Ok(read)
    }
}

/// A line that is a number.
fn number(from: &mut impl BufRead, radix: u32) -> io::Result<usize> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    usize::from_str_radix(line.trim(), radix).map_err(io::Error::other)
}
