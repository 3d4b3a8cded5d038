//! How one direction moves bytes: by way of a pipe where they are many, by way of the shared buffer where they are few.
//!
//! Each call that takes bytes from where a successor would find them is armed first.

use super::{BULK_FROM, BULK_UNTIL, Flow, Outcome, Tools, Way, write};
use crate::pump::end::End;
use crate::shared::board::Doing;
use crate::shared::{STREAM_BUFFER, Shared};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::os::fd::AsFd;

impl Flow {
    /// Moves bytes from the pipe to the target, once.
    pub(super) fn drain(&mut self, to: &mut End, shared: &Shared) -> Outcome {
        let Some(pipe) = &mut self.pipe else { return Outcome::Moved(0) };
        if !to.writable {
            return Outcome::WouldBlock;
        }
        let seq = shared.arm(Doing::Drain(self.place, pipe.held));
        match pipe.empty_into(to.fd.as_fd()) {
            Ok(bytes) => {
                self.position.pass_unseen(bytes);
                self.publish(shared, seq);
                Outcome::Moved(bytes)
            }
            Err(Errno::INTR) => Outcome::Moved(0),
            Err(Errno::AGAIN) => {
                to.writable = false;
                Outcome::WouldBlock
            }
            Err(Errno::INVAL) => self.unsplice(to, shared),
            Err(_) => {
                to.gone = true;
                Outcome::Dead
            }
        }
    }

    /// The target does not support splice: takes bytes out of the pipe again, and writes them.
    pub(super) fn unsplice(&mut self, to: &mut End, shared: &Shared) -> Outcome {
        self.way = Way::CopyOnly;
        self.take_back(shared);
        self.flush(to, shared)
    }

    /// Takes all bytes out of the pipe again, and returns it.
    pub(super) fn empty_pipe(&mut self, tools: &mut Tools) {
        while self.pipe.as_ref().is_some_and(|pipe| pipe.held > 0) {
            self.take_back(&tools.shared);
        }
        self.release_pipe(tools);
    }

    /// Takes bytes out of the pipe again; they come behind those that are held.
    fn take_back(&mut self, shared: &Shared) {
        let Some(pipe) = &mut self.pipe else { return };
        let seq = shared.arm(Doing::Unsplice(self.place, pipe.held));
        let read = shared.board().read_pipe(pipe.reader.as_fd()).unwrap_or(0);
        // A pipe that gives nothing has nothing.
        pipe.held = if read == 0 { 0 } else { pipe.held.saturating_sub(read) };
        self.pending.extend_from_slice(shared.board().buffer(read));
        self.hold(shared);
        shared.commit();
        self.publish(shared, seq);
    }

    pub(super) fn fill(&mut self, from: &mut End, to: &mut End, tools: &mut Tools) -> Outcome {
        let most = self.splice_at_most();
        let pipe = if most > 0 { tools.pipes.take() } else { None };
        if let Some(pipe) = pipe {
            self.pipe = Some(pipe);
            self.publish(&tools.shared, self.seq);
            return self.fill_pipe(from, most);
        }
        self.copy(from, to, &tools.shared)
    }

    fn fill_pipe(&mut self, from: &End, most: usize) -> Outcome {
        let Some(pipe) = &mut self.pipe else { return Outcome::Moved(0) };
        let result = pipe.fill(from.fd.as_fd(), most);
        self.judge_splice(result)
    }

    /// How many bytes may be spliced now. Everything read has been written by now, so the position is where the next
    /// byte will be read.
    pub(super) fn splice_at_most(&self) -> usize {
        match (self.way, self.position.frames) {
            (Way::Splice, _) => usize::MAX,
            (Way::Watch, Some(frames)) if frames.left as usize >= BULK_FROM => frames.left as usize,
            _ => 0,
        }
    }

    /// How many bytes may be copied now: between long frames only a header, so that their payload can be spliced.
    fn copy_at_most(&self) -> usize {
        let frames = self.position.frames.filter(|_| self.way == Way::Watch);
        frames.and_then(|frames| frames.header_left(BULK_FROM)).unwrap_or(STREAM_BUFFER)
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

    pub(super) fn copy(&mut self, from: &mut End, to: &mut End, shared: &Shared) -> Outcome {
        let most = self.copy_at_most();
        if self.is_short && is_empty(from) {
            return Outcome::WouldBlock;
        }
        let seq = shared.arm(Doing::Copy(self.place));
        let read = match shared.receive(from.fd.as_fd(), most) {
            Ok(0) => return Outcome::End,
            Ok(read) => read,
            Err(Errno::AGAIN) => return Outcome::WouldBlock,
            Err(_) => return Outcome::Dead,
        };
        self.is_short = read < most;
        if read >= BULK_FROM && self.way == Way::Copy {
            self.way = Way::Splice;
        }
        let bytes = shared.board().buffer(read);
        let written = match write(to, bytes, shared) {
            Outcome::Moved(written) => written,
            _ => 0,
        };
        self.position.pass(&bytes[..written]);
        if self.way == Way::Watch && self.position.frames.is_some_and(|frames| frames.lost) {
            // These are not frames; there is nothing to track.
            self.way = Way::Copy;
        }
        if written < read {
            self.pending = bytes[written..].to_vec();
            self.hold(shared);
            shared.commit();
        }
        self.publish(shared, seq);
        Outcome::Moved(read)
    }
}

/// Whether a socket has nothing to read now, not even its end. A look is cheaper than a read that is counted.
fn is_empty(from: &End) -> bool {
    recv(&from.fd, &mut [0_u8; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) == Err(Errno::AGAIN)
}
