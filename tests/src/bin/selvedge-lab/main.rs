//! `scripts/lab`: many hosts on this machine, to try things by hand.
//!
//! `up` leaves a process in the background that holds everything; the other commands talk to it, or use what it wrote
//! down. All goes when it ends, however it ends. Must never touch anything outside of the namespaces that it made.

mod supervisor;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

/// Many hosts on this machine: namespaces with their own dockerd and their own Selvedge, and a registry of three.
#[derive(Debug, Parser)]
#[command(name = "lab", max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Makes N hosts, and returns when all serve
    Up(Up),
    /// Runs the docker CLI against host N's Selvedge: `lab docker 3 ps`
    Docker(On),
    /// Runs a command in host N's network namespace: `lab sh 3 ip route`
    Sh(On),
    /// Runs `selvedge` against host N's: `lab selvedge 3 status`
    Selvedge(On),
    /// Drops all packets between two hosts
    Cut { one: usize, other: usize },
    /// Drops all packets between a host and the registry
    CutStore { host: usize },
    /// Lets all packets pass again
    Heal,
    /// Kills a host as if its power went
    Kill { host: usize },
    /// Kills or starts a member of the registry, or empties it
    Store {
        what: StoreFault,
        /// The member, 1 to 3; not for `empty`
        member: Option<usize>,
    },
    /// Shows the hosts, and how each sees the others
    Status,
    /// Takes everything away
    Down,
    /// What `up` leaves in the background
    #[command(hide = true)]
    Supervise(Up),
}

#[derive(Debug, Clone, Args)]
struct Up {
    /// How many hosts
    #[arg(value_parser = clap::value_parser!(u8).range(1..=30))]
    hosts: u8,
    /// Links that the hosts are spread over; between two there is a router
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2))]
    links: u8,
    /// Which registry
    #[arg(long, value_enum, default_value = "zookeeper")]
    store: StoreChoice,
    /// Hosts know each other by IPv6 addresses
    #[arg(long)]
    underlay6: bool,
    /// Further options of each Selvedge, behind `--`
    #[arg(last = true)]
    options: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum StoreChoice {
    Zookeeper,
    Etcd,
    None,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum StoreFault {
    Kill,
    Start,
    Empty,
}

#[derive(Debug, Args)]
struct On {
    /// The host's number, from 1
    host: usize,
    /// What to run
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<String>,
}

/// What the other commands need to know of a host.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Place {
    name: String,
    netns: String,
    address: String,
    socket: PathBuf,
    runtime: PathBuf,
}

/// Where the supervisor listens and writes down what there is; another one by SELVEDGE_LAB, for a second lab.
fn dir() -> PathBuf {
    std::env::var_os("SELVEDGE_LAB").map_or_else(|| PathBuf::from("/tmp/selvedge-lab"), PathBuf::from)
}

/// Longer than thirty engines take to start on two processors.
const PATIENCE: Duration = Duration::from_secs(300);

fn control() -> PathBuf {
    dir().join("control.sock")
}

fn hosts_file() -> PathBuf {
    dir().join("hosts.json")
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Up(up) => self::up(&up)?,
        Verb::Supervise(up) => supervisor::run(&up)?,
        Verb::Docker(on) => return docker(&on),
        Verb::Sh(on) => return inside(&on, None),
        Verb::Selvedge(on) => return selvedge(&on),
        Verb::Cut { one, other } => ask(&format!("cut {one} {other}"))?,
        Verb::CutStore { host } => ask(&format!("cut-store {host}"))?,
        Verb::Heal => ask("heal")?,
        Verb::Kill { host } => ask(&format!("kill {host}"))?,
        Verb::Store { what: StoreFault::Empty, .. } => ask("store-empty")?,
        Verb::Store { what, member } => {
            let member = member.context("say which member: 1 to 3")?;
            let verb = if matches!(what, StoreFault::Kill) { "store-kill" } else { "store-start" };
            ask(&format!("{verb} {member}"))?;
        }
        Verb::Status => status()?,
        Verb::Down => down()?,
    }
    Ok(ExitCode::SUCCESS)
}

