//! The pump by itself, without workers: for benchmarks and tests.
//!
//! It must never be used by the keeper.

use crate::poller::{Interest, Poller, Token};
use crate::position::Position;
use crate::pump::Pump;
use crate::pump::stream::{Resume, Stream};
use crate::shared::Shared;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// More than any test or benchmark has at once.
const STREAMS: usize = 100_000;

/// A pump with an epoll of its own.
pub struct Relay {
    poller: Poller,
    pump: Pump,
}

impl Relay {
    /// A pump without streams.
    ///
    /// # Errors
    /// If epoll is not available.
    pub fn new() -> io::Result<Relay> {
        let shared = Rc::new(Shared::new(STREAMS)?);
        Ok(Relay { poller: Poller::new()?, pump: Pump::new(shared) })
    }

    /// Makes `turn` return when there is something to read here.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn watch(&self, fd: impl AsFd) -> io::Result<()> {
        self.poller.add(fd, Token::Control, Interest::Read)
    }

    /// Takes a stream over; `pending` is what was already read: for the upstream, for the client.
    ///
    /// # Errors
    /// If either is not a stream socket.
    pub fn give(&mut self, client: OwnedFd, upstream: OwnedFd, pending: [Vec<u8>; 2]) -> io::Result<()> {
        self.pump.add(&self.poller, Stream::new("relay", client, upstream, pending))
    }

    /// Takes over a stream whose upstream sends frames, and whose client is set aside when the upstream ends.
    ///
    /// # Errors
    /// If either is not a stream socket.
    pub fn follow(&mut self, client: OwnedFd, upstream: OwnedFd) -> io::Result<()> {
        let stream = Stream::new("relay", client, upstream, [Vec::new(), Vec::new()]);
        let resume = Resume { note: Vec::new(), hold_upstream: false };
        self.pump.add(&self.poller, stream.resumable(resume, Position::new(true)))
    }

    /// Takes over a stream as `follow` does, whose client's bytes go to another socket.
    ///
    /// # Errors
    /// If any of them is not a stream socket.
    pub fn split(&mut self, client: OwnedFd, upstream: OwnedFd, input: OwnedFd) -> io::Result<()> {
        let stream = Stream::new("relay", client, upstream, [Vec::new(), Vec::new()]).with_input(Some(input));
        let resume = Resume { note: Vec::new(), hold_upstream: true };
        self.pump.add(&self.poller, stream.resumable(resume, Position::new(true)))
    }

    /// The positions of the streams set aside since the last call; their clients are closed.
    pub fn ended(&mut self) -> Vec<Position> {
        self.pump.take_ended().into_iter().map(|ended| ended.position).collect()
    }

    /// One turn of the loop. True if a descriptor given to `watch` is readable.
    ///
    /// # Errors
    /// If epoll fails.
    pub fn turn(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        let timeout = if self.pump.has_work() { Some(Duration::ZERO) } else { timeout };
        let mut watched = false;
        for number in 0..self.poller.wait(timeout)? {
            if let Some(happening) = self.poller.event(number) {
                watched |= happening.token == Token::Control;
                self.pump.note(happening);
            }
        }
        self.pump.run(&self.poller);
        Ok(watched)
    }

    /// How many streams are in flight.
    pub fn streams(&self) -> usize {
        self.pump.len()
    }
}
