//! What an upgrade and a kill -9 are to clients: how long they take, and the longest that anybody waits.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use selvedge_tests::Lab;

use crate::Effort;
use crate::engine::{create, start};
use crate::process::{cpu, pss};
use crate::report::{Aim, Report, SELVEDGE, Scale, percentile};

/// Streams that live through it all.
const STREAMS: usize = 500;
/// How a client that asks every millisecond fares when nothing happens.
const CALM: &str = "calm, p99";
const CALM_LONGEST: &str = "calm, longest";

/// Measures all of it.
///
/// # Errors
/// Something does not start, or an upgrade fails.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> anyhow::Result<()> {
    // A thousand containers do not fit into the default block.
    let lab = Lab::with_selvedge(&["--block-size", "20"]);
    let socket = lab.selvedge.socket();
    let _streams = streams(&lab, &socket, report)?;
    let mut there = 0;
    for &count in effort.containers {
        grow(&socket, there, count)?;
        there = count;
        for round in 1..=effort.rounds {
            eprintln!("upgrades, {count} containers: round {round} of {}", effort.rounds);
            one_round(&lab, count, report)?;
        }
    }
    Ok(())
}

/// Opens streams, and notes what they cost the keeper.
fn streams(lab: &Lab, socket: &Path, report: &mut Report) -> anyhow::Result<Vec<UnixStream>> {
    let keeper = [lab.selvedge.keeper()];
    let before = pss(&keeper)?;
    let open = || -> anyhow::Result<UnixStream> {
        let mut stream = UnixStream::connect(socket)?;
        stream.write_all(b"GET /v1.41/events?filters=%7B%22type%22%3A%5B%22volume%22%5D%7D HTTP/1.1\r\nHost: docker\r\n\r\n")?;
        ensure!(stream.read(&mut [0; 4096])? > 12, "no answer");
        Ok(stream)
    };
    let streams = (0..STREAMS).map(|_| open()).collect::<anyhow::Result<Vec<_>>>()?;
    std::thread::sleep(Duration::from_secs(1));
    let thousand = 1000.0 / STREAMS as f64;
    let memory = scale("1,000 idle streams: the keeper's memory (PSS)", "KiB", Some(Aim::Below(16384.0)));
    report.note(&memory, SELVEDGE, (pss(&keeper)? - before) * thousand);
    let (began, used) = (Instant::now(), cpu(&keeper)?);
    std::thread::sleep(Duration::from_secs(3));
    let used = (cpu(&keeper)? - used) * 1000.0 / began.elapsed().as_secs_f64();
    report.note(&scale("1,000 idle streams: the keeper's CPU", "ms/s", None), SELVEDGE, used * thousand);
    Ok(streams)
}

fn scale(name: &str, unit: &'static str, aim: Option<Aim>) -> Scale {
    Scale { name: name.into(), unit, bases: &[], yardstick: CALM, aim }
}

/// Makes containers until there are so many.
fn grow(socket: &Path, there: usize, count: usize) -> anyhow::Result<()> {
    const ROWS: usize = 8;
    let make = |row: usize| -> anyhow::Result<()> {
        for number in (there..count).filter(|number| number % ROWS == row) {
            let id = create(socket, "none", "[\"sleep\",\"100000\"]", &format!("?name=many-{number}"))?;
            start(socket, &id)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let rows: Vec<_> = (0..ROWS).map(|row| scope.spawn(move || make(row))).collect();
        rows.into_iter().try_for_each(|row| row.join().unwrap_or_else(|_| anyhow::bail!("a row broke off")))
    })
}

fn one_round(lab: &Lab, count: usize, report: &mut Report) -> anyhow::Result<()> {
    let of = |what: &str, aim| scale(&format!("{what}, {count} containers, {STREAMS} streams"), "ms", aim);
    let (calm, ()) = asked(lab, || {
        std::thread::sleep(Duration::from_millis(500));
        Ok(())
    })?;
    let (upgraded, took) = asked(lab, || {
        let began = Instant::now();
        let told = lab.selvedge.ask(&["upgrade"]);
        ensure!(told.code == 0, "{}{}", told.stdout, told.stderr);
        Ok(began.elapsed().as_secs_f64() * 1000.0)
    })?;
    let (killed, ()) = asked(lab, || {
        lab.selvedge.kill_worker();
        Ok(())
    })?;
    report.note(&of("upgrade until done", None), SELVEDGE, took);
    for (what, waits, aim) in [("upgrade", &upgraded, 50.0), ("kill -9", &killed, 250.0)] {
        let scale =
            of(&format!("{what}: longest wait of a client that asks every ms"), Some(Aim::Below(aim)));
        report.note(&scale, CALM, percentile(&calm, 99));
        report.note(&scale, CALM_LONGEST, longest(&calm));
        report.note(&scale, SELVEDGE, longest(waits));
    }
    Ok(())
}

fn longest(waits: &[f64]) -> f64 {
    waits.iter().copied().fold(0.0, f64::max)
}

/// Asks every millisecond while something happens; gives the times between answers in milliseconds.
fn asked<T>(lab: &Lab, happens: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(Vec<f64>, T)> {
    let (socket, over) = (lab.selvedge.socket(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let asks = scope.spawn(|| ask_steadily(&socket, &over));
        std::thread::sleep(Duration::from_millis(100));
        let happened = happens();
        std::thread::sleep(Duration::from_millis(100));
        over.store(true, Relaxed);
        let waits = asks.join().unwrap_or_else(|_| anyhow::bail!("the client broke off"))?;
        Ok((waits, happened?))
    })
}

fn ask_steadily(socket: &Path, over: &AtomicBool) -> anyhow::Result<Vec<f64>> {
    let mut stream = UnixStream::connect(socket)?;
    let (mut waits, mut last) = (Vec::new(), Instant::now());
    while !over.load(Relaxed) {
        let next = last + Duration::from_millis(1);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        // A killed worker takes the request in its hands with it: asked again, as any client would.
        while ping(&mut stream).is_err() {
            stream = UnixStream::connect(socket).context("the socket is always there")?;
            ensure!(last.elapsed() < Duration::from_secs(20), "no answer for 20 s");
        }
        waits.push(last.elapsed().as_secs_f64() * 1000.0);
        last = Instant::now();
    }
    Ok(waits)
}

fn ping(stream: &mut UnixStream) -> std::io::Result<()> {
    stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n")?;
    match stream.read(&mut [0; 4096])? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}
