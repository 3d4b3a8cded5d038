//! What a connection costs that has asked once and then does nothing.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::ensure;

use crate::candidate::{Candidate, HAPROXY, RELAY};
use crate::process::pss;
use crate::report::{Report, Scale};

const CONNECTIONS: usize = 1000;

/// Holds a thousand connections to each candidate in turn.
///
/// # Errors
/// A candidate does not serve them.
pub(crate) fn measure(candidates: &[&Candidate], report: &mut Report) -> anyhow::Result<()> {
    let scale = |name: &str| Scale {
        name: name.into(),
        unit: "KiB",
        bases: &[RELAY, HAPROXY],
        yardstick: RELAY,
        aim: None,
    };
    for candidate in candidates {
        eprintln!("idle connections: {}", candidate.name);
        let before = pss(&candidate.pids)?;
        let mut held = Vec::with_capacity(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            held.push(ask_once(candidate)?);
        }
        // What is freed a moment later does not count.
        std::thread::sleep(Duration::from_millis(500));
        let after = pss(&candidate.pids)?;
        let each = (after - before) / CONNECTIONS as f64;
        report.note(&scale("memory per idle connection (PSS)"), candidate.name, each);
        report.note(&scale("memory with 1,000 idle connections (PSS)"), candidate.name, after);
    }
    Ok(())
}

fn ask_once(candidate: &Candidate) -> anyhow::Result<UnixStream> {
    let mut stream = UnixStream::connect(&candidate.socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n")?;
    // Short enough that it comes at once.
    ensure!(stream.read(&mut [0; 4096])? > 16, "{} does not answer", candidate.name);
    Ok(stream)
}
