//! Measures Selvedge beside a direct connection, HAProxy and dumb relays, interleaved in one run.
//!
//! Called by `scripts/bench`, which builds and installs what it needs. Everything runs on this machine, in a
//! network namespace of its own. It must never assert: it prints ratios, and people judge.

mod api;
mod candidate;
mod figures;
mod load;
mod starts;
mod upstream;

use std::path::PathBuf;

use anyhow::{Context, bail};

/// How long and how often: the full run, or a first look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// Rounds in which every candidate has its turn.
    pub(crate) rounds: usize,
    /// Seconds of load per turn.
    pub(crate) slice: f64,
    /// Bytes per bulk transfer.
    pub(crate) bulk: u64,
    /// Containers per start measurement and candidate.
    pub(crate) starts: usize,
}

/// Where the binaries are that are measured.
#[derive(Debug, Clone)]
pub(crate) struct Binaries {
    /// `selvedge`, a release build.
    pub(crate) selvedge: PathBuf,
    /// keeper's example `relay`, a release build.
    pub(crate) relay: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["upstream", socket] => upstream::serve(socket.as_ref()),
        ["run", effort, selvedge, relay, json] => {
            let effort = match *effort {
                "full" => Effort { rounds: 7, slice: 1.0, bulk: 1 << 30, starts: 30 },
                "quick" => Effort { rounds: 3, slice: 0.5, bulk: 1 << 28, starts: 8 },
                other => bail!("no such effort: {other}"),
            };
            let binaries = Binaries { selvedge: selvedge.into(), relay: relay.into() };
            run(effort, &binaries, json)
        }
        _ => bail!("usage: selvedge-bench run full|quick SELVEDGE RELAY JSON; see scripts/bench"),
    }
}

fn run(effort: Effort, binaries: &Binaries, json: &str) -> anyhow::Result<()> {
    let mut report = figures::Report::default();
    api::measure(effort, binaries, &mut report).context("the API behind a fast upstream")?;
    starts::measure(effort, binaries, &mut report).context("containers on a real dockerd")?;
    print!("{}", report.table());
    std::fs::write(json, report.json()).with_context(|| format!("cannot write {json}"))
}
