//! One wire alone: what `netsetup` needs from a process in a namespace to packets that go through, and the sign.
//!
//! Beside it what the `ip` command needs for the same. Everything happens in a network namespace made for it, by a
//! thread that leaves the machine's own first.

use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sched::{CloneFlags, unshare};
use selvedge_netsetup::{Network, Settings, WireSpec, host_interface, inode_of};

use crate::Effort;
use crate::report::{Aim, Report, SELVEDGE, Scale, again, median};

pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
pub(crate) const GROUP: u32 = 7001;
const IP: &str = "ip -batch, twice";

/// Measures it.
///
/// # Errors
/// A wire cannot be made.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> anyhow::Result<()> {
    eprintln!("one wire alone");
    in_its_own_namespace(|| wires(effort, report))
}

/// Does something in a thread and a network namespace that are made for it.
///
/// # Errors
/// It does, or there is none to be had.
pub(crate) fn in_its_own_namespace<F: Future<Output = anyhow::Result<()>>>(
    work: impl FnOnce() -> F + Send,
) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("root may leave its network namespace")?;
            run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(work())
        });
        thread.join().map_err(|_| anyhow::anyhow!("the thread ended badly"))?
    })
}

/// What wires have in common here.
pub(crate) fn settings() -> anyhow::Result<Settings> {
    Ok(Settings {
        pool: "10.32.0.0/12".parse()?,
        gateway: GATEWAY,
        dns: GATEWAY,
        group: GROUP,
        mtu: None,
        pool6: None,
        underlay: None,
        encapsulated: false,
    })
}

async fn wires(effort: Effort, report: &mut Report) -> anyhow::Result<()> {
    let network = Network::open(settings()?).await?;
    network.prepare_host().await?;
    let scale = Scale {
        name: "one wire: until packets go through and the program may start".into(),
        unit: "ms",
        bases: &[IP],
        yardstick: IP,
        aim: Some(Aim::Below(1.0)),
    };
    let mut numbers = 0..;
    for _ in 0..effort.rounds {
        let mut took = Vec::new();
        for number in numbers.by_ref().take(effort.wires) {
            let container = Container::start(number)?;
            let began = Instant::now();
            network.connect(&container.spec).await?;
            network.release(&container.spec).await?;
            took.push(began.elapsed().as_secs_f64() * 1e3);
        }
        report.note(&scale, SELVEDGE, median(&took));
        for name in [IP.to_owned(), again(IP)] {
            report.note(&scale, &name, by_ip()?);
        }
    }
    Ok(())
}

/// A process in a network namespace of its own. Ended when dropped; its wire ends with its namespace.
pub(crate) struct Container {
    child: Child,
    pub(crate) spec: WireSpec,
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Container {
    pub(crate) fn start(number: u32) -> anyhow::Result<Self> {
        let child = Command::new("unshare").args(["--net", "sleep", "600"]).stdin(Stdio::null()).spawn()?;
        let [_, b, c, d] = (number + 1).to_be_bytes();
        let spec = WireSpec {
            container: format!("{:012x}{:052x}", number + 1, std::process::id()),
            address: Ipv4Addr::new(10, 32 + b, c, d),
            pid: child.id(),
        };
        let container = Self { child, spec };
        let own = inode_of(std::process::id())?;
        let host = std::fs::read_link("/proc/thread-self/ns/net")?;
        for _ in 0..2000 {
            let there = std::fs::read_link(format!("/proc/{}/ns/net", container.spec.pid))?;
            if there != host && inode_of(container.spec.pid)? != own {
                container.inside("link set lo up\n")?;
                return Ok(container);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        bail!("unshare does not start")
    }

    /// A batch of `ip` inside.
    fn inside(&self, batch: &str) -> anyhow::Result<()> {
        let pid = self.spec.pid.to_string();
        feed(Command::new("nsenter").args(["-t", &pid, "-n", "ip", "-batch", "-"]), batch)
    }
}

/// Of the container whose wire is made by `ip`: none of the others has it.
const NUMBER: u32 = 0xf_ffff;

/// The same wire by the `ip` command, once on the host and once inside: the middle of a few, in milliseconds.
fn by_ip() -> anyhow::Result<f64> {
    let took: Vec<f64> = (0..5).map(|_| one_by_ip()).collect::<anyhow::Result<_>>()?;
    Ok(median(&took))
}

fn one_by_ip() -> anyhow::Result<f64> {
    let container = Container::start(NUMBER)?;
    let (host, pid) = (host_interface(&container.spec.container), container.spec.pid);
    let address = container.spec.address;
    let began = Instant::now();
    let outside = format!(
        "link add {host} type veth peer name selvedge0 netns {pid}\nlink set {host} up\n\
         route add {address}/32 dev {host}\n"
    );
    feed(Command::new("ip").args(["-batch", "-"]), &outside)?;
    container.inside(&format!(
        "link set selvedge0 up\naddr add {address}/32 dev selvedge0\n\
         route add {GATEWAY}/32 dev selvedge0 scope link\nroute add 10.32.0.0/12 via {GATEWAY} dev selvedge0\n"
    ))?;
    let took = began.elapsed().as_secs_f64() * 1e3;
    run(Command::new("ip").args(["link", "del", &host]))?;
    Ok(took)
}

pub(crate) fn feed(command: &mut Command, batch: &str) -> anyhow::Result<()> {
    let told = format!("{command:?}");
    let mut child = command.stdin(Stdio::piped()).spawn().context(told.clone())?;
    child.stdin.take().context("stdin is a pipe")?.write_all(batch.as_bytes())?;
    ensure!(child.wait()?.success(), "{told} failed");
    Ok(())
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    ensure!(command.status()?.success(), "{command:?} failed");
    Ok(())
}
