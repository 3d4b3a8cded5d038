//! A real dockerd: short requests, and containers that are created and started.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, ensure};
use selvedge_tests::engine::Engine;
use selvedge_tests::host::Host;
use selvedge_tests::http;
use serde_json::Value;

use crate::Effort;
use crate::candidate::{Candidate, DIRECT};
use crate::report::{Aim, Report, SELVEDGE, Scale, again};
use crate::requests;

/// The container that is inspected.
const NAME: &str = "bench";
/// Containers that start at once.
const CROWD: usize = 16;

/// dockerd, and candidates in front of it.
#[derive(Debug)]
pub(crate) struct Lab {
    // Dropped in this order: candidates before what they talk to.
    candidates: Vec<Candidate>,
    engine: Engine,
    _host: Host,
}

impl Lab {
    /// Starts them, and a container of Selvedge's.
    ///
    /// # Errors
    /// One of them does not start.
    pub(crate) fn start(selvedge: &Path) -> anyhow::Result<Self> {
        eprintln!("starting dockerd");
        let host = Host::new();
        let engine = Engine::debian(&host, &[]);
        let candidates = vec![
            Candidate::direct(&engine.socket),
            Candidate::relay(&host, &engine.socket)?,
            Candidate::haproxy(&host, &engine.socket)?,
            Candidate::selvedge(&host, selvedge, &engine.socket)?,
        ];
        let lab = Self { candidates, engine, _host: host };
        let socket = &lab.selvedge()?.socket;
        let id = create(socket, "bridge", "[\"sleep\",\"100000\"]", &format!("?name={NAME}"))?;
        start(socket, &id)?;
        Ok(lab)
    }

    fn named(&self, name: &str) -> anyhow::Result<&Candidate> {
        self.candidates.iter().find(|candidate| candidate.name == name).context("no such candidate")
    }

    fn selvedge(&self) -> anyhow::Result<&Candidate> {
        self.named(SELVEDGE)
    }

    /// The engine's own answer to an inspect of a container that is Selvedge's.
    ///
    /// # Errors
    /// The engine does not answer.
    pub(crate) fn inspect(&self) -> anyhow::Result<Vec<u8>> {
        let answer = http::get(&self.engine.socket, &format!("/containers/{NAME}/json"))?;
        ensure!(answer.status == 200, "inspect: {}", answer.text());
        Ok(answer.text().into_bytes())
    }

    /// `/_ping` and inspect. Its p99 tells of the engine's own scheduling, not of a proxy.
    ///
    /// # Errors
    /// A candidate does not answer.
    pub(crate) fn requests(&self, effort: Effort, report: &mut Report) -> anyhow::Result<()> {
        let path = format!("/containers/{NAME}/json");
        let candidates: Vec<&Candidate> = self.candidates.iter().collect();
        let kinds = [("/_ping", "/_ping"), ("inspect", &path[..])];
        requests::measure(effort, "dockerd", &candidates, &kinds, report)
    }

    /// Create and start, one by one and many at once.
    ///
    /// # Errors
    /// A container does not start.
    pub(crate) fn starts(&self, effort: Effort, report: &mut Report) -> anyhow::Result<()> {
        // What is loaded and made for a first container is not what is measured.
        for mode in ["none", "bridge"] {
            for (_, socket) in self.turns()? {
                self.one(socket, mode)?;
            }
        }
        for round in 1..=effort.starts {
            eprintln!("container starts: round {round} of {}", effort.starts);
            for mode in ["none", "bridge"] {
                self.round(mode, report)?;
            }
        }
        for round in 1..=effort.crowds {
            eprintln!("{CROWD} containers at once: round {round} of {}", effort.crowds);
            let scale =
                scale(format!("{CROWD} containers at once, network none: until the last has started"));
            for (name, socket) in self.turns()? {
                report.note(&scale, &name, self.crowd(socket)?);
            }
        }
        Ok(())
    }

    /// Directly, through Selvedge, and directly again.
    fn turns(&self) -> anyhow::Result<[(String, &Path); 3]> {
        let (direct, selvedge) = (self.named(DIRECT)?, self.selvedge()?);
        Ok([
            (DIRECT.to_owned(), &direct.socket),
            (SELVEDGE.to_owned(), &selvedge.socket),
            (again(DIRECT), &direct.socket),
        ])
    }

    fn round(&self, mode: &str, report: &mut Report) -> anyhow::Result<()> {
        let name = format!("create and start, network {mode}");
        let scale = Scale { aim: Some(Aim::Adds(5.0)), ..scale(name) };
        for (candidate, socket) in self.turns()? {
            report.note(&scale, &candidate, self.one(socket, mode)?);
        }
        Ok(())
    }

    /// A container from create to the answer of its start, in milliseconds; it is gone afterwards.
    fn one(&self, socket: &Path, mode: &str) -> anyhow::Result<f64> {
        let began = Instant::now();
        let id = create(socket, mode, "[\"true\"]", "")?;
        start(socket, &id)?;
        let took = began.elapsed().as_secs_f64() * 1e3;
        self.remove(&id)?;
        Ok(took)
    }

    fn crowd(&self, socket: &Path) -> anyhow::Result<f64> {
        let began = Instant::now();
        let ids = std::thread::scope(|scope| {
            let one = || {
                let id = create(socket, "none", "[\"true\"]", "")?;
                start(socket, &id).map(|()| id)
            };
            let threads: Vec<_> = (0..CROWD).map(|_| scope.spawn(one)).collect();
            let joined = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
            joined
                .map(|id| id.map_err(|_| anyhow::anyhow!("a thread ended badly"))?)
                .collect::<anyhow::Result<Vec<_>>>()
        });
        let took = began.elapsed().as_secs_f64() * 1e3;
        for id in ids? {
            self.remove(&id)?;
        }
        Ok(took)
    }

    /// Waits for its end and removes it, so that nothing of it is left to do in the next turn.
    fn remove(&self, id: &str) -> anyhow::Result<()> {
        http::post(&self.engine.socket, &format!("/containers/{id}/wait"), "")?;
        let head =
            format!("DELETE /containers/{id}?force=1 HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n");
        http::send(&self.engine.socket, head.as_bytes())?;
        Ok(())
    }
}

fn scale(name: String) -> Scale {
    Scale { name, unit: "ms", bases: &[DIRECT], yardstick: DIRECT, aim: None }
}

pub(crate) fn create(socket: &Path, mode: &str, command: &str, query: &str) -> anyhow::Result<String> {
    let body =
        format!("{{\"Image\":\"busybox\",\"Cmd\":{command},\"HostConfig\":{{\"NetworkMode\":\"{mode}\"}}}}");
    let created = http::post(socket, &format!("/containers/create{query}"), &body)?;
    let parsed: Value = serde_json::from_str(&created.text()).context("create")?;
    Ok(parsed["Id"].as_str().with_context(|| format!("create: {}", created.text()))?.to_owned())
}

pub(crate) fn start(socket: &Path, id: &str) -> anyhow::Result<()> {
    let started = http::post(socket, &format!("/containers/{id}/start"), "")?;
    ensure!(started.status == 204, "start: {}", started.text());
    Ok(())
}
