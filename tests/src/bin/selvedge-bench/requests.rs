//! Load of short requests on kept connections, and what it costs those that serve it.
//!
//! One thread for all connections: on few cores the load must not take more than it must.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::Effort;
use crate::candidate::{Candidate, DIRECT, HAPROXY, OTHER, RELAY};
use crate::process::cpu;
use crate::report::{Aim, Report, SELVEDGE, Scale, again, percentile};

/// What is asked: how the table calls it, and the path.
pub(crate) type Kind<'a> = (&'a str, &'a str);

/// What one turn of load gave.
struct Turn {
    rate: f64,
    p50: f64,
    p99: f64,
    cpu: f64,
}

/// Requests of these kinds, at 1 and at 16 connections. `who` says whose answers these are.
///
/// # Errors
/// A candidate does not answer as it should.
pub(crate) fn measure(
    effort: Effort,
    who: &str,
    candidates: &[&Candidate],
    kinds: &[Kind<'_>],
    report: &mut Report,
) -> anyhow::Result<()> {
    for round in 1..=effort.rounds {
        eprintln!("requests, {who}: round {round} of {}", effort.rounds);
        for ((what, path), connections) in kinds.iter().flat_map(|kind| [(kind, 1), (kind, 16)]) {
            let scales = Scales::of(who, what, connections);
            for candidate in candidates {
                let turn = turn(candidate, path, connections, effort.slice).context(candidate.name)?;
                scales.note(report, candidate.name, &turn);
            }
            let yardstick = candidates.iter().find(|candidate| candidate.name == RELAY);
            let yardstick = yardstick.context("the yardstick is missing")?;
            scales.note(report, &again(RELAY), &turn(yardstick, path, connections, effort.slice)?);
        }
    }
    Ok(())
}

struct Scales {
    rate: Scale,
    p50: Scale,
    p99: Scale,
    cpu: Scale,
}

impl Scales {
    fn of(who: &str, what: &str, connections: usize) -> Self {
        let lines =
            if connections == 1 { "1 connection".into() } else { format!("{connections} connections") };
        let scale = |figure: &str, unit, bases| Scale {
            name: format!("{what}, {who}, {lines}: {figure}"),
            unit,
            bases,
            yardstick: RELAY,
            aim: None,
        };
        let mut cpu = scale("CPU per request", "us", &[RELAY, HAPROXY]);
        // An inspect is rewritten, which HAProxy cannot: the aim is for what passes.
        if what == "/_ping" && who.starts_with("fast") {
            cpu.aim = Some(Aim::AtMost(1.0, HAPROXY));
        }
        Self {
            rate: scale("rate", "requests/s", &[DIRECT, HAPROXY]),
            p50: scale("latency, median", "us", &[DIRECT, HAPROXY]),
            p99: scale("latency, p99", "us", &[DIRECT, HAPROXY]),
            cpu,
        }
    }

    fn note(&self, report: &mut Report, candidate: &str, turn: &Turn) {
        report.note(&self.rate, candidate, turn.rate);
        report.note(&self.p50, candidate, turn.p50);
        report.note(&self.p99, candidate, turn.p99);
        if candidate != DIRECT {
            report.note(&self.cpu, candidate, turn.cpu);
        }
    }
}

/// One connection: what it has read of an answer, and when it asked.
struct Line {
    stream: UnixStream,
    buffer: Vec<u8>,
    had: usize,
    asked: Instant,
}

fn turn(candidate: &Candidate, path: &str, connections: usize, seconds: f64) -> anyhow::Result<Turn> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: docker\r\nUser-Agent: Docker-Client/20.10\r\n\r\n");
    let request = request.as_bytes();
    let mut lines = Vec::with_capacity(connections);
    for _ in 0..connections {
        let stream = UnixStream::connect(&candidate.socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut line = Line { stream, buffer: vec![0; 64 * 1024], had: 0, asked: Instant::now() };
        // Connecting, and what is allocated for a first request, is not what is measured.
        for _ in 0..3 {
            line.ask(request)?;
            while !line.take()? {}
        }
        lines.push(line);
    }
    let (before, began) = (cpu(&candidate.pids)?, Instant::now());
    let end = began + Duration::from_secs_f64(seconds);
    let latencies = if connections == 1 {
        alone(&mut lines[0], request, end)?
    } else {
        together(&mut lines, request, end)?
    };
    let (spent, took) = (cpu(&candidate.pids)? - before, began.elapsed().as_secs_f64());
    ensure!(!latencies.is_empty(), "no answer in {seconds} s");
    let count = latencies.len() as f64;
    Ok(Turn {
        rate: count / took,
        p50: percentile(&latencies, 50),
        p99: percentile(&latencies, 99),
        cpu: spent * 1e6 / count,
    })
}

/// With one connection there is nothing to wait for but its answer.
fn alone(line: &mut Line, request: &[u8], end: Instant) -> anyhow::Result<Vec<f64>> {
    let mut latencies = Vec::new();
    while Instant::now() < end {
        line.ask(request)?;
        while !line.take()? {}
        latencies.push(line.asked.elapsed().as_secs_f64() * 1e6);
    }
    Ok(latencies)
}

fn together(lines: &mut [Line], request: &[u8], end: Instant) -> anyhow::Result<Vec<f64>> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for (number, line) in lines.iter_mut().enumerate() {
        line.stream.set_nonblocking(true)?;
        epoll.add(&line.stream, EpollEvent::new(EpollFlags::EPOLLIN, number as u64))?;
        line.ask(request)?;
    }
    let mut latencies = Vec::new();
    let mut events = [EpollEvent::empty(); 64];
    let mut open = lines.len();
    while open > 0 {
        let count = epoll.wait(&mut events, EpollTimeout::from(10_000u16))?;
        ensure!(count > 0, "no answer within 10 s");
        for event in &events[..count] {
            let line = &mut lines[usize::try_from(event.data())?];
            if !line.take()? {
                continue;
            }
            let now = Instant::now();
            latencies.push((now - line.asked).as_secs_f64() * 1e6);
            if now < end {
                line.ask(request)?;
            } else {
                open -= 1;
            }
        }
    }
    Ok(latencies)
}

impl Line {
    fn ask(&mut self, request: &[u8]) -> anyhow::Result<()> {
        self.had = 0;
        self.asked = Instant::now();
        self.stream.write_all(request).context("it takes no request")
    }

    /// Reads once; true when the answer is whole.
    fn take(&mut self) -> anyhow::Result<bool> {
        match self.stream.read(&mut self.buffer[self.had..]) {
            Ok(read) => {
                ensure!(read > 0, "closed in the middle of an answer");
                self.had += read;
                is_whole(&self.buffer[..self.had])
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn is_whole(bytes: &[u8]) -> anyhow::Result<bool> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(false) };
    let head = std::str::from_utf8(&bytes[..end])?;
    ensure!(head.starts_with("HTTP/1.1 200"), "not the answer expected: {head}");
    for line in head.split("\r\n") {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("content-length") {
            return Ok(bytes.len() >= end + 4 + value.trim().parse::<usize>()?);
        }
    }
    // Else it is in chunks, and the last of them is empty.
    Ok(bytes.ends_with(b"\r\n0\r\n\r\n"))
}

/// Whose time is told in requests behind a proxy.
pub(crate) fn is_in_table(candidate: &Candidate) -> bool {
    matches!(candidate.name, DIRECT | RELAY | HAPROXY | SELVEDGE | OTHER)
}
