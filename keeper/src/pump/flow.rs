//! One direction of a stream: from one socket to the other, until the first ends or the second dies.
//!
//! It must never read what it has no room for: each direction holds at most one buffer (or one pipe) of bytes. And it must
//! never hold bytes that a successor would not find after a kill at any instant: they are in a socket, in a pipe, in the
//! shared buffer of the operation under way, or in a record.

mod keeping;
mod moving;

use crate::position::Position;
use crate::pump::end::End;
use crate::pump::pipes::{Pipe, Pipes};
use crate::shared::Shared;
use crate::shared::board::Doing;
use crate::shared::slots::Place;
use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};
use std::os::fd::AsFd;
use std::rc::Rc;

/// A read of this many bytes is bulk: from then on splice(2).
const BULK_FROM: usize = 16 << 10;
/// A splice of fewer bytes is no longer bulk.
const BULK_UNTIL: usize = 4 << 10;
/// Bytes that one direction may move before the others have their turn.
const TURN: usize = 256 << 10;

/// Bytes read at once of those that no side gets.
const SCRATCH: usize = 16 << 10;

/// What all streams share.
pub(crate) struct Tools {
    pub(crate) shared: Rc<Shared>,
    pub(crate) pipes: Pipes,
}

impl Tools {
    pub(crate) fn new(shared: Rc<Shared>) -> Tools {
        Tools { shared, pipes: Pipes::new() }
    }
}

/// The state of a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Phase {
    /// Bytes may come.
    Open,
    /// The source has ended; held bytes must still be written.
    Ending,
    /// Everything is written and the end passed on, or the target is gone.
    Done,
}

/// How bytes are moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Copy,
    Splice,
    /// The kernel refused splice(2) for one of the sockets.
    CopyOnly,
    /// Frames are tracked: a splice must stay within one.
    Watch,
}

enum Outcome {
    Moved(usize),
    WouldBlock,
    End,
    Dead,
}

/// One direction.
pub(crate) struct Flow {
    /// Bytes read and not yet written, from `start` on. They precede those in the pipe.
    pending: Vec<u8>,
    start: usize,
    /// The number of the record that holds them, too.
    record: u64,
    pipe: Option<Pipe>,
    phase: Phase,
    way: Way,
    position: Position,
    manners: Manners,
    place: Place,
    /// The last operation that the position counts.
    seq: u64,
    /// The last read took less than there was room for: nothing is likely to be left.
    is_short: bool,
}

/// What to withhold from the two sockets. By default they are told everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Manners {
    /// Do not pass the source's end on to the target.
    pub(crate) keep_target: bool,
    /// Do not tell the source that the target is gone.
    pub(crate) keep_source: bool,
}

impl Flow {
    pub(crate) fn new(pending: Vec<u8>) -> Flow {
        Flow {
            pending,
            start: 0,
            record: 0,
            pipe: None,
            phase: Phase::Open,
            way: Way::Copy,
            position: Position::default(),
            manners: Manners::default(),
            place: Place { index: 0, direction: 0 },
            seq: 0,
            is_short: false,
        }
    }

    /// A direction that another image of this keeper began.
    pub(crate) fn resume(pending: Vec<u8>, pipe: Option<Pipe>, phase: Phase, position: Position) -> Flow {
        Flow { pipe, phase, ..Flow::new(pending).counting_from(position) }
    }

    /// Continues counting from there.
    pub(crate) fn counting_from(self, position: Position) -> Flow {
        let way = if position.frames.is_some() { Way::Watch } else { Way::Copy };
        Flow { position, way, ..self }
    }

    pub(crate) fn with_manners(self, manners: Manners) -> Flow {
        Flow { manners, ..self }
    }

    /// What was written so far.
    pub(crate) fn position(&self) -> Position {
        self.position
    }

