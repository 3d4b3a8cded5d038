//! One direction of a stream: from one socket to the other, until the end of the first or the death of the second.
//!
//! It must never read what it has no place for: one buffer full (or one pipe) is all that is held per direction.

use crate::position::Position;
use crate::pump::pipes::{Pipe, Pipes};
use crate::pump::stream::End;
use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown, send, shutdown};
use std::os::fd::AsFd;

/// Bytes per read when copying.
const BUFFER: usize = 64 << 10;
/// A read of so many bytes is bulk: from then on splice(2).
const BULK_FROM: usize = 16 << 10;
/// A splice of fewer bytes is not bulk any more.
const BULK_UNTIL: usize = 4 << 10;
/// Bytes that one direction may move before the others have their turn.
const TURN: usize = 256 << 10;

/// What all streams share.
pub(crate) struct Tools {
    buffer: Box<[u8]>,
    pub(crate) pipes: Pipes,
}

impl Tools {
    pub(crate) fn new() -> Tools {
        Tools { buffer: vec![0; BUFFER].into_boxed_slice(), pipes: Pipes::new() }
    }
}

/// Where a direction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Phase {
    /// Bytes may come.
    Open,
    /// The end was read; what is held must still be written.
    Ending,
    /// All is written and the end is passed on, or nobody is there to take it.
    Done,
}

/// How bytes are moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Copy,
    Splice,
    /// The kernel refused splice(2) for one of the sockets.
    CopyOnly,
    /// Frames are followed: what is spliced must lie within one.
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
    /// Bytes read and not yet written, from `start` on. Comes before what is in the pipe.
    pending: Vec<u8>,
    start: usize,
    pipe: Option<Pipe>,
    phase: Phase,
    way: Way,
    position: Position,
    manners: Manners,
}

/// What the two sockets are not told. By default they are told all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Manners {
    /// The source's end is not passed on to the target.
    pub(crate) keep_target: bool,
    /// That the target is gone is not passed on to the source.
    pub(crate) keep_source: bool,
}

impl Flow {
    pub(crate) fn new(pending: Vec<u8>) -> Flow {
        let (position, manners) = (Position::default(), Manners::default());
        Flow { pending, start: 0, pipe: None, phase: Phase::Open, way: Way::Copy, position, manners }
    }

    /// A direction that another image of this keeper began.
    pub(crate) fn resume(pending: Vec<u8>, pipe: Option<Pipe>, phase: Phase, position: Position) -> Flow {
        Flow { pipe, phase, ..Flow::new(pending).counting_from(position) }
    }

    /// Counts on from there.
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

    /// The bytes that were read and not written, without those in the pipe.
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

    /// True while this direction is in the midst of bulk data.
    pub(crate) fn is_bulk(&self) -> bool {
        self.splice_at_most() > 0
    }

