//! Containers on a real dockerd: create and start through Selvedge against the same mode directly, and many at
//! once.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, ensure};
use selvedge_tests::engine::Engine;
use selvedge_tests::host::Host;
use selvedge_tests::http;
use serde_json::Value;

use crate::candidate::Candidate;
use crate::figures::Report;
use crate::load::short;
use crate::{Binaries, Effort};

/// Measures all of it.
pub(crate) fn measure(effort: Effort, binaries: &Binaries, report: &mut Report) -> anyhow::Result<()> {
    let host = Host::new();
    let engine = Engine::debian(&host, &[]);
    let candidates =
        [Candidate::direct(&engine.socket), Candidate::selvedge(&host, binaries, &engine.socket)?];
    for round in 1..=effort.starts {
        eprintln!("containers: round {round} of {}", effort.starts);
        for mode in ["none", "bridge"] {
            for candidate in &candidates {
                let took = start(&candidate.socket, &engine.socket, mode)?;
                report.note(
                    (&format!("create and start, network {mode}"), "ms", "direct"),
                    candidate.name,
                    took,
                );
            }
        }
    }
    for _ in 0..effort.rounds {
        for candidate in &candidates {
            let took = many(&candidate.socket, &engine.socket)?;
            report.note(("16 containers at once, network none", "ms", "direct"), candidate.name, took);
            let ping = short(&candidate.socket, "/_ping", 1, effort.slice, &candidate.pids)?;
            report.note(
                ("/_ping of a real dockerd: latency, median", "us", "direct"),
                candidate.name,
                ping.p50,
            );
        }
    }
    Ok(())
}

/// Creates and starts a container; milliseconds from the first byte to the answer of the start.
fn start(socket: &Path, engine: &Path, mode: &str) -> anyhow::Result<f64> {
    let body = format!(
        "{{\"Image\":\"busybox\",\"Cmd\":[\"sleep\",\"1000\"],\"HostConfig\":{{\"NetworkMode\":\"{mode}\"}}}}"
    );
    let began = Instant::now();
    let created = http::post(socket, "/containers/create", &body)?;
    let created: Value = serde_json::from_str(&created.text()).context("create")?;
    let id = created["Id"].as_str().context("create gives no id")?;
    let started = http::post(socket, &format!("/containers/{id}/start"), "")?;
    let took = began.elapsed().as_secs_f64() * 1e3;
    ensure!(started.status == 204, "start: {}", started.text());
    let head = format!("DELETE /containers/{id}?force=1 HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n");
    http::send(engine, head.as_bytes())?;
    Ok(took)
}

fn many(socket: &Path, engine: &Path) -> anyhow::Result<f64> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(|| start(socket, engine, "none"))).collect();
        let mut last: f64 = 0.0;
        for thread in threads {
            last = last.max(thread.join().map_err(|_| anyhow::anyhow!("a thread ended badly"))??);
        }
        Ok(last)
    })
}
