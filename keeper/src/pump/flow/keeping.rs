//! What one direction tells a successor: its state after each operation, and the bytes that it holds.
//!
//! It must never let a state count that is ahead of what was moved.

use super::Flow;
use crate::records::pending_key;
use crate::shared::Shared;
use crate::shared::slots::{FlowState, Place};
use std::os::fd::AsRawFd;

impl Flow {
    /// Gives it its place in shared memory, and records what it holds.
    pub(crate) fn settle(&mut self, place: Place, shared: &Shared) {
        (self.place, self.seq) = (place, shared.next());
        self.record = 0;
        if self.start < self.pending.len() {
            self.pending.drain(..self.start);
            self.start = 0;
            self.hold(shared);
        }
        self.publish(shared, self.seq);
    }

    /// Makes what it has come to known to a successor.
    pub(super) fn publish(&mut self, shared: &Shared, seq: u64) {
        self.seq = seq;
        let pipe = self.pipe.as_ref().map(|pipe| (pipe.reader.as_raw_fd(), pipe.writer.as_raw_fd()));
        let (position, pending, start) = (self.position, self.record, self.start as u64);
        shared.place(self.place, FlowState { seq, position, pending, start, pipe });
    }

    /// Records the held bytes, from the next commit on.
    pub(super) fn hold(&mut self, shared: &Shared) {
        self.record = shared.next();
        shared.put(pending_key(self.place), &[&self.record.to_le_bytes(), &self.pending]);
    }

    /// Drops the record of bytes that are no longer held. It does not count any more, so the commit can wait.
    pub(super) fn hold_nothing(&mut self, shared: &Shared) {
        (self.pending, self.start) = (Vec::new(), 0);
        if self.record != 0 {
            self.record = 0;
            shared.remove(pending_key(self.place));
        }
    }
}
