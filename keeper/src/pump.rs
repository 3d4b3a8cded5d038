//! All streams in flight, and moving their bytes: fairly, with bounded memory, half-close included.
//!
//! It must never change a byte, look at no more of them than where frames end, and never wait: what can't be moved now is moved when epoll says so.

pub(crate) mod flow;
pub(crate) mod pipes;
pub(crate) mod stream;

use crate::poller::{Happening, Interest, Poller, Token};
use crate::position::Position;
use crate::pump::flow::Tools;
use crate::pump::stream::Stream;
use crate::slots::{Key, Slots};
use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::OwnedFd;

/// All streams.
pub(crate) struct Pump {
    streams: Slots<Stream>,
    /// Streams that have something to do now; each at most once (`Stream::queued`).
    queue: VecDeque<Key>,
    tools: Tools,
    finished: u64,
    ended: Vec<EndedStream>,
}

/// A stream whose upstream is over and whose client is to be parked.
pub(crate) struct EndedStream {
    pub(crate) client: OwnedFd,
    pub(crate) note: Vec<u8>,
    pub(crate) position: Position,
    /// When the upstream ended, in nanoseconds of the Unix epoch.
    pub(crate) at: u64,
}

impl Pump {
    pub(crate) fn new() -> Pump {
        Pump {
            streams: Slots::new(),
            queue: VecDeque::new(),
            tools: Tools::new(),
            finished: 0,
            ended: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.streams.len()
    }

    /// Goes on counting from there.
    pub(crate) fn set_finished(&mut self, finished: u64) {
        self.finished = finished;
    }

    /// How many streams came to their end.
    pub(crate) fn finished(&self) -> u64 {
        self.finished
    }

    /// True if `run` has something to do without any new event.
    pub(crate) fn has_work(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Stream> {
        self.streams.iter()
    }

    /// Takes a stream over. On an error both its ends are closed.
    pub(crate) fn add(&mut self, poller: &Poller, mut stream: Stream) -> io::Result<()> {
        let key = self.streams.next_key();
        stream.prepare()?;
        for _ in stream.flows.iter().filter(|flow| flow.pipe().is_some()) {
            self.tools.pipes.adopt();
        }
        poller.add(stream.client(), Token::Client(key), Interest::ReadEdge)?;
        poller.add(stream.upstream(), Token::Upstream(key), Interest::ReadEdge)?;
        // There may be pending bytes, and adding to epoll tells the rest.
        stream.queued = true;
        let key = self.streams.insert(stream);
        self.queue.push_back(key);
        Ok(())
    }

    /// Takes note of an event; the moving is done by `run`.
    pub(crate) fn note(&mut self, happening: Happening) {
        let (key, end) = match happening.token {
            Token::Client(key) => (key, 0),
            Token::Upstream(key) => (key, 1),
            _ => return,
        };
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.ends[end].note(happening);
        if !mem::replace(&mut stream.queued, true) {
            self.queue.push_back(key);
        }
    }

    /// Moves a bounded number of bytes of each stream that has something to do.
    pub(crate) fn run(&mut self, poller: &Poller) {
        for _ in 0..self.queue.len() {
            let Some(key) = self.queue.pop_front() else { return };
            self.advance(poller, key);
        }
    }

    fn advance(&mut self, poller: &Poller, key: Key) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.queued = stream.advance(&mut self.tools);
        if stream.is_to_be_parked() {
            return self.set_aside(poller, key);
        }
        if stream.is_done() {
            return self.finish(key);
        }
        stream.arm(poller, key);
        if stream.queued {
            self.queue.push_back(key);
        }
    }

    fn finish(&mut self, key: Key) {
        if let Some(mut stream) = self.streams.remove(key) {
            self.finished += 1;
            stream.close(&mut self.tools);
        }
    }

    fn set_aside(&mut self, poller: &Poller, key: Key) {
        let Some(mut stream) = self.streams.remove(key) else { return };
        self.finished += 1;
        // The descriptor lives on, so closing it would not take it out.
        poller.remove(stream.client());
        let position = stream.flows[1].position();
        let note = stream.resume.take().map(|resume| resume.note).unwrap_or_default();
        stream.release(&mut self.tools);
        let [client, upstream] = stream.ends;
        // A client that reads slowly has its last bytes long after the end.
        let at = upstream.gone_at.unwrap_or_else(stream::now);
        self.ended.push(EndedStream { client: client.fd, note, position, at });
    }

    /// Streams that ended since the last call, and can be resumed.
    pub(crate) fn take_ended(&mut self) -> Vec<EndedStream> {
        mem::take(&mut self.ended)
    }

    /// Cuts all streams.
    pub(crate) fn cut_all(&mut self) {
        self.queue.clear();
        self.streams.clear();
    }
}

#[cfg(test)]
mod tests;
