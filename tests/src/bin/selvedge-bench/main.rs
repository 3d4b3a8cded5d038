//! Measures Selvedge beside a direct connection, HAProxy, unbound, dnsmasq and dumb yardsticks, interleaved in one run.
//!
//! Called by `scripts/bench`, which builds and installs what it needs. One binary for all: `run` measures, the other
//! roles are what it starts to be measured against. It must never assert: it prints ratios, and people judge.

mod candidate;
mod dns;
mod dns_load;
mod engine;
mod fast;
mod fleet;
mod growth;
mod idle;
mod policy;
mod process;
mod relay;
mod report;
mod requests;
mod responder;
mod splice;
mod spread;
mod streams;
mod upgrades;
mod upstream;
mod vip;
mod wire;

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Parser, ValueEnum};

/// What this process is.
#[derive(Debug, Parser)]
#[command(about = "Measures Selvedge; see scripts/bench")]
enum Role {
    /// Measures, and tells.
    Run(Run),
    /// A trivially fast engine on a unix socket.
    Upstream {
        /// Where it listens.
        socket: PathBuf,
        /// The body of an inspect.
        inspect: Option<PathBuf>,
    },
    /// The yardstick R: copies bytes blindly.
    Relay {
        /// Where it listens.
        listen: PathBuf,
        /// Whom it connects.
        connect: PathBuf,
    },
    /// The yardstick S: moves bytes by splice(2).
    Splice {
        /// Where it listens.
        listen: PathBuf,
        /// Whom it connects.
        connect: PathBuf,
    },
    /// The floor of DNS: a UDP loop that answers without a thought.
    Responder {
        /// Where it listens.
        address: SocketAddr,
    },
    /// Selvedge's DNS server alone, with made-up names.
    Names {
        /// Where it listens.
        address: SocketAddr,
        /// How many names.
        count: u32,
    },
}

/// A part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Requests behind a fast upstream.
    Requests,
    /// Bulk streams behind a fast upstream.
    Streams,
    /// Memory of idle connections.
    Idle,
    /// Requests to a real dockerd.
    Engine,
    /// Containers on a real dockerd.
    Starts,
    /// One wire alone.
    Wire,
    /// Names.
    Dns,
    /// Upgrades and kill -9 of the worker.
    Upgrades,
    /// One host among up to a thousand made-up ones.
    Fleet,
    /// Names on ten hosts.
    Spread,
    /// What tenants cost.
    Policy,
    /// What virtual addresses cost.
    Vip,
    /// Fifty tenants that grow.
    Growth,
}

#[derive(Debug, clap::Args)]
struct Run {
    /// `selvedge`, a release build.
    #[arg(long)]
    selvedge: PathBuf,
    /// Another build of it, measured beside it behind the fast upstream: did a change pay?
    #[arg(long)]
    other: Option<PathBuf>,
    /// Fewer and shorter rounds.
    #[arg(long)]
    quick: bool,
    /// Writes the figures of each round there.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Measures only these parts [default: all].
    #[arg(long, value_enum)]
    only: Vec<Part>,
}

/// How long and how often: the full run, or a first look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// Rounds in which every candidate has its turn.
    pub(crate) rounds: usize,
    /// Seconds of load per turn. Below half a second the scheduler is what is measured.
    pub(crate) slice: f64,
    /// Bytes per bulk transfer.
    pub(crate) bulk: u64,
    /// Rounds of container starts.
    pub(crate) starts: usize,
    /// Rounds of sixteen starts at once.
    pub(crate) crowds: usize,
    /// Wires that are made in a round.
    pub(crate) wires: usize,
    /// Containers that run while Selvedge is upgraded.
    pub(crate) containers: &'static [usize],
}

const FULL: Effort = Effort {
    rounds: 7,
    slice: 0.6,
    bulk: 1 << 30,
    starts: 25,
    crowds: 5,
    wires: 30,
    containers: &[0, 200, 1000],
};
const QUICK: Effort =
    Effort { rounds: 3, slice: 0.5, bulk: 1 << 28, starts: 6, crowds: 1, wires: 15, containers: &[0, 40] };

