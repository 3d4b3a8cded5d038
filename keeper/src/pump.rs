//! All streams in flight, and moving their bytes: fairly, with bounded memory, half-close included.
//!
//! It must never change a byte, inspect more of them than frame boundaries, or wait: what cannot be moved now is moved
//! when epoll says so.

pub(crate) mod end;
pub(crate) mod flow;
pub(crate) mod pipes;
pub(crate) mod record;
pub(crate) mod stream;

use crate::poller::{Happening, Interest, Poller, Token};
use crate::position::Position;
use crate::pump::flow::Tools;
use crate::pump::stream::Stream;
use crate::records::{pending_key, stream_key};
use crate::shared::Shared;
use crate::shared::slots::Place;
use crate::slots::{Key, Slots};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// All streams.
pub(crate) struct Pump {
    streams: Slots<Stream>,
    /// How many of them have an input.
    inputs: usize,
    /// Streams with work to do now; each at most once (`Stream::queued`).
    queue: VecDeque<Key>,
    tools: Tools,
    finished: u64,
    /// With what else is open for as long as the record of that index counts: the upstream, and the input if there is one.
    ended: Vec<(EndedStream, Vec<OwnedFd>, u32)>,
}

/// A stream whose upstream has ended and whose client is to be parked.
pub(crate) struct EndedStream {
    pub(crate) client: OwnedFd,
    pub(crate) note: Vec<u8>,
    pub(crate) position: Position,
    /// What was read from the client and not written to the upstream.
    pub(crate) unsent: Vec<u8>,
    /// When the upstream ended, in nanoseconds of the Unix epoch.
    pub(crate) at: u64,
}

impl Pump {
    pub(crate) fn new(shared: Rc<Shared>) -> Pump {
        Pump {
            streams: Slots::new(),
            inputs: 0,
            queue: VecDeque::new(),
            tools: Tools::new(shared),
            finished: 0,
            ended: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.streams.len()
    }

    /// Continues the count from this number.
    pub(crate) fn set_finished(&mut self, finished: u64) {
        self.finished = finished;
    }

    /// How many streams have ended.
    pub(crate) fn finished(&self) -> u64 {
        self.finished
    }

    /// True if `run` has work to do without any new event.
    pub(crate) fn has_work(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Stream> {
        self.streams.iter()
    }

    /// How many sockets they have.
    pub(crate) fn descriptors(&self) -> usize {
        2 * self.len() + self.inputs
    }

    /// Takes a stream over. On an error all its ends are closed.
    pub(crate) fn add(&mut self, poller: &Poller, mut stream: Stream) -> io::Result<()> {
        let key = self.streams.next_key();
        stream.prepare()?;
        if !self.tools.shared.has_slot(key.index) {
            return Err(Errno::NOSPC.into());
        }
        for _ in stream.flows.iter().filter(|flow| flow.pipe().is_some()) {
            self.tools.pipes.adopt();
        }
        poller.add(stream.client(), Token::Client(key), Interest::ReadEdge)?;
        poller.add(stream.upstream(), Token::Upstream(key), Interest::ReadEdge)?;
        if let Some(input) = &stream.input {
            poller.add(&input.fd, Token::Input(key), Interest::ReadEdge)?;
        }
        // There may be pending bytes, and adding to epoll reports the rest.
        stream.queued = true;
        for (flow, direction) in stream.flows.iter_mut().zip(0..) {
            flow.settle(Place { index: key.index, direction }, &self.tools.shared);
        }
        record::put(&self.tools.shared, key.index, &stream);
        self.inputs += usize::from(stream.input.is_some());
        let key = self.streams.insert(stream);
        self.queue.push_back(key);
        Ok(())
    }

    /// Records an event; `run` does the moving.
    pub(crate) fn note(&mut self, happening: Happening) {
        let (Token::Client(key) | Token::Upstream(key) | Token::Input(key)) = happening.token else { return };
        let Some(stream) = self.streams.get_mut(key) else { return };
        let end = match happening.token {
            Token::Client(_) => Some(&mut stream.ends[0]),
            Token::Upstream(_) => Some(&mut stream.ends[1]),
            _ => stream.input.as_mut(),
        };
        let Some(end) = end else { return };
        end.note(happening);
        if !mem::replace(&mut stream.queued, true) {
            self.queue.push_back(key);
        }
    }

    /// Moves a bounded number of bytes of each stream that has work to do.
    pub(crate) fn run(&mut self, poller: &Poller) {
        // No byte of a stream is moved before its record counts.
        self.tools.shared.commit();
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
        if let Some(mut stream) = self.remove(key) {
            stream.release(&mut self.tools);
            self.forget(key.index);
            // A record that counts names descriptors that are open.
            self.tools.shared.commit();
            stream.close();
        }
    }

    /// Takes one out that has ended.
    fn remove(&mut self, key: Key) -> Option<Box<Stream>> {
        let stream = self.streams.remove(key)?;
        self.finished += 1;
        self.inputs -= usize::from(stream.input.is_some());
        Some(stream)
    }

    /// Drops the records of a stream.
    fn forget(&self, index: u32) {
        for direction in 0..2 {
            self.tools.shared.remove(pending_key(Place { index, direction }));
        }
        self.tools.shared.remove(stream_key(index));
    }

    fn set_aside(&mut self, poller: &Poller, key: Key) {
        let Some(mut stream) = self.remove(key) else { return };
        // The descriptor stays open, so epoll would keep watching it.
        poller.remove(stream.client());
        let position = stream.flows[1].position();
        let unsent = stream.flows[0].take_unsent(&mut self.tools);
        let note = stream.resume.take().map(|resume| resume.note).unwrap_or_default();
        stream.release(&mut self.tools);
        let Stream { ends: [client, upstream], input, .. } = *stream;
        // A slow client receives its last bytes long after the upstream's end.
        let at = upstream.gone_at.unwrap_or_else(end::now);
        let others = [upstream].into_iter().chain(input).map(|end| end.fd).collect();
        self.ended.push((EndedStream { client: client.fd, note, position, unsent, at }, others, key.index));
    }

    /// Resumable streams that ended since the last call. They are forgotten with the next commit, until which each must
    /// have a record of another kind.
    pub(crate) fn take_ended(&mut self) -> Vec<EndedStream> {
        let ended = mem::take(&mut self.ended).into_iter();
        ended
            .map(|(stream, others, index)| {
                self.forget(index);
                self.tools.shared.bury(others);
                stream
            })
            .collect()
    }

    /// Cuts all streams.
    pub(crate) fn cut_all(&mut self) {
        self.queue.clear();
        self.streams.clear();
        self.inputs = 0;
    }
}

#[cfg(test)]
mod tests;
