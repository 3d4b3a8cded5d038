//! A client whose requests are on record: it has a record while a request of it is under way, and none while it is idle.
//!
//! Must never let a record go before the keeper has been told what became of its client.

use std::fmt::Debug;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use nix::sys::socket::{MsgFlags, recv};

use crate::entry::{Entry, Received};
use crate::ledger::Ledger;
use crate::request::RequestId;

/// Who holds clients' connections beside us, and has to end them.
pub trait Closer: Debug + Send + Sync {
    /// Ends the connection of a client; its record may go when that is certain to happen.
    fn end(&self, client: u64, record: Option<Arc<Entry>>);
}

/// A client.
#[derive(Debug)]
pub struct Incoming {
    ledger: Arc<Ledger>,
    closer: Arc<dyn Closer>,
    client: u64,
    record: Option<Arc<Entry>>,
    /// What it sends is not put on record.
    loose: bool,
    /// It is another's now.
    given: bool,
}

impl Incoming {
    /// One of which nothing has been read.
    pub fn new(ledger: Arc<Ledger>, closer: Arc<dyn Closer>, client: u64) -> Self {
        Self { ledger, closer, client, record: None, loose: false, given: false }
    }

    /// The keeper's number for it.
    pub fn client(&self) -> u64 {
        self.client
    }

    /// The record of its request; a new one if there is none.
    ///
    /// # Errors
    /// There is no memory for one.
    pub fn record(&mut self) -> io::Result<Arc<Entry>> {
        if let Some(record) = &self.record {
            return Ok(Arc::clone(record));
        }
        let record = self.ledger.open(self.client).map_err(|error| {
            // Not to be taken for a socket that has nothing.
            io::Error::other(format!("no room for the record of another request: {error}"))
        })?;
        let record = Arc::new(record);
        self.record = Some(Arc::clone(&record));
        Ok(record)
    }

    /// By what people know the request that is being read: an earlier worker's number for it, or one of ours that the next
    /// worker finds. Nothing without memory for a record.
    pub fn request(&mut self) -> Option<RequestId> {
        let record = self.record().ok()?;
        Some(RequestId::read(record.request()).unwrap_or_else(|| {
            let number = self.ledger.number();
            record.set_request(number.number());
            number
        }))
    }

    /// Takes what it has sent, and adds it to `into`; nothing at the end of its stream.
    ///
    /// # Errors
    /// What the kernel says: `WouldBlock` for nothing.
    pub fn receive(&mut self, socket: BorrowedFd<'_>, into: &mut Vec<u8>) -> io::Result<Received> {
        if !self.loose {
            return self.receive_on_record(socket, into);
        }
        let mut bytes = vec![0; 16 * 1024];
        let got = recv(socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT)?;
        into.extend_from_slice(&bytes[..got]);
        Ok(Received { len: got, drained: false })
    }

    fn receive_on_record(&mut self, socket: BorrowedFd<'_>, into: &mut Vec<u8>) -> io::Result<Received> {
        let was_idle = self.record.is_none();
        let received = self.record()?.receive(socket, into);
        if was_idle && received.is_err() {
            // A readiness of before, most often: it is idle still, and keeps no memory.
            self.record = None;
        }
        received
    }

    /// Its answer was sent whole. `idle`: nothing of another request has been read.
    pub fn next(&mut self, idle: bool) {
        if idle {
            (self.record, self.loose) = (None, false);
            return;
        }
        match &self.record {
            // What follows was read past the record, too.
            Some(record) if self.loose => record.loosen(),
            Some(record) => record.next(),
            None => {}
        }
    }

    /// What comes is too much, or never ends: a death of this worker ends its connection.
    pub fn loosen(&mut self) {
        if let Ok(record) = self.record() {
            record.loosen();
            self.loose = true;
        }
    }

    /// It is another's now, who has been told so.
    pub fn given(mut self) {
        self.given = true;
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let record = self.record.take();
        if !self.given {
            self.closer.end(self.client, record);
        }
    }
}

#[cfg(test)]
mod tests;
