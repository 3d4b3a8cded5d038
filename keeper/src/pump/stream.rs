//! A stream: a client, an upstream, and the two directions between them.
//!
//! It must never be closed while bytes that somebody can still receive are held.

use crate::poller::{Happening, Interest, Poller, Token};
use crate::position::Position;
use crate::pump::flow::{Flow, Manners, Tools};
use crate::slots::Key;
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// One of the two sockets, and what epoll told of it.
pub(crate) struct End {
    pub(crate) fd: OwnedFd,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// Nothing that is written here can arrive any more.
    pub(crate) gone: bool,
    /// When it was first seen that the peer is gone, in nanoseconds of the Unix epoch.
    pub(crate) gone_at: Option<u64>,
    watches_room: bool,
}

/// Nanoseconds of the Unix epoch.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}

impl End {
    fn new(fd: OwnedFd) -> End {
        End { fd, readable: false, writable: true, gone: false, gone_at: None, watches_room: false }
    }

    pub(crate) fn note(&mut self, happening: Happening) {
        self.readable |= happening.readable;
        self.writable |= happening.writable;
        // For a unix socket: the peer has closed, or each direction was shut down by one of us. For TCP: both
        // directions are shut down, or the connection was reset.
        self.gone |= happening.hung_up;
        if happening.hung_up {
            self.gone_at.get_or_insert_with(now);
        }
    }

    /// Asks epoll for "room to write" only while that is what we wait for: each byte that the peer takes would
    /// wake us otherwise.
    /// In the midst of bulk data the wish stays, as it would come back with the next full buffer.
    fn arm(&mut self, poller: &Poller, token: Token, bulk: bool) {
        let wanted = !self.writable || (bulk && self.watches_room);
        if wanted == self.watches_room {
            return;
        }
        let interest = if wanted { Interest::BothEdge } else { Interest::ReadEdge };
        match poller.modify(&self.fd, token, interest) {
            Ok(()) => self.watches_room = wanted,
            // Without memory for this in the kernel the stream would hang for ever.
            Err(_) => self.gone = true,
        }
    }
}

/// What makes a stream one that can go on with another upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resume {
    /// For the worker that finds another upstream.
    pub(crate) note: Vec<u8>,
    /// The client's half-close is not passed on: the upstream would take it for the client's leave.
    pub(crate) hold_upstream: bool,
}

/// One stream.
pub(crate) struct Stream {
    pub(crate) label: Box<str>,
    pub(crate) since: Instant,
    /// The client, the upstream.
    pub(crate) ends: [End; 2],
    /// Client to upstream, upstream to client.
    pub(crate) flows: [Flow; 2],
    pub(crate) queued: bool,
    pub(crate) resume: Option<Resume>,
}

impl Stream {
    /// A stream with bytes that were already read from each side: `pending` is [to upstream, to client].
    pub(crate) fn new(label: &str, client: OwnedFd, upstream: OwnedFd, pending: [Vec<u8>; 2]) -> Stream {
        Stream {
            label: label.into(),
            since: Instant::now(),
            ends: [End::new(client), End::new(upstream)],
            flows: pending.map(Flow::new),
            queued: false,
            resume: None,
        }
    }

    /// Makes it one whose client is parked when the upstream ends.
    pub(crate) fn resumable(mut self, resume: Resume, position: Position) -> Stream {
        self.flows[1] = std::mem::replace(&mut self.flows[1], Flow::new(Vec::new())).counting_from(position);
        self.with_resume(Some(resume))
    }

    pub(crate) fn with_resume(mut self, resume: Option<Resume>) -> Stream {
        if let Some(resume) = &resume {
            let [up, down] = self.flows;
            self.flows = [
                up.with_manners(Manners { keep_source: true, keep_target: resume.hold_upstream }),
                down.with_manners(Manners { keep_target: true, keep_source: false }),
            ];
        }
        Stream { resume, ..self }
    }

    /// The upstream is over, and the client is there and has got all of it.
    pub(crate) fn is_to_be_parked(&self) -> bool {
        self.resume.is_some() && self.flows[1].is_done() && !self.ends[0].gone
    }

    /// A stream that another image of this keeper began. What epoll told of it, it will tell again.
    pub(crate) fn resume(label: &str, since: Instant, ends: [OwnedFd; 2], flows: [Flow; 2]) -> Stream {
        Stream { label: label.into(), since, ends: ends.map(End::new), flows, queued: false, resume: None }
    }

    pub(crate) fn client(&self) -> BorrowedFd<'_> {
        self.ends[0].fd.as_fd()
    }

    pub(crate) fn upstream(&self) -> BorrowedFd<'_> {
        self.ends[1].fd.as_fd()
    }

    /// Refuses what is no stream socket: reading a file or a terminal could block the whole keeper.
    pub(crate) fn prepare(&mut self) -> io::Result<()> {
        for end in &self.ends {
            if rustix::net::sockopt::socket_type(&end.fd)? != rustix::net::SocketType::STREAM {
                return Err(Errno::PROTOTYPE.into());
            }
            rustix::io::ioctl_fionbio(&end.fd, true)?;
            // So that a TCP peer which vanished without a word is noticed; unix sockets don't mind.
            let _ = rustix::net::sockopt::set_socket_keepalive(&end.fd, true);
        }
        Ok(())
    }

    /// Moves what can be moved now. True if there is more to do without a new event.
    pub(crate) fn advance(&mut self, tools: &mut Tools) -> bool {
        let [client, upstream] = &mut self.ends;
        let [to_upstream, to_client] = &mut self.flows;
        let gone = (client.gone, upstream.gone);
        let more_up = to_upstream.advance(client, upstream, tools);
        let more_down = to_client.advance(upstream, client, tools);
        // What one direction finds out about an end concerns the other direction too.
        more_up || more_down || gone != (client.gone, upstream.gone)
    }

    /// Tells epoll what this stream waits for now.
    pub(crate) fn arm(&mut self, poller: &Poller, key: Key) {
        let [to_upstream, to_client] = &self.flows;
        self.ends[0].arm(poller, Token::Client(key), to_client.is_bulk());
        self.ends[1].arm(poller, Token::Upstream(key), to_upstream.is_bulk());
    }

    pub(crate) fn is_done(&self) -> bool {
        self.flows.iter().all(Flow::is_done)
    }

    /// Gives back what both directions hold.
    pub(crate) fn release(&mut self, tools: &mut Tools) {
        for flow in &mut self.flows {
            flow.close(tools);
        }
    }

    /// Closes both ends.
    pub(crate) fn close(&mut self, tools: &mut Tools) {
        self.release(tools);
        for end in &mut self.ends {
            Flow::discard(end, tools);
        }
    }
}
