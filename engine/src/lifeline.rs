//! A connection that lasts as long as the engine: the kernel says at any moment whether it does, however busy we are.
//!
//! It must never be read: nothing comes over it.

use std::io;
use std::path::Path;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::http::message::{Buffered, response_head};
use crate::http::relay::has_left;

// {"type":["container"],"event":["none"]}, which no event is.
const QUESTION: &[u8] =
    b"GET /events?filters=%7B%22type%22%3A%5B%22container%22%5D%2C%22event%22%3A%5B%22none%22%5D%7D HTTP/1.0\r\n\
      Host: docker\r\n\r\n";

/// The connection.
#[derive(Debug)]
pub struct Lifeline(UnixStream);

impl Lifeline {
    /// One to the engine that is there now. It has been accepted and answered: one in the queue of a socket that systemd
    /// holds would outlive it.
    ///
    /// # Errors
    /// There is no engine, or one that answers otherwise.
    pub async fn to(socket: &Path) -> io::Result<Self> {
        let mut engine = Buffered::new(UnixStream::connect(socket).await?);
        engine.io.write_all(QUESTION).await?;
        let head = response_head(&mut engine, false).await?;
        if head.status != 200 {
            return Err(io::Error::other(format!("the engine answered {} to events", head.status)));
        }
        Ok(Self(engine.io))
    }

    /// Whether the engine at its other end is gone.
    pub fn has_ended(&self) -> bool {
        has_left(&self.0).unwrap_or(true)
    }
}

#[cfg(test)]
impl From<UnixStream> for Lifeline {
    fn from(stream: UnixStream) -> Self {
        Self(stream)
    }
}
