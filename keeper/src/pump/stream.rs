//! A stream: a client, an upstream, and the two directions between them. What comes from the client may go to another
//! connection than the one that it is answered from.
//!
//! It must never be closed while it holds bytes that a side can still receive.

use crate::poller::{Poller, Token};
use crate::position::Position;
use crate::pump::end::End;
use crate::pump::flow::{Flow, Manners, Tools};
use crate::slots::Key;
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

/// Makes a stream resumable over another upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resume {
    /// For the worker that finds another upstream.
    pub(crate) note: Vec<u8>,
    /// Do not pass on the client's half-close to the upstream, which would take it for the client leaving.
    pub(crate) hold_upstream: bool,
}

/// One stream.
pub(crate) struct Stream {
    pub(crate) label: Box<str>,
    pub(crate) since: Instant,
    /// The client, the upstream.
    pub(crate) ends: [End; 2],
    /// Where the client's bytes go instead of the upstream. Its end is the end of that direction only.
    pub(crate) input: Option<End>,
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
            input: None,
            flows: pending.map(Flow::new),
            queued: false,
            resume: None,
        }
    }

    /// Sends the client's bytes there instead of to the upstream. Before it is made resumable.
    pub(crate) fn with_input(self, input: Option<OwnedFd>) -> Stream {
        Stream { input: input.map(End::new), ..self }
    }

    /// Makes it a stream whose client is parked when the upstream ends.
    pub(crate) fn resumable(mut self, resume: Resume, position: Position) -> Stream {
        self.flows[1] = std::mem::replace(&mut self.flows[1], Flow::new(Vec::new())).counting_from(position);
        self.with_resume(Some(resume))
    }

    pub(crate) fn with_resume(mut self, resume: Option<Resume>) -> Stream {
        if let Some(resume) = &resume {
            let [up, down] = self.flows;
            let keep_target = resume.hold_upstream && self.input.is_none();
            self.flows = [
                up.with_manners(Manners { keep_source: true, keep_target }),
                down.with_manners(Manners { keep_target: true, keep_source: false }),
            ];
        }
        Stream { resume, ..self }
    }

    /// The upstream has ended, and the client is still there and has received everything.
    pub(crate) fn is_to_be_parked(&self) -> bool {
        self.resume.is_some() && self.flows[1].is_done() && !self.ends[0].gone
    }

    /// A stream that another image of this keeper began. epoll will report its state again.
    pub(crate) fn resume(label: &str, since: Instant, ends: [OwnedFd; 2], flows: [Flow; 2]) -> Stream {
        let ends = ends.map(End::new);
        Stream { label: label.into(), since, ends, input: None, flows, queued: false, resume: None }
    }

    pub(crate) fn client(&self) -> BorrowedFd<'_> {
        self.ends[0].fd.as_fd()
    }

    pub(crate) fn upstream(&self) -> BorrowedFd<'_> {
        self.ends[1].fd.as_fd()
    }

    /// Refuses anything but a stream socket: reading a file or a terminal could block the whole keeper.
    pub(crate) fn prepare(&mut self) -> io::Result<()> {
        for end in self.ends.iter().chain(&self.input) {
            if rustix::net::sockopt::socket_type(&end.fd)? != rustix::net::SocketType::STREAM {
                return Err(Errno::PROTOTYPE.into());
            }
            rustix::io::ioctl_fionbio(&end.fd, true)?;
            // Keepalive notices a TCP peer that vanished silently; unix sockets don't mind.
            let _ = rustix::net::sockopt::set_socket_keepalive(&end.fd, true);
        }
        Ok(())
    }

    /// Moves what can be moved now. True if there is more to do without a new event.
    pub(crate) fn advance(&mut self, tools: &mut Tools) -> bool {
        let gone = self.gone();
        let [client, upstream] = &mut self.ends;
        let [to_upstream, to_client] = &mut self.flows;
        let more_up = match &mut self.input {
            Some(input) => to_upstream.advance(client, input, tools),
            None => to_upstream.advance(client, upstream, tools),
        };
        let more_down = to_client.advance(upstream, client, tools);
        // What one direction learns about an end concerns the other direction too.
        more_up || more_down || gone != self.gone()
    }

    fn gone(&self) -> [bool; 3] {
        let [client, upstream] = &self.ends;
        [client.gone, upstream.gone, self.input.as_ref().is_some_and(|input| input.gone)]
    }

    /// Tells epoll what this stream waits for now.
    pub(crate) fn arm(&mut self, poller: &Poller, key: Key) {
        let [to_upstream, to_client] = &self.flows;
        self.ends[0].arm(poller, Token::Client(key), to_client.is_bulk());
        match &mut self.input {
            Some(input) => input.arm(poller, Token::Input(key), to_upstream.is_bulk()),
            None => self.ends[1].arm(poller, Token::Upstream(key), to_upstream.is_bulk()),
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.flows.iter().all(Flow::is_done)
    }

    /// Returns what both directions hold.
    pub(crate) fn release(&mut self, tools: &mut Tools) {
        for flow in &mut self.flows {
            flow.close(tools);
        }
    }

    /// Closes all ends.
    pub(crate) fn close(self) {
        self.ends.iter().chain(&self.input).for_each(Flow::discard);
    }
}