fn main() -> anyhow::Result<()> {
    match Role::parse() {
        Role::Run(arguments) => run(&arguments),
        Role::Upstream { socket, inspect } => as_part(move || upstream::serve(&socket, inspect.as_deref())),
        Role::Relay { listen, connect } => as_part(move || relay::serve(&listen, &connect)),
        Role::Splice { listen, connect } => as_part(move || splice::serve(&listen, &connect)),
        Role::Responder { address } => as_part(move || responder::serve(address)),
        Role::Names { address, count } => as_part(move || dns::serve(address, count)),
    }
}

/// Plays a part until who started us closes our stdin, which the kernel does for it however it ends.
fn as_part(part: impl FnOnce() -> anyhow::Result<()> + Send + 'static) -> anyhow::Result<()> {
    process::raise_descriptor_limit()?;
    std::thread::spawn(move || {
        if let Err(error) = part() {
            eprintln!("selvedge-bench: {error:#}");
        }
    });
    std::io::stdin().read_to_end(&mut Vec::new()).context("stdin")?;
    Ok(())
}

fn run(arguments: &Run) -> anyhow::Result<()> {
    process::raise_descriptor_limit()?;
    let effort = if arguments.quick { QUICK } else { FULL };
    let wanted = |part: Part| arguments.only.is_empty() || arguments.only.contains(&part);
    let mut report = report::Report::default();
    let done = measure(effort, (&arguments.selvedge, arguments.other.as_deref()), &wanted, &mut report);
    // What was measured before something failed is told all the same.
    print!("{}", report.table());
    if let Some(json) = &arguments.json {
        std::fs::write(json, report.json()).with_context(|| format!("cannot write {}", json.display()))?;
    }
    done
}

fn measure(
    effort: Effort,
    (selvedge, other): (&Path, Option<&Path>),
    wanted: &dyn Fn(Part) -> bool,
    report: &mut report::Report,
) -> anyhow::Result<()> {
    let parts = |parts: &[Part]| parts.iter().any(|&part| wanted(part));
    let mut inspect = None;
    if parts(&[Part::Engine, Part::Starts, Part::Requests]) {
        let lab = engine::Lab::start(selvedge)?;
        inspect = Some(lab.inspect()?);
        if wanted(Part::Engine) {
            lab.requests(effort, report).context("requests to a real dockerd")?;
        }
        if wanted(Part::Starts) {
            lab.starts(effort, report).context("containers on a real dockerd")?;
        }
    }
    if parts(&[Part::Requests, Part::Streams, Part::Idle]) {
        let lab = fast::Lab::start(selvedge, other, inspect.as_deref())?;
        if wanted(Part::Requests) {
            lab.requests(effort, report).context("requests behind a fast upstream")?;
        }
        if wanted(Part::Streams) {
            lab.streams(effort, report).context("streams behind a fast upstream")?;
        }
        if wanted(Part::Idle) {
            lab.idle(report).context("idle connections")?;
        }
    }
    if wanted(Part::Wire) {
        wire::measure(effort, report).context("one wire alone")?;
    }
    if wanted(Part::Dns) {
        dns::measure(effort, report).context("DNS")?;
    }
    if wanted(Part::Upgrades) {
        upgrades::measure(effort, report).context("upgrades")?;
    }
    if wanted(Part::Fleet) {
        fleet::measure(effort, report).context("a host among many")?;
    }
    if wanted(Part::Spread) {
        spread::measure(effort, report).context("names on ten hosts")?;
    }
    if wanted(Part::Policy) {
        policy::measure(effort, report).context("tenants")?;
    }
    if wanted(Part::Vip) {
        vip::measure(effort, report).context("virtual addresses")?;
    }
    if wanted(Part::Growth) {
        growth::measure(report).context("tenants that grow")?;
    }
    Ok(())
}
