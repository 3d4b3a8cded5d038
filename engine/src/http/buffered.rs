//! A socket with the bytes already read from it, and where what passes is written down for the next worker.
//!
//! It must never take memory for a connection that is idle.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use selvedge_custody::{Entry, Incoming, Received};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

/// A socket with the bytes already read from it.
#[derive(Debug)]
pub struct Buffered {
    /// The socket.
    pub io: UnixStream,
    /// What has been read and not used. Empty and without memory while the connection is idle.
    pub unread: Vec<u8>,
    /// Where what passes is written down for the next worker.
    pub record: Record,
}

/// Where what passes is written down.
#[derive(Debug, Default)]
pub enum Record {
    /// Nowhere: it can be asked again.
    #[default]
    Nowhere,
    /// A client's request and its answer.
    Client(Incoming),
    /// What the engine says.
    Engine(Arc<Entry>),
}

impl Buffered {
    /// A socket from which nothing has been read.
    pub fn new(io: UnixStream) -> Self {
        Self { io, unread: Vec::new(), record: Record::Nowhere }
    }

    /// The client's number and record, of one that has them.
    pub fn client(&mut self) -> Option<&mut Incoming> {
        match &mut self.record {
            Record::Client(client) => Some(client),
            _ => None,
        }
    }

    /// Reads once; nothing when the socket has nothing.
    async fn try_fill(&mut self) -> Option<io::Result<usize>> {
        let Self { io, unread, record } = self;
        match record {
            Record::Nowhere => read_once(io, unread).await,
            Record::Client(client) => take(io, |socket| client.receive(socket, unread)),
            Record::Engine(entry) => take(io, |socket| entry.hear(socket, unread)),
        }
    }

    /// Sends a client a whole answer. `keep`: another request may follow.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn answer(&mut self, bytes: &[u8], keep: bool) -> io::Result<()> {
        let rest = self.unread.len();
        let Some(client) = self.client() else { return self.io.write_all(bytes).await };
        let record = client.record()?;
        if record.answer(bytes, rest, keep).is_err() {
            client.loosen();
            self.io.write_all(bytes).await?;
            record.answer(b"", rest, keep)?;
        }
        self.send_answer(&record).await?;
        if keep && let Some(client) = self.client() {
            client.next(rest == 0);
        }
        Ok(())
    }

    /// Sends the rest of an answer that is on record.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn send_answer(&self, record: &Entry) -> io::Result<()> {
        self.send(|socket| record.write(socket)).await
    }

    /// Sends what is on record, until `part` says that all has been sent.
    ///
    /// # Errors
    /// The other side is gone.
    pub async fn send(&self, part: impl Fn(BorrowedFd<'_>) -> io::Result<bool>) -> io::Result<()> {
        loop {
            match self.io.try_io(Interest::WRITABLE, || part(self.io.as_fd())) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.io.writable().await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads more; `false` at the end of the stream. Takes no memory before there is something to read.
    ///
    /// # Errors
    /// What read(2) said.
    pub async fn fill(&mut self) -> io::Result<bool> {
        loop {
            self.io.readable().await?;
            if let Some(read) = self.try_fill().await {
                return read.map(|len| len > 0);
            }
        }
    }

    /// Drops the first bytes, and the memory when nothing is left.
    pub fn used(&mut self, len: usize) {
        if len >= self.unread.len() {
            self.unread = Vec::new();
        } else {
            self.unread.drain(..len);
        }
    }
}

/// Takes what a socket has. When that is all, tokio is told that the socket is empty, as it finds out by itself when it reads
/// itself: else the next read would be one in vain.
fn take(
    io: &UnixStream,
    receive: impl FnOnce(BorrowedFd<'_>) -> io::Result<Received>,
) -> Option<io::Result<usize>> {
    let mut taken = None;
    let result = io.try_io(Interest::READABLE, || {
        let received = receive(io.as_fd())?;
        taken = Some(received.len);
        if received.drained { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match (taken, result) {
        (Some(len), _) => Some(Ok(len)),
        (None, Err(error)) if error.kind() != io::ErrorKind::WouldBlock => Some(Err(error)),
        (None, _) => None,
    }
}

async fn read_once(io: &mut UnixStream, into: &mut Vec<u8>) -> Option<io::Result<usize>> {
    into.reserve(8 * 1024);
    let read = {
        let mut read = pin!(io.read_buf(into));
        poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx))).await
    };
    match read {
        Poll::Ready(result) => Some(result),
        Poll::Pending => {
            into.shrink_to_fit();
            None
        }
    }
}

#[cfg(test)]
mod tests;