fn up(up: &Up) -> anyhow::Result<()> {
    if UnixStream::connect(control()).is_ok() {
        bail!("a lab is up already; `lab down` ends it");
    }
    std::fs::create_dir_all(dir())?;
    let log = std::fs::File::create(dir().join("log"))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("supervise").args(std::env::args_os().skip(2));
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    let mut child = command.spawn()?;
    let end = Instant::now() + PATIENCE;
    while UnixStream::connect(control()).is_err() {
        if let Some(code) = child.try_wait()? {
            let log = std::fs::read_to_string(dir().join("log")).unwrap_or_default();
            bail!("the lab did not come up ({code}); the end of its log:\n{}", tail(&log, 15));
        }
        if Instant::now() > end {
            bail!(
                "the lab is not up after {PATIENCE:?}; see {}/log, and `kill {}`",
                dir().display(),
                child.id()
            );
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("{} hosts are up, until `lab down`. Try:", up.hosts);
    println!("  scripts/lab docker 1 run -d --name web busybox httpd -f");
    println!("  scripts/lab docker {} run --rm busybox ping -c 3 web", up.hosts);
    println!("  scripts/lab sh 1 ip route show proto 83\n  scripts/lab status");
    Ok(())
}

fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// One line to the supervisor; what it says is printed, and a line that begins with `!` is a failure.
fn ask(line: &str) -> anyhow::Result<()> {
    let mut stream = UnixStream::connect(control()).context("no lab is up; `lab up N` makes one")?;
    writeln!(stream, "{line}")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.trim().strip_prefix('!') {
        Some(refusal) => bail!("{}", refusal.trim()),
        None => {
            print!("{answer}");
            Ok(())
        }
    }
}

fn down() -> anyhow::Result<()> {
    ask("down")?;
    let end = Instant::now() + PATIENCE;
    while dir().exists() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn places() -> anyhow::Result<Vec<Place>> {
    let text = std::fs::read_to_string(hosts_file()).context("no lab is up; `lab up N` makes one")?;
    Ok(serde_json::from_str(&text)?)
}

fn place(number: usize) -> anyhow::Result<Place> {
    let places = places()?;
    let count = places.len();
    let found = number.checked_sub(1).and_then(|index| places.into_iter().nth(index));
    found.with_context(|| format!("there is no host {number}; there are 1 to {count}"))
}

fn inside(on: &On, docker: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let place = place(on.host)?;
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{}", place.netns)).args(&on.command);
    if let Some(socket) = docker {
        command.env("DOCKER_HOST", format!("unix://{}", socket.display()));
    }
    // The lab's own code is the command's from here on.
    Err(command.exec()).context("cannot run nsenter")
}

fn docker(on: &On) -> anyhow::Result<ExitCode> {
    let place = place(on.host)?;
    let error = Command::new("docker")
        .args(&on.command)
        .env("DOCKER_HOST", format!("unix://{}", place.socket.display()))
        .exec();
    Err(error).context("cannot run docker")
}

fn selvedge(on: &On) -> anyhow::Result<ExitCode> {
    let place = place(on.host)?;
    let error = Command::new(selvedge_tests::selvedge::binary())
        .args(&on.command)
        .env("SELVEDGE_RUNTIME_DIR", &place.runtime)
        .exec();
    Err(error).context("cannot run selvedge")
}

fn status() -> anyhow::Result<()> {
    for place in places()? {
        let output = Command::new(selvedge_tests::selvedge::binary())
            .args(["status", "--json", "--runtime-dir"])
            .arg(&place.runtime)
            .output()?;
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let text = |pointer: &str| {
            status.pointer(pointer).and_then(|value| value.as_str()).unwrap_or("-").to_owned()
        };
        let list = |pointer: &str| {
            status.pointer(pointer).and_then(|value| value.as_array()).cloned().unwrap_or_default()
        };
        let alive = list("/cluster/hosts").iter().filter(|host| host["alive"] == true).count();
        let blocks: Vec<String> =
            list("/blocks").iter().filter_map(|block| Some(block["block"].as_str()?.to_owned())).collect();
        let state =
            if output.status.success() { text("/cluster/connection/state") } else { "DEAD".to_owned() };
        println!(
            "{:<4} {:<14} registry {state:<10} {alive} others alive   {}",
            place.name,
            place.address,
            blocks.join(" ")
        );
    }
    Ok(())
}
