//! Short requests, bulk streams and idle connections, behind an upstream that costs next to nothing.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use selvedge_tests::host::Host;

use crate::candidate::Candidate;
use crate::figures::Report;
use crate::load::{Way, bulk, pss, short};
use crate::{Binaries, Effort};

/// Measures all of it.
pub(crate) fn measure(effort: Effort, binaries: &Binaries, report: &mut Report) -> anyhow::Result<()> {
    let host = Host::new();
    let upstream = Candidate::upstream(&host)?;
    let candidates = [
        Candidate::direct(&upstream.socket),
        Candidate::relay(&host, binaries, "copy", &upstream.socket)?,
        Candidate::relay(&host, binaries, "splice", &upstream.socket)?,
        Candidate::haproxy(&host, &upstream.socket)?,
        Candidate::selvedge(&host, binaries, &upstream.socket)?,
    ];
    for round in 1..=effort.rounds {
        eprintln!("requests and streams: round {round} of {}", effort.rounds);
        requests(effort, &candidates, report)?;
        streams(effort, &candidates, report)?;
    }
    idle(&candidates, report)
}

fn requests(effort: Effort, candidates: &[Candidate], report: &mut Report) -> anyhow::Result<()> {
    let kinds = [("/_ping", "/_ping"), ("inspect", "/containers/x/json")];
    for (what, path, connections) in
        kinds.into_iter().flat_map(|(what, path)| [(what, path, 1), (what, path, 16)])
    {
        for candidate in candidates.iter().filter(|candidate| candidate.name != "splice relay") {
            let turn = short(&candidate.socket, path, connections, effort.slice, &candidate.pids)?;
            let name = |figure: &str| format!("{what}, {connections} connections: {figure}");
            report.note((&name("rate"), "requests/s", "direct"), candidate.name, turn.rate);
            report.note((&name("latency, median"), "us", "direct"), candidate.name, turn.p50);
            report.note((&name("latency, p99"), "us", "direct"), candidate.name, turn.p99);
            if !candidate.pids.is_empty() {
                report.note((&name("CPU per request"), "us", "HAProxy"), candidate.name, turn.cpu);
            }
        }
    }
    Ok(())
}

fn streams(effort: Effort, candidates: &[Candidate], report: &mut Report) -> anyhow::Result<()> {
    for (what, way) in [("stream down", Way::Down), ("stream up", Way::Up)] {
        for candidate in candidates {
            let (rate, cpu) = bulk(&candidate.socket, way, effort.bulk, &candidate.pids)?;
            report.note((&format!("{what}: throughput"), "GB/s", "splice relay"), candidate.name, rate);
            if !candidate.pids.is_empty() {
                report.note((&format!("{what}: CPU"), "s/GB", "splice relay"), candidate.name, cpu);
            }
        }
    }
    Ok(())
}

const IDLE: usize = 1000;

/// What a connection costs that has asked once and then does nothing.
fn idle(candidates: &[Candidate], report: &mut Report) -> anyhow::Result<()> {
    for candidate in candidates.iter().filter(|candidate| matches!(candidate.name, "HAProxy" | "Selvedge")) {
        let before = pss(&candidate.pids);
        let mut held = Vec::with_capacity(IDLE);
        for _ in 0..IDLE {
            use std::io::{Read, Write};
            let mut stream = UnixStream::connect(&candidate.socket)?;
            stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n")?;
            stream.read_exact(&mut [0; 16])?;
            held.push(stream);
        }
        std::thread::sleep(Duration::from_millis(500));
        let each = (pss(&candidate.pids) - before) / IDLE as f64;
        report.note(("memory per idle connection", "KiB", "HAProxy"), candidate.name, each);
        report.note(
            ("memory with 1,000 idle connections", "KiB", "HAProxy"),
            candidate.name,
            pss(&candidate.pids),
        );
    }
    Ok(())
}
