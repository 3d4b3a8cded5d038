//! What no engine of today does and one of tomorrow may, before a real one: HTTP/2 with prior knowledge on the engine's
//! socket (RFC 9113, 3.3), and interim answers other than `100 Continue` (RFC 8297).
//!
//! Must never answer itself what the real engine can be made to answer.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The first bytes of HTTP/2 (RFC 9113, 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// An empty SETTINGS frame.
pub const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";

/// A request with this field gets an interim answer before the engine's.
pub const EARLY: &str = "X-Early: yes";

const HINT: &[u8] = b"HTTP/1.1 103 Early Hints\r\nLink: </early>; rel=preload\r\n\r\n";

/// Listens at `socket`, as an engine of tomorrow, for as long as the test process lives. After its SETTINGS it sends back
/// what comes by HTTP/2.
///
/// # Panics
/// When it cannot listen.
#[must_use]
pub fn start(socket: PathBuf, engine: &Path) -> PathBuf {
    let listener = UnixListener::bind(&socket).expect("a free path");
    let engine = engine.to_owned();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let engine = engine.clone();
            std::thread::spawn(move || serve(client, &engine));
        }
    });
    socket
}

fn serve(mut client: UnixStream, engine: &Path) -> Option<()> {
    let mut first = vec![0; 64 * 1024];
    let read = client.read(&mut first).ok()?;
    let first = &first[..read];
    if let Some(rest) = first.strip_prefix(PREFACE) {
        client.write_all(SETTINGS).ok()?;
        client.write_all(rest).ok()?;
        return echo(client);
    }
    let mut engine = UnixStream::connect(engine).ok()?;
    let is_early = Arc::new(AtomicBool::new(has_hint(first)));
    engine.write_all(first).ok()?;
    let (back, to_client, asked) =
        (engine.try_clone().ok()?, client.try_clone().ok()?, Arc::clone(&is_early));
    std::thread::spawn(move || {
        pump(back, to_client, |to, bytes| {
            if is_early.swap(false, Relaxed) {
                to.write_all(HINT)?;
            }
            to.write_all(bytes)
        });
    });
    pump(client, engine, |to, bytes| {
        asked.fetch_or(has_hint(bytes), Relaxed);
        to.write_all(bytes)
    });
    Some(())
}

fn has_hint(bytes: &[u8]) -> bool {
    bytes.windows(EARLY.len()).any(|window| window.eq_ignore_ascii_case(EARLY.as_bytes()))
}

fn echo(client: UnixStream) -> Option<()> {
    let back = client.try_clone().ok()?;
    pump(client, back, |to, bytes| to.write_all(bytes));
    Some(())
}

fn pump(
    mut from: UnixStream,
    mut to: UnixStream,
    mut send: impl FnMut(&mut UnixStream, &[u8]) -> std::io::Result<()>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        if send(&mut to, &buffer[..len]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
