//! A trivially fast engine: shows a proxy's own cost. One thread answers what it made beforehand; bulk transfers get
//! a thread each.
//!
//! It also answers what Selvedge asks when it starts. Must never be mistaken for an engine: it knows no containers.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

const CHUNK: usize = 64 * 1024;

struct Upstream {
    epoll: Epoll,
    clients: HashMap<u64, (UnixStream, Vec<u8>)>,
    ping: Vec<u8>,
    inspect: Vec<u8>,
}

/// Serves for ever.
///
/// # Errors
/// The socket cannot be bound, the inspect cannot be read, or epoll fails.
pub(crate) fn serve(socket: &Path, inspect: Option<&Path>) -> anyhow::Result<()> {
    let inspect = inspect.map_or_else(|| Ok(made_up_inspect()), std::fs::read)?;
    let listener = UnixListener::bind(socket)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
    let (ping, inspect) = (answer(b"OK"), answer(&inspect));
    let mut upstream = Upstream { epoll, clients: HashMap::new(), ping, inspect };
    let mut events = [EpollEvent::empty(); 64];
    loop {
        let count = upstream.epoll.wait(&mut events, EpollTimeout::NONE)?;
        for event in &events[..count] {
            match event.data() {
                0 => upstream.accept(&listener)?,
                key => upstream.turn(key)?,
            }
        }
    }
}

/// As long as a real one: some 4 KB.
fn made_up_inspect() -> Vec<u8> {
    let field = |number: usize| format!("\"Field{number}\":{{\"Value\":{number},\"Text\":\"some text\"}}");
    let fields: Vec<String> = (0..80).map(field).collect();
    format!("{{\"Id\":\"x\",\"Config\":{{\"Labels\":{{}}}},{}}}\n", fields.join(",")).into_bytes()
}

fn answer(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nDocker-Experimental: false\r\nOstype: linux\r\n\
         Server: Docker/20.10.24 (linux)\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// What becomes of a connection after a request.
enum After {
    Keep,
    Drop,
    /// In a thread of its own, with the request and what came behind it.
    Bulk,
}

impl Upstream {
    fn accept(&mut self, listener: &UnixListener) -> anyhow::Result<()> {
        let (client, _) = listener.accept()?;
        let key = u64::from(client.as_raw_fd().unsigned_abs());
        self.epoll.add(&client, EpollEvent::new(EpollFlags::EPOLLIN, key))?;
        self.clients.insert(key, (client, Vec::new()));
        Ok(())
    }

    fn turn(&mut self, key: u64) -> anyhow::Result<()> {
        let Some((mut client, mut unread)) = self.clients.remove(&key) else { return Ok(()) };
        let mut part = [0; 8192];
        let read = client.read(&mut part).unwrap_or(0);
        if read == 0 {
            return Ok(());
        }
        unread.extend_from_slice(&part[..read]);
        while let Some(end) = unread.windows(4).position(|window| window == b"\r\n\r\n") {
            match self.one(&mut client, &unread[..end + 4]) {
                Ok(After::Keep) => drop(unread.drain(..end + 4)),
                Ok(After::Drop) | Err(_) => return Ok(()),
                Ok(After::Bulk) => {
                    self.epoll.delete(&client)?;
                    thread::spawn(move || drop(bulk(client, unread)));
                    return Ok(());
                }
            }
        }
        self.clients.insert(key, (client, unread));
        Ok(())
    }

    fn one(&self, client: &mut UnixStream, head: &[u8]) -> io::Result<After> {
        if head.starts_with(b"GET /_ping ") {
            client.write_all(&self.ping)?;
        } else if head.starts_with(b"GET /containers/x/json ") {
            client.write_all(&self.inspect)?;
        } else {
            return seldom(client, &String::from_utf8_lossy(head));
        }
        Ok(if closes(head) { After::Drop } else { After::Keep })
    }
}

fn closes(head: &[u8]) -> bool {
    // Both spellings that proxies write; only the rare request of a fresh connection has it.
    head.windows(17).any(|window| window.eq_ignore_ascii_case(b"connection: close"))
}

fn seldom(client: &mut UnixStream, head: &str) -> io::Result<After> {
    let target = head.split_whitespace().nth(1).unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default();
    if path.ends_with("/events") {
        client.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        )?;
        return Ok(After::Bulk);
    }
    if path.ends_with("/bulk") || path.ends_with("/attach") {
        return Ok(After::Bulk);
    }
    let body: &[u8] = match path {
        _ if path.ends_with("/_ping") => b"OK",
        _ if path.ends_with("/containers/json") => b"[]\n",
        _ => b"{\"ApiVersion\":\"1.41\",\"MinAPIVersion\":\"1.12\",\"Version\":\"20.10.24\",\"Config\":{}}\n",
    };
    client.write_all(&answer(if head.starts_with("HEAD ") { b"" } else { body }))?;
    Ok(if closes(head.as_bytes()) { After::Drop } else { After::Keep })
}

/// A long transfer, to its end; then the connection is closed.
fn bulk(mut client: UnixStream, bytes: Vec<u8>) -> io::Result<()> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").map_or(bytes.len(), |end| end + 4);
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let target = head.split_whitespace().nth(1).unwrap_or_default();
    let early = (bytes.len() - end) as u64;
    let count = |key: &str| target.split(key).nth(1).and_then(|text| text.split('&').next()?.parse().ok());
    let (down, up): (Option<u64>, Option<u64>) = (count("down="), count("up="));
    if target.contains("/attach") {
        client.write_all(
            b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
        )?;
    } else if let Some(down) = down {
        client.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {down}\r\n\r\n").as_bytes())?;
    }
    match (down, up) {
        (Some(down), _) if target.contains("/attach") => send(&mut client, down, &framed()),
        (Some(down), _) => send(&mut client, down, &[b'x'; CHUNK]),
        (_, Some(up)) => {
            receive(&mut client, up.saturating_sub(early))?;
            let told: &[u8] = if target.contains("/attach") { b"!" } else { &answer(b"!") };
            client.write_all(told)
        }
        // Events: nothing ever happens.
        _ => receive(&mut client, u64::MAX),
    }
}

/// What an engine sends of a container's bulk output: frames of as much as it copies at a time.
fn framed() -> Vec<u8> {
    const FRAME: usize = 32 * 1024;
    let mut chunk = vec![b'x'; CHUNK];
    for frame in chunk.chunks_mut(FRAME) {
        let [.., a, b, c, d] = (frame.len() - 8).to_be_bytes();
        frame[..8].copy_from_slice(&[1, 0, 0, 0, a, b, c, d]);
    }
    chunk
}

fn send(client: &mut UnixStream, mut left: u64, chunk: &[u8]) -> io::Result<()> {
    while left > 0 {
        let take = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        client.write_all(&chunk[..take])?;
        left -= take as u64;
    }
    Ok(())
}

fn receive(client: &mut UnixStream, mut left: u64) -> io::Result<()> {
    let mut chunk = [0; CHUNK];
    while left > 0 {
        match client.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(read) => left = left.saturating_sub(read as u64),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