    /// Moves what can be moved now, at most a turn's worth. True if there is more to do without a new event.
    pub(crate) fn advance(&mut self, from: &mut End, to: &mut End, tools: &mut Tools) -> bool {
        let mut left = TURN;
        while self.phase != Phase::Done {
            if to.gone {
                self.give_up(from, tools);
                return false;
            }
            match self.flush(to) {
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
                    // A reset: nothing can be written there either.
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

    /// Writes what is held.
    fn flush(&mut self, to: &mut End) -> Outcome {
        while self.start < self.pending.len() {
            match write(to, &self.pending[self.start..]) {
                Outcome::Moved(bytes) => {
                    self.position.pass(&self.pending[self.start..self.start + bytes]);
                    self.start += bytes;
                }
                other => return other,
            }
        }
        self.pending = Vec::new();
        self.start = 0;
        while let Some(pipe) = self.pipe.as_mut().filter(|pipe| pipe.held > 0) {
            if !to.writable {
                return Outcome::WouldBlock;
            }
            match pipe.empty_into(to.fd.as_fd()) {
                Ok(bytes) => self.position.pass_unseen(bytes),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    to.writable = false;
                    return Outcome::WouldBlock;
                }
                Err(Errno::INVAL) => return self.unsplice(),
                Err(_) => {
                    to.gone = true;
                    return Outcome::Dead;
                }
            }
        }
        Outcome::Moved(0)
    }

    /// The target can't be spliced to: takes the bytes out of the pipe again.
    fn unsplice(&mut self) -> Outcome {
        self.way = Way::CopyOnly;
        if let Some(pipe) = self.pipe.as_mut() {
            let mut bytes = vec![0; pipe.held];
            let read = rustix::io::read(&pipe.reader, &mut bytes).unwrap_or(0);
            bytes.truncate(read);
            pipe.held = pipe.held.saturating_sub(read);
            self.pending = bytes;
        }
        Outcome::Moved(0)
    }

    fn fill(&mut self, from: &mut End, to: &mut End, tools: &mut Tools) -> Outcome {
        let most = self.splice_at_most();
        let pipe = if most > 0 { tools.pipes.take() } else { None };
        if let Some(mut pipe) = pipe {
            let result = pipe.fill(from.fd.as_fd(), most);
            self.pipe = Some(pipe);
            return self.judge_splice(result);
        }
        self.copy(from, to, tools)
    }

    /// How many bytes may be spliced now. All that was read has been written by now, so the position is where the
    /// next byte will be read.
    fn splice_at_most(&self) -> usize {
        match (self.way, self.position.frames) {
            (Way::Splice, _) => usize::MAX,
            (Way::Watch, Some(frames)) if frames.left as usize >= BULK_FROM => frames.left as usize,
            _ => 0,
        }
    }

    /// How many bytes may be copied now: between long frames only a header, so that their payload can be spliced.
    fn copy_at_most(&self) -> usize {
        let frames = self.position.frames.filter(|_| self.way == Way::Watch);
        frames.and_then(|frames| frames.header_left(BULK_FROM)).unwrap_or(BUFFER)
    }

    fn judge_splice(&mut self, result: Result<usize, Errno>) -> Outcome {
        match result {
            Ok(0) => Outcome::End,
            Ok(bytes) => {
                if bytes < BULK_UNTIL && self.way == Way::Splice {
                    self.way = Way::Copy;
                }
                Outcome::Moved(bytes)
            }
            Err(Errno::INTR) => Outcome::Moved(0),
            Err(Errno::AGAIN) => Outcome::WouldBlock,
            Err(Errno::INVAL) => {
                self.way = Way::CopyOnly;
                Outcome::Moved(0)
            }
            Err(_) => Outcome::Dead,
        }
    }

    fn copy(&mut self, from: &mut End, to: &mut End, tools: &mut Tools) -> Outcome {
        let most = self.copy_at_most();
        let read = match rustix::io::read(&from.fd, &mut tools.buffer[..most]) {
            Ok(0) => return Outcome::End,
            Ok(read) => read,
            Err(Errno::INTR) => return Outcome::Moved(0),
            Err(Errno::AGAIN) => return Outcome::WouldBlock,
            Err(_) => return Outcome::Dead,
        };
        if read >= BULK_FROM && self.way == Way::Copy {
            self.way = Way::Splice;
        }
        let mut written = 0;
        while written < read {
            match write(to, &tools.buffer[written..read]) {
                Outcome::Moved(bytes) => written += bytes,
                _ => break,
            }
        }
        self.position.pass(&tools.buffer[..written]);
        if self.way == Way::Watch && self.position.frames.is_some_and(|frames| frames.lost) {
            // These are no frames; there is nothing to watch.
            self.way = Way::Copy;
        }
        if written < read {
            self.pending = tools.buffer[written..read].to_vec();
        }
        Outcome::Moved(read)
    }

    /// Gives an empty pipe back: an idle stream holds none.
    fn release_pipe(&mut self, tools: &mut Tools) {
        if let Some(pipe) = self.pipe.take() {
            tools.pipes.give_back(pipe);
        }
    }

    /// Nobody takes these bytes any more. The other side is told the way the kernel would have told it without
    /// us between them: on a unix socket its next write fails with EPIPE.
    fn give_up(&mut self, from: &mut End, tools: &mut Tools) {
        self.pending = Vec::new();
        self.start = 0;
        self.release_pipe(tools);
        self.phase = Phase::Done;
        if !self.manners.keep_source {
            let _ = shutdown(&from.fd, Shutdown::Read);
        }
    }

    /// Gives back what is held, at the end of the stream.
    pub(crate) fn close(&mut self, tools: &mut Tools) {
        self.release_pipe(tools);
    }

    /// Reads and forgets what waits in the socket of a finished stream: closing it with unread bytes would make
    /// TCP send a reset, which may overtake the last bytes that we wrote.
    pub(crate) fn discard(from: &mut End, tools: &mut Tools) {
        let mut left = TURN;
        while left > 0 {
            match rustix::io::read(&from.fd, &mut tools.buffer[..]) {
                Ok(0) | Err(_) => return,
                Ok(read) => left = left.saturating_sub(read),
            }
        }
    }
}

/// Writes without raising SIGPIPE.
fn write(to: &mut End, bytes: &[u8]) -> Outcome {
    if to.gone {
        return Outcome::Dead;
    }
    if !to.writable {
        return Outcome::WouldBlock;
    }
    loop {
        return match send(&to.fd, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(written) => Outcome::Moved(written),
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => {
                to.writable = false;
                Outcome::WouldBlock
            }
            Err(_) => {
                to.gone = true;
                Outcome::Dead
            }
        };
    }
}
