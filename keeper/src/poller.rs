//! epoll, with tokens that identify the source of an event.
//!
//! It must never own a descriptor that it watches: closing a descriptor also ends the watch.

use crate::slots::Key;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// The source of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    /// A stream's client side.
    Client(Key),
    /// A stream's upstream side.
    Upstream(Key),
    /// Where a stream's client side is sent to, if not upstream.
    Input(Key),
    /// The signalfd.
    Signals,
    /// The control socket of a worker, by the worker's number.
    Worker(u32),
    /// The captured stderr of a child, by its number.
    Stderr(u32),
    /// The listening socket for upgrade requests.
    Control,
    /// One requester's connection, by its number.
    Requester(u32),
    /// A listener whose clients the keeper accepts, by its place.
    Accept(u32),
    /// A client that a worker serves, by its number.
    Held(u64),
    /// The process of a worker, by the worker's number.
    Process(u32),
}

/// Clients are counted up to here.
const HELD: u64 = (1 << 56) - 1;

impl Token {
    fn pack(self) -> u64 {
        let key = |kind: u64, key: Key| kind << 56 | u64::from(key.generation) << 32 | u64::from(key.index);
        let number = |kind: u64, number: u32| kind << 56 | u64::from(number);
        match self {
            Token::Client(at) => key(0, at),
            Token::Upstream(at) => key(1, at),
            Token::Signals => number(2, 0),
            Token::Worker(id) => number(3, id),
            Token::Stderr(id) => number(4, id),
            Token::Control => number(5, 0),
            Token::Requester(id) => number(6, id),
            Token::Accept(at) => number(7, at),
            Token::Held(id) => 8 << 56 | (id & HELD),
            Token::Process(id) => number(9, id),
            Token::Input(at) => key(10, at),
        }
    }

    fn unpack(data: u64) -> Option<Token> {
        let number = data as u32;
        let key = Key { index: number, generation: (data >> 32) as u32 & 0x00ff_ffff };
        Some(match data >> 56 {
            0 => Token::Client(key),
            1 => Token::Upstream(key),
            2 => Token::Signals,
            3 => Token::Worker(number),
            4 => Token::Stderr(number),
            5 => Token::Control,
            6 => Token::Requester(number),
            7 => Token::Accept(number),
            8 => Token::Held(data & HELD),
            9 => Token::Process(number),
            10 => Token::Input(key),
            _ => return None,
        })
    }
}

/// Which events to report. Hang-ups and errors are always reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Edge-triggered: something to read.
    ReadEdge,
    /// Edge-triggered: something to read, or room to write.
    BothEdge,
    /// Level-triggered: something to read.
    Read,
    /// Level-triggered: something to read, or room to write.
    Both,
    /// Level-triggered: room to write.
    Write,
    /// Hang-ups only.
    Nothing,
}

impl Interest {
    fn flags(self) -> EventFlags {
        match self {
            Interest::ReadEdge => EventFlags::IN | EventFlags::ET,
            Interest::BothEdge => EventFlags::IN | EventFlags::OUT | EventFlags::ET,
            Interest::Read => EventFlags::IN,
            Interest::Both => EventFlags::IN | EventFlags::OUT,
            Interest::Write => EventFlags::OUT,
            Interest::Nothing => EventFlags::empty(),
        }
    }
}

/// One event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Happening {
    pub(crate) token: Token,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// Both directions of the connection are over: nothing that we write can arrive any more.
    pub(crate) hung_up: bool,
}

/// How many events are fetched at once.
const BATCH: usize = 256;

/// The epoll descriptor and a fixed buffer for events.
pub(crate) struct Poller {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Poller> {
        Ok(Poller { epoll: epoll::create(CreateFlags::CLOEXEC)?, events: Vec::with_capacity(BATCH) })
    }

    pub(crate) fn add(&self, fd: impl AsFd, token: Token, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(token.pack()), interest.flags())?)
    }

    pub(crate) fn modify(&self, fd: impl AsFd, token: Token, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, EventData::new_u64(token.pack()), interest.flags())?)
    }

    /// Stops watching a descriptor that stays open.
    pub(crate) fn remove(&self, fd: impl AsFd) {
        // It was added; no other failure is possible.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Waits, and returns the number of events available from `event`.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        // The kernel counts in milliseconds here: rounding down would spin through the last one.
        let timeout = timeout.map(|time| rustix::event::Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: time.subsec_nanos().into(),
        });
        self.events.clear();
        let spare = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, spare, timeout.as_ref()) {
            Ok(_) => Ok(self.events.len()),
            Err(rustix::io::Errno::INTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn event(&self, number: usize) -> Option<Happening> {
        let event = self.events.get(number)?;
        let flags = event.flags;
        Some(Happening {
            token: Token::unpack(event.data.u64())?,
            readable: flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR),
            writable: flags.intersects(EventFlags::OUT | EventFlags::HUP | EventFlags::ERR),
            hung_up: flags.contains(EventFlags::HUP),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{HELD, Token};
    use crate::slots::Key;

    #[test]
    fn tokens_survive_the_trip_through_the_kernel() {
        let key = Key { index: u32::MAX, generation: 0x00ff_ffff };
        for token in
            [Token::Client(key), Token::Upstream(key), Token::Signals, Token::Worker(7), Token::Held(HELD)]
        {
            assert_eq!(Token::unpack(token.pack()), Some(token));
        }
        assert_eq!(Token::unpack(u64::MAX), None);
    }
}
