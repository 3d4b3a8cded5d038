//! Measures relays side by side: `relay_bench RELAY_BINARY [ROUNDS]`. Throughput, CPU per GB, round trips.
//!
//! Its figures must never be read as absolute: only ratios within one run hold.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

const MODES: [&str; 4] = ["pump", "splice", "copy", "pump"];
const VOLUME: usize = 1 << 30;
const TRIPS: usize = 5000;

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let rounds: usize = args.get(2).and_then(|text| text.parse().ok()).unwrap_or(5);
    let dir = std::env::temp_dir().join(format!("relay-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let upstream = dir.join("upstream");
    let listener = UnixListener::bind(&upstream)?;
    thread::spawn(move || {
        for peer in listener.incoming().flatten() {
            thread::spawn(move || serve(peer));
        }
    });
    let mut relays = Vec::new();
    for (number, mode) in MODES.iter().enumerate() {
        let path = dir.join(format!("{mode}{number}"));
        let child = Command::new(&args[1]).arg(mode).arg(&path).arg(&upstream).spawn()?;
        while !path.exists() {
            thread::sleep(Duration::from_millis(5));
        }
        relays.push((child, path));
    }
    for what in ["down 64K", "down 32K", "up 64K", "trip"] {
        compare(what, rounds, &relays)?;
    }
    for (child, _) in &mut relays {
        child.kill()?;
        child.wait()?;
    }
    std::fs::remove_dir_all(&dir)
}

fn compare(what: &str, rounds: usize, relays: &[(Child, PathBuf)]) -> io::Result<()> {
    let mut speed = vec![Vec::new(); relays.len()];
    let mut cpu = vec![Vec::new(); relays.len()];
    for round in 0..rounds {
        for step in 0..relays.len() {
            let at = (step + round) % relays.len();
            let (child, path) = &relays[at];
            let before = cpu_seconds(child.id())?;
            speed[at].push(run(what, path)?);
            cpu[at].push(cpu_seconds(child.id())? - before);
        }
    }
    for at in 0..relays.len() {
        let ratios: Vec<f64> = (0..rounds).map(|round| speed[at][round] / speed[1][round]).collect();
        let total: f64 = cpu[at].iter().sum::<f64>() / rounds as f64;
        println!(
            "{what:10} {:7} median {:9.3}  ratio to splice {:.2} ({:.2}-{:.2})  CPU s per round {total:.3}",
            MODES[at],
            median(&speed[at]),
            median(&ratios),
            ratios.iter().copied().fold(f64::MAX, f64::min),
            ratios.iter().copied().fold(0.0, f64::max),
        );
    }
    Ok(())
}

/// GB/s, or microseconds of the median round trip.
fn run(what: &str, path: &Path) -> io::Result<f64> {
    let mut peer = UnixStream::connect(path)?;
    let chunk = if what.ends_with("32K") { 32 << 10 } else { 64 << 10 };
    if what == "trip" {
        peer.write_all(b"t")?;
        let mut times = Vec::new();
        for _ in 0..TRIPS {
            let start = Instant::now();
            peer.write_all(b"x")?;
            peer.read_exact(&mut [0])?;
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
        return Ok(median(&times));
    }
    let start = Instant::now();
    if what.starts_with("down") {
        peer.write_all(if chunk == 32 << 10 { b"D" } else { b"d" })?;
        swallow(&mut peer)?;
    } else {
        peer.write_all(b"u")?;
        pour(&mut peer, chunk)?;
        peer.read_exact(&mut [0])?;
    }
    Ok(VOLUME as f64 / 1e9 / start.elapsed().as_secs_f64())
}

fn serve(mut peer: UnixStream) -> io::Result<()> {
    let mut what = [0];
    peer.read_exact(&mut what)?;
    match what[0] {
        b'd' => pour(&mut peer, 64 << 10),
        b'D' => pour(&mut peer, 32 << 10),
        b'u' => {
            let mut buffer = vec![0; 256 << 10];
            let mut got = 0;
            while got < VOLUME {
                got += peer.read(&mut buffer)?;
            }
            peer.write_all(b"x")
        }
        _ => loop {
            peer.read_exact(&mut what)?;
            peer.write_all(&what)?;
        },
    }
}

fn pour(peer: &mut UnixStream, chunk: usize) -> io::Result<()> {
    let bytes = vec![7; chunk];
    for _ in 0..VOLUME / chunk {
        peer.write_all(&bytes)?;
    }
    Ok(())
}

fn swallow(peer: &mut UnixStream) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    while peer.read(&mut buffer)? > 0 {}
    Ok(())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// utime + stime: fields 14 and 15, counted after the name, which may contain blanks.
fn cpu_seconds(pid: u32) -> io::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let ticks: u64 = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Ok(ticks as f64 / 100.0)
}
