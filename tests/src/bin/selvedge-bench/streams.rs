//! Bulk transfers: as a hijacked connection (attach, exec) and as one long message, down and up.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::Effort;
use crate::candidate::{Candidate, DIRECT, HAPROXY, RELAY, SPLICE};
use crate::process::cpu;
use crate::report::{Aim, Report, Scale, again};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// From the engine, as in `docker logs` or `docker save`.
    Down,
    /// To the engine, as in `docker load`.
    Up,
}

const CHUNK: usize = 256 * 1024;

/// Moves bulk data through each candidate, S twice.
///
/// # Errors
/// A candidate does not pass all bytes.
pub(crate) fn measure(effort: Effort, candidates: &[Candidate], report: &mut Report) -> anyhow::Result<()> {
    let yardstick = candidates.iter().find(|candidate| candidate.name == SPLICE);
    let yardstick = yardstick.context("the yardstick is missing")?;
    for round in 1..=effort.rounds {
        eprintln!("streams: round {round} of {}", effort.rounds);
        for (what, hijack, way) in [
            ("hijack, down", true, Way::Down),
            ("hijack, up", true, Way::Up),
            ("long answer", false, Way::Down),
            ("long request", false, Way::Up),
        ] {
            for candidate in candidates {
                let figures = bulk(candidate, hijack, way, effort.bulk).context(candidate.name)?;
                note(report, what, candidate.name, figures);
            }
            note(report, what, &again(SPLICE), bulk(yardstick, hijack, way, effort.bulk)?);
        }
    }
    Ok(())
}

fn note(report: &mut Report, what: &str, candidate: &str, (rate, spent): (f64, f64)) {
    let scale = |figure: &str, unit, bases, aim| Scale {
        name: format!("stream, {what}: {figure}"),
        unit,
        bases,
        yardstick: SPLICE,
        aim: Some(aim),
    };
    let throughput = scale("throughput", "GB/s", &[DIRECT, SPLICE, HAPROXY], Aim::AtLeast(0.9, SPLICE));
    report.note(&throughput, candidate, rate);
    if candidate != DIRECT {
        let cpu = scale("CPU", "s/GB", &[SPLICE, RELAY, HAPROXY], Aim::AtMost(1.1, SPLICE));
        report.note(&cpu, candidate, spent);
    }
}

/// Moves so many bytes: GB/s, and CPU seconds per GB.
fn bulk(candidate: &Candidate, hijack: bool, way: Way, bytes: u64) -> anyhow::Result<(f64, f64)> {
    let (before, began) = (cpu(&candidate.pids)?, Instant::now());
    let mut stream = UnixStream::connect(&candidate.socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.set_write_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(head(hijack, way, bytes).as_bytes())?;
    let mut buffer = vec![0; CHUNK];
    if !hijack && way == Way::Up {
        write_all(&mut stream, &buffer, bytes)?;
        read_head(&mut stream, &mut buffer, "HTTP/1.1 200")?;
    } else {
        let expected = if hijack { "HTTP/1.1 101" } else { "HTTP/1.1 200" };
        let early = read_head(&mut stream, &mut buffer, expected)?;
        if way == Way::Down {
            read_all(&mut stream, &mut buffer, bytes, early)?;
        } else {
            write_all(&mut stream, &buffer, bytes)?;
            stream.shutdown(Shutdown::Write)?;
            ensure!(stream.read(&mut buffer)? == 1, "the upload was not acknowledged");
        }
    }
    let took = began.elapsed().as_secs_f64();
    let gigabytes = bytes as f64 / 1e9;
    Ok((gigabytes / took, (cpu(&candidate.pids)? - before) / gigabytes))
}

fn head(hijack: bool, way: Way, bytes: u64) -> String {
    let count = if way == Way::Down { format!("down={bytes}") } else { format!("up={bytes}") };
    match (hijack, way) {
        (true, _) => format!(
            "POST /containers/x/attach?stream=1&{count} HTTP/1.1\r\nHost: docker\r\nContent-Length: 0\r\n\
             Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        ),
        (false, Way::Down) => format!("GET /bulk?{count} HTTP/1.1\r\nHost: docker\r\n\r\n"),
        (false, Way::Up) => format!(
            "POST /bulk?{count} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/x-tar\r\nContent-Length: {bytes}\r\n\r\n"
        ),
    }
}

/// Reads a head; gives how many bytes came behind it.
fn read_head(stream: &mut UnixStream, buffer: &mut [u8], expected: &str) -> anyhow::Result<u64> {
    let mut had = 0;
    loop {
        let read = stream.read(&mut buffer[had..])?;
        ensure!(read > 0, "closed before an answer");
        had += read;
        if let Some(end) = buffer[..had].windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]);
            ensure!(head.starts_with(expected), "not the answer expected: {head}");
            return Ok((had - end - 4) as u64);
        }
    }
}

fn read_all(stream: &mut UnixStream, buffer: &mut [u8], wanted: u64, mut had: u64) -> anyhow::Result<()> {
    while had < wanted {
        let read = stream.read(buffer)?;
        ensure!(read > 0, "closed after {had} bytes");
        had += read as u64;
    }
    Ok(())
}

fn write_all(stream: &mut UnixStream, buffer: &[u8], mut left: u64) -> anyhow::Result<()> {
    while left > 0 {
        let take = usize::try_from(left).unwrap_or(CHUNK).min(buffer.len());
        stream.write_all(&buffer[..take])?;
        left -= take as u64;
    }
    Ok(())
}
