//! What a worker says of clients that the keeper accepted, and of what it would leave behind.
//!
//! It must never say that a client was taken before everything that came along with it is on record.

use super::{Link, PATIENCE, sending};
use crate::channel;
use crate::error::Error;
use crate::protocol::FromWorker;
use rustix::event::PollFlags;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;
use std::time::Instant;

impl Link {
    /// Gives the keeper the memory of this worker's records, for the next one. Before `ready`.
    ///
    /// # Errors
    /// `NoKeeper`, `Os`.
    pub fn memory(&self, memory: BorrowedFd<'_>) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match channel::send(self.socket.as_fd(), &FromWorker::Memory, &[], &[memory]).map_err(sending) {
                Err(Error::QueueFull) => self.wait(PollFlags::OUT, deadline)?,
                other => return other,
            }
        }
    }

    /// Has the keeper keep a connection open until `drop_held`, whatever becomes of this worker.
    ///
    /// # Errors
    /// `QueueFull`.
    pub fn hold(&self, key: u64, connection: BorrowedFd<'_>) -> Result<(), Error> {
        channel::send(self.socket.as_fd(), &FromWorker::Hold { key }, &[], &[connection]).map_err(sending)
    }

    /// Reports that a held connection is needed no longer.
    ///
    /// # Errors
    /// `QueueFull`.
    pub fn drop_held(&self, key: u64) -> Result<(), Error> {
        self.send(&FromWorker::Drop { key })
    }

    /// Reports that what came along with a client is on this worker's own record. Nothing may be done for it before.
    ///
    /// # Errors
    /// `QueueFull`.
    pub fn taken(&self, client: u64) -> Result<(), Error> {
        self.send(&FromWorker::Taken { client })
    }

    /// Gives a client that the keeper accepted to the next worker, with what was read from it and not served.
    ///
    /// # Errors
    /// `QueueFull`, `TooLong`.
    pub fn give_back(&self, client: u64, read: &[u8]) -> Result<(), Error> {
        let most = self.note_max.load(Ordering::Relaxed);
        if read.len() > most {
            return Err(Error::TooLong { what: "what was read of a client", bytes: read.len(), most });
        }
        channel::send(self.socket.as_fd(), &FromWorker::GiveBack { client }, &[read], &[]).map_err(sending)
    }

    /// Has the keeper end the connection of a client that it accepted: closing it here is not enough.
    ///
    /// # Errors
    /// `QueueFull`.
    pub fn end(&self, client: u64) -> Result<(), Error> {
        self.send(&FromWorker::End { client })
    }
}
