//! A stream as a record: all of it that does not change while it lives. It must never hold what moves: that is in the
//! stream's places.

use crate::pump::stream::Stream;
use crate::records::{self, stream_key};
use crate::shared::Shared;
use serde::{Deserialize, Serialize};
use std::os::fd::{AsRawFd, RawFd};

/// The record; the note of a resumable stream follows it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StreamRecord {
    pub(crate) label: String,
    pub(crate) age_ms: u64,
    pub(crate) ends: [RawFd; 2],
    /// Set for a resumable stream.
    pub(crate) hold_upstream: Option<bool>,
    pub(crate) input: Option<RawFd>,
}

/// Puts the record of the stream in that place.
pub(super) fn put(shared: &Shared, index: u32, stream: &Stream) {
    let record = StreamRecord {
        label: stream.label.to_string(),
        age_ms: stream.since.elapsed().as_millis() as u64,
        ends: [stream.ends[0].fd.as_raw_fd(), stream.ends[1].fd.as_raw_fd()],
        hold_upstream: stream.resume.as_ref().map(|resume| resume.hold_upstream),
        input: stream.input.as_ref().map(|input| input.fd.as_raw_fd()),
    };
    let note = stream.resume.as_ref().map_or(&[][..], |resume| &resume.note);
    records::put(shared, stream_key(index), &record, note);
}
