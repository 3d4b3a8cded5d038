//! Load on a unix socket, and the CPU time that it costs others.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::figures::median;

/// What a turn of short requests showed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Short {
    /// Requests per second.
    pub(crate) rate: f64,
    /// Median latency in microseconds.
    pub(crate) p50: f64,
    /// The latency that one in a hundred exceeds, in microseconds.
    pub(crate) p99: f64,
    /// CPU time per request in microseconds, of the processes given.
    pub(crate) cpu: f64,
}

/// Asks `path` over and over on so many connections, for so long.
///
/// # Errors
/// A connection breaks, or an answer is not 200.
pub(crate) fn short(
    socket: &Path,
    path: &str,
    connections: usize,
    seconds: f64,
    pids: &[u32],
) -> anyhow::Result<Short> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: d\r\n\r\n");
    let (before, began) = (cpu(pids), Instant::now());
    let end = began + Duration::from_secs_f64(seconds);
    let threads: Vec<_> = (0..connections)
        .map(|_| {
            let (socket, request) = (socket.to_owned(), request.clone());
            thread::spawn(move || one(&socket, request.as_bytes(), end))
        })
        .collect();
    let mut latencies = Vec::new();
    for thread in threads {
        latencies.extend(thread.join().map_err(|_| anyhow::anyhow!("a thread of the load ended badly"))??);
    }
    let (spent, took) = (cpu(pids) - before, began.elapsed().as_secs_f64());
    let count = latencies.len() as f64;
    latencies.sort_by(f64::total_cmp);
    let p99 = latencies.get(latencies.len() * 99 / 100).copied().unwrap_or(f64::NAN);
    Ok(Short { rate: count / took, p50: median(&latencies), p99, cpu: spent * 1e6 / count })
}

fn one(socket: &Path, request: &[u8], end: Instant) -> anyhow::Result<Vec<f64>> {
    let mut stream = UnixStream::connect(socket).context("nobody listens")?;
    let mut latencies = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    while Instant::now() < end {
        let began = Instant::now();
        stream.write_all(request)?;
        read_answer(&mut stream, &mut buffer)?;
        latencies.push(began.elapsed().as_secs_f64() * 1e6);
    }
    Ok(latencies)
}

fn read_answer(stream: &mut UnixStream, buffer: &mut [u8]) -> anyhow::Result<()> {
    let mut had = 0;
    loop {
        let read = stream.read(&mut buffer[had..])?;
        ensure!(read > 0, "closed in the middle of an answer");
        had += read;
        let Some(end) = buffer[..had].windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
        ensure!(head.starts_with("http/1.1 200"), "{head}");
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        let length = length.context("an answer without a length")?;
        if had >= end + 4 + length {
            return Ok(());
        }
    }
}

/// Which way the bytes of a bulk transfer go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the engine, as in `docker logs`.
    Down,
    /// To the engine, as in `docker load`.
    Up,
}

/// Moves so many bytes through an upgraded connection: GB/s, and CPU seconds per GB of the processes given.
///
/// # Errors
/// No upgrade, or not all bytes came.
pub(crate) fn bulk(socket: &Path, way: Way, bytes: u64, pids: &[u32]) -> anyhow::Result<(f64, f64)> {
    let path = if way == Way::Down { "down" } else { "up" };
    let mut stream = UnixStream::connect(socket)?;
    let head = format!(
        "POST /bulk/{path}?n={bytes} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    let (mut buffer, mut had) = (vec![0; 256 * 1024], Vec::new());
    while !had.windows(4).any(|window| window == b"\r\n\r\n") {
        let read = stream.read(&mut buffer)?;
        ensure!(read > 0, "closed before the upgrade");
        had.extend_from_slice(&buffer[..read]);
    }
    ensure!(had.starts_with(b"HTTP/1.1 101"), "no upgrade: {}", String::from_utf8_lossy(&had));
    let (before, began) = (cpu(pids), Instant::now());
    if way == Way::Down {
        read_all(&mut stream, &mut buffer, bytes / 2)?
    } else {
        write_all(&mut stream, &buffer, bytes)?
    }
    let (took, spent) = (began.elapsed().as_secs_f64(), cpu(pids) - before);
    let moved = if way == Way::Down { bytes / 2 } else { bytes };
    let gigabytes = moved as f64 / 1e9;
    Ok((gigabytes / took, spent / gigabytes))
}

// The first half warms up: what is in flight when the clock starts would count for nothing.
fn read_all(stream: &mut UnixStream, buffer: &mut [u8], wanted: u64) -> anyhow::Result<()> {
    let mut had = 0;
    while had < wanted {
        let read = stream.read(buffer)?;
        ensure!(read > 0, "closed after {had} bytes");
        had += read as u64;
    }
    Ok(())
}

fn write_all(stream: &mut UnixStream, buffer: &[u8], bytes: u64) -> anyhow::Result<()> {
    let mut left = bytes;
    while left > 0 {
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        stream.write_all(&buffer[..take])?;
        left -= take as u64;
    }
    let read = stream.read(&mut [0; 1])?;
    ensure!(read == 1, "the upload was not acknowledged");
    Ok(())
}

/// CPU seconds, user and system, that these processes have used so far (proc(5): fields 14 and 15 of `stat`).
pub(crate) fn cpu(pids: &[u32]) -> f64 {
    // USER_HZ is 100 on every Linux that Debian has.
    const TICKS: f64 = 100.0;
    let of = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
        let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
        Some(ticks / TICKS)
    };
    pids.iter().filter_map(of).sum()
}

/// Proportional set size of these processes in KiB (proc(5): `smaps_rollup`).
pub(crate) fn pss(pids: &[u32]) -> f64 {
    let of = |pid: &u32| {
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    pids.iter().filter_map(of).sum()
}
