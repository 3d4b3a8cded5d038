//! An engine of tomorrow: a stand-in before a real one of today, which is no real one of tomorrow and says so. It does what
//! Docker does from API 1.52 on, written down from moby's sources: HTTP/2 with prior knowledge on the engine's socket
//! (RFC 9113, 3.3), forms that changed (`forms.rs`); and what one may do: interim answers (RFC 8297).
//!
//! Must never answer itself what the real engine can be made to answer.

mod forms;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use forms::Asked;

/// The first bytes of HTTP/2 (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A request with this field gets an interim answer before the engine's.
pub const EARLY: &str = "X-Early: yes";

const HINT: &[u8] = b"HTTP/1.1 103 Early Hints\r\nLink: </early>; rel=preload\r\n\r\n";

/// Where what it does not do itself is done.
#[derive(Debug, Clone)]
pub struct Behind {
    /// The engine of today.
    pub engine: PathBuf,
    /// What speaks HTTP/2.
    pub grpc: PathBuf,
    /// N of the newest API 1.N that the engine of today has.
    pub newest: u32,
    /// N of the oldest API 1.N that it serves; none: as the engine of today has it.
    pub oldest: Option<u32>,
}

impl Behind {
    /// Debian's engine, and nothing else.
    #[must_use]
    pub fn engine(socket: &Path) -> Self {
        Self { engine: socket.to_owned(), grpc: PathBuf::new(), newest: 41, oldest: None }
    }
}

/// Listens at `socket`, as an engine of tomorrow, for as long as the test process lives.
///
/// # Panics
/// When it cannot listen.
#[must_use]
pub fn start(socket: PathBuf, behind: &Behind) -> PathBuf {
    let listener = UnixListener::bind(&socket).expect("a free path");
    let behind = behind.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let behind = behind.clone();
            std::thread::spawn(move || serve(client, &behind));
        }
    });
    socket
}

/// One request, or one connection of HTTP/2.
fn serve(mut client: UnixStream, behind: &Behind) -> Option<()> {
    let first = first_words(&mut client)?;
    if first.starts_with(PREFACE) {
        return relay(client, UnixStream::connect(&behind.grpc).ok()?, &first);
    }
    let asked = Asked::read(&first, behind.newest)?;
    if let Some(answer) = asked.refused(behind.oldest) {
        return client.write_all(&answer).ok();
    }
    let engine = UnixStream::connect(&behind.engine).ok()?;
    if asked.has(EARLY) {
        client.write_all(HINT).ok()?;
    }
    if asked.has_other_form() {
        return forms::answer(&asked, behind.oldest, (engine, client));
    }
    relay(client, engine, &asked.for_one(&first))
}

/// A whole head and what came with it, or the preface of HTTP/2.
fn first_words(client: &mut UnixStream) -> Option<Vec<u8>> {
    let mut words = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    while !words.windows(4).any(|four| four == b"\r\n\r\n") || PREFACE.starts_with(&words) && words != PREFACE
    {
        let read = client.read(&mut buffer).ok().filter(|read| *read > 0)?;
        words.extend_from_slice(&buffer[..read]);
    }
    Some(words)
}

fn relay(client: UnixStream, mut engine: UnixStream, first: &[u8]) -> Option<()> {
    engine.write_all(first).ok()?;
    let (back, to_client) = (engine.try_clone().ok()?, client.try_clone().ok()?);
    std::thread::spawn(move || pump(back, to_client));
    pump(client, engine);
    Some(())
}

fn pump(mut from: UnixStream, mut to: UnixStream) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..len]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
