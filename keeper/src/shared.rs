//! What outlives a kill of the keeper at any instant: memory that its second maps as well.
//!
//! Nothing here may be in two minds: a reader finds each record and each place as it was before or after a change, and
//! of the one system call that may have been under way it finds how many bytes it moved.

pub(crate) mod board;
pub(crate) mod log;
pub(crate) mod memory;
mod rights;
pub(crate) mod slots;

use self::board::{Board, Doing};
use self::log::{Key, Log};
use self::slots::{FlowState, Place, SlotTable};
use rustix::io::Errno;
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// How many bytes of one read fit.
pub(crate) const STREAM_BUFFER: usize = board::STREAM_BUFFER;

/// All of it.
pub(crate) struct Shared {
    board: Board,
    slots: SlotTable,
    log: RefCell<Log>,
    seq: Cell<u64>,
}

impl Shared {
    /// Fresh memory for at most that many streams.
    ///
    /// # Errors
    /// The kernel has no memory for it.
    pub(crate) fn new(streams: usize) -> io::Result<Shared> {
        let (board, slots, log) = (Board::new()?, SlotTable::new(streams)?, Log::new()?);
        board.name(slots.fd().as_raw_fd(), log.fd().as_raw_fd());
        Ok(Shared { board, slots, log: RefCell::new(log), seq: Cell::new(0) })
    }

    /// The number under which a successor finds it.
    pub(crate) fn number(&self) -> RawFd {
        self.board.fd().as_raw_fd()
    }

    pub(crate) fn board(&self) -> &Board {
        &self.board
    }

    /// A number higher than all before.
    pub(crate) fn next(&self) -> u64 {
        self.seq.set(self.seq.get() + 1);
        self.seq.get()
    }

    /// Says what the next system call is for. Whatever was under way before must have been recorded.
    pub(crate) fn arm(&self, doing: Doing) -> u64 {
        let seq = self.next();
        self.board.arm(doing, seq);
        seq
    }

    /// Reads into the shared buffer; see `Board::receive`.
    pub(crate) fn receive(&self, from: BorrowedFd<'_>, most: usize) -> Result<usize, Errno> {
        self.board.receive(from, most)
    }

    /// Writes; see `Board::send`.
    pub(crate) fn send(&self, to: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
        self.board.send(to, bytes, &[])
    }

    /// Whether there is a place for a stream with this index.
    pub(crate) fn has_slot(&self, index: u32) -> bool {
        self.slots.has(index)
    }

    /// Replaces what is known of one direction of a stream.
    pub(crate) fn place(&self, place: Place, state: FlowState) {
        self.slots.write(place, state);
    }

    /// Keeps a record, from the next commit on.
    pub(crate) fn put(&self, key: Key, parts: &[&[u8]]) {
        self.log.borrow_mut().put(key, parts);
    }

    /// Drops a record, from the next commit on.
    pub(crate) fn remove(&self, key: Key) {
        self.log.borrow_mut().remove(key);
    }

    /// Closes a descriptor that a record names, after the next commit.
    pub(crate) fn bury(&self, fds: impl IntoIterator<Item = OwnedFd>) {
        self.log.borrow_mut().bury(fds);
    }

    /// Makes all changes since the last commit true at one instant.
    pub(crate) fn commit(&self) {
        let mut log = self.log.borrow_mut();
        if let Err(error) = log.commit(|fd| self.board.rename_log(fd.as_fd().as_raw_fd())) {
            // Without memory for it a record is late: a kill within that time loses what it names.
            let _ = error;
        }
    }

    /// The second must not take over: this keeper ends on purpose.
    pub(crate) fn set_over(&self) {
        self.board.set_over();
    }
}

#[cfg(test)]
mod tests;
