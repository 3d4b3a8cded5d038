//! A way to an engine on which some requests take their time: as on a machine under heavy load.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Relays each connection to an engine, and holds back what contains some text.
#[derive(Debug)]
pub struct Slow {
    /// Where it listens.
    pub socket: PathBuf,
}

impl Slow {
    /// Listens at `socket` for as long as the test process lives. Whatever a client sends that contains `text` waits for
    /// `delay` before the engine gets it.
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    pub fn start(socket: PathBuf, engine: &Path, text: &'static str, delay: Duration) -> Self {
        let listener = UnixListener::bind(&socket).expect("a free path");
        let engine = engine.to_owned();
        std::thread::spawn(move || {
            let pairs = listener.incoming().flatten().filter_map(|client| {
                let engine = UnixStream::connect(&engine).ok()?;
                Some((client, engine))
            });
            pairs.for_each(|(client, engine)| relay(client, engine, text, delay));
        });
        Self { socket }
    }
}

fn relay(client: UnixStream, engine: UnixStream, text: &'static str, delay: Duration) {
    let (Ok(from_engine), Ok(to_client)) = (engine.try_clone(), client.try_clone()) else { return };
    std::thread::spawn(move || {
        pump(client, engine, |bytes| {
            if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
                std::thread::sleep(delay);
            }
        });
    });
    std::thread::spawn(move || pump(from_engine, to_client, |_| {}));
}

fn pump(mut from: UnixStream, mut to: UnixStream, before: impl Fn(&[u8])) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        before(&buffer[..len]);
        if to.write_all(&buffer[..len]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}
