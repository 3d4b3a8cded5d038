//! Raw connections to the engine: fresh ones for streams, kept ones for short requests.

use std::io;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::Instant;

// More idle connections than dockerd answers at once would only cost it goroutines.
const MAX_IDLE: usize = 64;
/// Before the next attempt. An engine that ends takes connections for a moment, and answers none.
pub const RETRY: Duration = Duration::from_millis(50);

/// The way to the engine.
#[derive(Debug)]
pub struct Upstream {
    socket: PathBuf,
    wait: Duration,
    idle: Mutex<Vec<UnixStream>>,
}

impl Upstream {
    /// Connects to `socket`; a new request waits up to `wait` for an engine that is away.
    pub fn new(socket: PathBuf, wait: Duration) -> Self {
        Self { socket, wait, idle: Mutex::new(Vec::new()) }
    }

    /// A fresh connection. While the socket has no listener (the engine restarts, perhaps with a new inode at the same
    /// path) it tries again until the engine's time is up.
    ///
    /// # Errors
    /// What the last attempt said.
    pub async fn connect(&self) -> io::Result<UnixStream> {
        let end = Instant::now() + self.wait;
        loop {
            match UnixStream::connect(&self.socket).await {
                Err(error) if is_away(&error) && Instant::now() < end => tokio::time::sleep(RETRY).await,
                result => return result,
            }
        }
    }

    /// The time that a new request waits for an engine that is away.
    pub fn patience(&self) -> Duration {
        self.wait
    }

    /// A fresh connection, or why there is none, at once.
    ///
    /// # Errors
    /// The socket has no listener.
    pub async fn connect_now(&self) -> io::Result<UnixStream> {
        UnixStream::connect(&self.socket).await
    }

    /// A kept connection that the engine has not closed meanwhile, if there is one.
    pub fn kept(&self) -> Option<UnixStream> {
        let mut idle = self.idle.lock().ok()?;
        while let Some(stream) = idle.pop() {
            // Readable means closed, or bytes that no request asked for. Neither is a connection to use.
            if matches!(stream.try_read(&mut [0; 1]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            {
                return Some(stream);
            }
        }
        None
    }

    /// Keeps a connection whose last answer has been read to its end.
    pub fn keep(&self, stream: UnixStream) {
        if let Ok(mut idle) = self.idle.lock()
            && idle.len() < MAX_IDLE
        {
            idle.push(stream);
        }
    }
}

fn is_away(error: &io::Error) -> bool {
    // WouldBlock (EAGAIN) is a full listen queue of a unix socket; ConnectionReset one that was closed while we were
    // in it. No byte of a request has been sent in either case.
    matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::WouldBlock
    )
}
