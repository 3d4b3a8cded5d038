//! A socket with the bytes already read from it, and where what passes is written down for the next worker.
//!
//! It must never take memory for a connection that is idle.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use selvedge_custody::{Entry, Incoming};
use tokio::io::{AsyncWriteExt, Interest};
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

    fn try_fill(&mut self) -> io::Result<usize> {
        let Self { io, unread, record } = self;
        match record {
            Record::Nowhere => {
                unread.reserve(8 * 1024);
                io.try_read_buf(unread)
            }
            Record::Client(client) => io.try_io(Interest::READABLE, || client.receive(io.as_fd(), unread)),
            Record::Engine(entry) => io.try_io(Interest::READABLE, || entry.hear(io.as_fd(), unread)),
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
            match self.try_fill() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result.map(|n| n > 0),
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
