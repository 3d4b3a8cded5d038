//! The pipes through which splice(2) moves bulk data. Only streams with bytes in a pipe hold one.
//!
//! It must never give out a pipe that still has bytes of another stream in it.

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use std::os::fd::{BorrowedFd, OwnedFd};

/// The pipe size to ask for: the kernel's default limit for unprivileged users (/proc/sys/fs/pipe-max-size).
const PIPE_SIZE: usize = 1 << 20;
/// How many may be in use at once: streams beyond that are copied.
const MOST_IN_USE: usize = 64;
/// How many empty ones are kept for reuse.
const MOST_KEPT: usize = 8;

/// A pipe, and how many bytes are in it.
pub(crate) struct Pipe {
    pub(crate) reader: OwnedFd,
    pub(crate) writer: OwnedFd,
    pub(crate) held: usize,
}

impl Pipe {
    /// Moves at most this many bytes from a socket into the empty pipe; 0 means end of file.
    pub(crate) fn fill(&mut self, from: BorrowedFd<'_>, most: usize) -> Result<usize, Errno> {
        let moved = splice_now(from, &self.writer, most.min(PIPE_SIZE))?;
        self.held += moved;
        Ok(moved)
    }

    /// Moves bytes from the pipe into a socket.
    pub(crate) fn empty_into(&mut self, to: BorrowedFd<'_>) -> Result<usize, Errno> {
        let moved = splice_now(&self.reader, to, self.held)?;
        self.held = self.held.saturating_sub(moved);
        Ok(moved)
    }
}

fn splice_now(from: impl rustix::fd::AsFd, to: impl rustix::fd::AsFd, most: usize) -> Result<usize, Errno> {
    splice(from, None, to, None, most, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)
}

/// The store of empty pipes.
pub(crate) struct Pipes {
    kept: Vec<Pipe>,
    in_use: usize,
}

impl Pipes {
    pub(crate) fn new() -> Pipes {
        Pipes { kept: Vec::with_capacity(MOST_KEPT), in_use: 0 }
    }

    /// An empty pipe; none when the limit is reached.
    pub(crate) fn take(&mut self) -> Option<Pipe> {
        if self.in_use >= MOST_IN_USE {
            return None;
        }
        let pipe = self.kept.pop().or_else(Pipes::create)?;
        self.in_use += 1;
        Some(pipe)
    }

    fn create() -> Option<Pipe> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        // Refused to users above their share of pipe pages: the pipe stays small.
        let _ = fcntl_setpipe_size(&writer, PIPE_SIZE);
        Some(Pipe { reader, writer, held: 0 })
    }

    /// Counts a pipe of a stream that another image of this keeper began like one taken here.
    pub(crate) fn adopt(&mut self) {
        self.in_use += 1;
    }

    /// Takes a pipe back; closes it if it still has bytes in it.
    pub(crate) fn give_back(&mut self, pipe: Pipe) {
        self.in_use = self.in_use.saturating_sub(1);
        if pipe.held == 0 && self.kept.len() < MOST_KEPT {
            self.kept.push(pipe);
        }
    }
}