    /// The bytes that were read and not yet written, without those in the pipe.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.pending[self.start..]
    }

    pub(crate) fn pipe(&self) -> Option<&Pipe> {
        self.pipe.as_ref()
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    pub(crate) fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// Bytes that were written so far.
    pub(crate) fn moved(&self) -> u64 {
        self.position.moved
    }

    /// True while this direction moves bulk data.
    pub(crate) fn is_bulk(&self) -> bool {
        self.splice_at_most() > 0
    }

    /// Moves what can be moved now, at most one turn's worth. True if there is more to do without a new event.
    pub(crate) fn advance(&mut self, from: &mut End, to: &mut End, tools: &mut Tools) -> bool {
        let mut left = TURN;
        self.is_short = false;
        while self.phase != Phase::Done {
            if to.gone {
                self.give_up(from, tools);
                return false;
            }
            match self.flush(to, &tools.shared) {
                Outcome::Moved(_) | Outcome::End => {}
                Outcome::WouldBlock => return false,
                Outcome::Dead => continue,
            }
            self.release_pipe(tools);
            if self.phase == Phase::Ending {
                self.pass_end_on(to);
                return false;
            }
            if !from.readable {
                return false;
            }
            if left == 0 {
                return true;
            }
            match self.fill(from, to, tools) {
                Outcome::Moved(bytes) => left = left.saturating_sub(bytes),
                Outcome::WouldBlock => from.readable = false,
                Outcome::End => self.phase = Phase::Ending,
                Outcome::Dead => {
                    // A reset: writing there is impossible too.
                    from.gone = true;
                    self.phase = Phase::Ending;
                }
            }
        }
        false
    }

    fn pass_end_on(&mut self, to: &End) {
        if !self.manners.keep_target {
            let _ = shutdown(&to.fd, Shutdown::Write);
        }
        self.phase = Phase::Done;
    }

    /// Writes held bytes.
    fn flush(&mut self, to: &mut End, shared: &Shared) -> Outcome {
        while self.start < self.pending.len() {
            let seq = shared.arm(Doing::Flush(self.place));
            match write(to, &self.pending[self.start..], shared) {
                Outcome::Moved(bytes) => {
                    self.position.pass(&self.pending[self.start..self.start + bytes]);
                    self.start += bytes;
                    self.publish(shared, seq);
                }
                other => return other,
            }
        }
        self.hold_nothing(shared);
        while self.pipe.as_ref().is_some_and(|pipe| pipe.held > 0) {
            match self.drain(to, shared) {
                Outcome::Moved(_) => {}
                other => return other,
            }
        }
        Outcome::Moved(0)
    }

    /// Returns an empty pipe: an idle stream holds none.
    fn release_pipe(&mut self, tools: &mut Tools) {
        if let Some(pipe) = self.pipe.take() {
            // It may be another's next.
            self.publish(&tools.shared, self.seq);
            tools.pipes.give_back(pipe);
        }
    }

    /// The target takes no more bytes. Tells the source as the kernel would have done without us in between: on a unix
    /// socket its next write fails with EPIPE. A source that is not told may get another target, for what is held, too.
    fn give_up(&mut self, from: &mut End, tools: &mut Tools) {
        self.phase = Phase::Done;
        if self.manners.keep_source {
            return self.empty_pipe(tools);
        }
        self.hold_nothing(&tools.shared);
        self.release_pipe(tools);
        let _ = shutdown(&from.fd, Shutdown::Read);
    }

    /// The bytes that were read and not written, at the end of the stream.
    pub(crate) fn take_unsent(&mut self, tools: &mut Tools) -> Vec<u8> {
        self.empty_pipe(tools);
        self.pending().to_vec()
    }

    /// Returns what is held, at the end of the stream.
    pub(crate) fn close(&mut self, tools: &mut Tools) {
        self.release_pipe(tools);
    }

    /// Reads and discards what waits in the socket of a finished stream: closing it with unread bytes would make TCP
    /// send a reset, which may overtake the last bytes that we wrote.
    pub(crate) fn discard(from: &End) {
        let mut left = TURN;
        let mut buffer = [0; SCRATCH];
        while left > 0 {
            match rustix::io::read(&from.fd, &mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(read) => left = left.saturating_sub(read),
            }
        }
    }
}

/// Writes what there is room for.
fn write(to: &mut End, bytes: &[u8], shared: &Shared) -> Outcome {
    if to.gone {
        return Outcome::Dead;
    }
    if !to.writable {
        return Outcome::WouldBlock;
    }
    match shared.send(to.fd.as_fd(), bytes) {
        Ok(written) => Outcome::Moved(written),
        Err(Errno::AGAIN) => {
            to.writable = false;
            Outcome::WouldBlock
        }
        Err(_) => {
            to.gone = true;
            Outcome::Dead
        }
    }
}
