//! The yardstick R: copies bytes between two unix sockets, in one thread, without a thought about what they mean.
//!
//! As lean as a relay can be that serves many connections: epoll, a buffer for all, six system calls per request and
//! answer. Must never understand anything: what a proxy costs more than this, it pays for what it knows.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

const BUFFER: usize = 64 * 1024;

/// One end, and what it has not yet taken.
struct End {
    stream: UnixStream,
    peer: u64,
    unsent: Vec<u8>,
    ended: bool,
    watched: bool,
}

struct Relay {
    epoll: Epoll,
    ends: HashMap<u64, End>,
    buffer: Vec<u8>,
}

/// Serves for ever.
///
/// # Errors
/// The socket cannot be bound, or epoll fails.
pub(crate) fn serve(listen: &Path, connect: &Path) -> anyhow::Result<()> {
    let listener = UnixListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
    let mut relay = Relay { epoll, ends: HashMap::new(), buffer: vec![0; BUFFER] };
    let mut events = [EpollEvent::empty(); 64];
    loop {
        let count = relay.epoll.wait(&mut events, EpollTimeout::NONE)?;
        for event in &events[..count] {
            match event.data() {
                0 => relay.accept(&listener, connect)?,
                key => relay.turn(key)?,
            }
        }
    }
}

fn key_of(stream: &UnixStream) -> u64 {
    u64::from(stream.as_raw_fd().unsigned_abs())
}

impl Relay {
    fn accept(&mut self, listener: &UnixListener, connect: &Path) -> anyhow::Result<()> {
        while let Ok((client, _)) = listener.accept() {
            let upstream = UnixStream::connect(connect)?;
            let keys = (key_of(&client), key_of(&upstream));
            for (stream, own, peer) in [(client, keys.0, keys.1), (upstream, keys.1, keys.0)] {
                stream.set_nonblocking(true)?;
                self.epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, own))?;
                self.ends.insert(own, End { stream, peer, unsent: Vec::new(), ended: false, watched: true });
            }
        }
        Ok(())
    }

    fn turn(&mut self, key: u64) -> anyhow::Result<()> {
        let Some(end) = self.ends.get_mut(&key) else { return Ok(()) };
        let peer = end.peer;
        if !end.unsent.is_empty() {
            return self.send_rest(key, peer);
        }
        let read = match end.stream.read(&mut self.buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            other => other.unwrap_or(0),
        };
        if read == 0 {
            return self.end(key, peer);
        }
        let Some(target) = self.ends.get_mut(&peer) else { return Ok(()) };
        let sent = match write_some(&mut target.stream, &self.buffer[..read]) {
            Ok(sent) => sent,
            Err(_) => return self.close(key, peer),
        };
        if sent < read {
            target.unsent = self.buffer[sent..read].to_vec();
            self.watch(peer, EpollFlags::EPOLLOUT)?;
            // Not only without EPOLLIN: a hang-up would be told all the same, and nothing may be read now.
            self.unwatch(key)?;
        }
        Ok(())
    }

    fn send_rest(&mut self, key: u64, source: u64) -> anyhow::Result<()> {
        let Some(end) = self.ends.get_mut(&key) else { return Ok(()) };
        let Ok(sent) = write_some(&mut end.stream, &end.unsent) else { return self.close(key, source) };
        end.unsent.drain(..sent);
        if end.unsent.is_empty() {
            self.watch(key, EpollFlags::EPOLLIN)?;
            self.watch(source, EpollFlags::EPOLLIN)?;
        }
        Ok(())
    }

    /// An end's last byte was read: its peer is told, and both are closed when both have ended.
    fn end(&mut self, key: u64, peer: u64) -> anyhow::Result<()> {
        if self.ends.get(&peer).is_none_or(|peer| peer.ended) {
            return self.close(key, peer);
        }
        if let Some(peer) = self.ends.get(&peer) {
            let _ = peer.stream.shutdown(Shutdown::Write);
        }
        self.unwatch(key)?;
        if let Some(end) = self.ends.get_mut(&key) {
            end.ended = true;
        }
        Ok(())
    }

    fn close(&mut self, key: u64, peer: u64) -> anyhow::Result<()> {
        self.ends.remove(&key);
        self.ends.remove(&peer);
        Ok(())
    }

    fn watch(&mut self, key: u64, flags: EpollFlags) -> anyhow::Result<()> {
        let Some(end) = self.ends.get_mut(&key) else { return Ok(()) };
        // One that has ended is only written to.
        if end.ended && flags == EpollFlags::EPOLLIN {
            return self.unwatch(key);
        }
        match std::mem::replace(&mut end.watched, true) {
            true => self.epoll.modify(&end.stream, &mut EpollEvent::new(flags, key))?,
            false => self.epoll.add(&end.stream, EpollEvent::new(flags, key))?,
        }
        Ok(())
    }

    fn unwatch(&mut self, key: u64) -> anyhow::Result<()> {
        let Some(end) = self.ends.get_mut(&key) else { return Ok(()) };
        if std::mem::replace(&mut end.watched, false) {
            self.epoll.delete(&end.stream)?;
        }
        Ok(())
    }
}

fn write_some(stream: &mut UnixStream, bytes: &[u8]) -> io::Result<usize> {
    match stream.write(bytes) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}
