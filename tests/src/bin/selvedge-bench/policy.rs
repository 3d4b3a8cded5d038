//! What tenants cost: packets between two containers of one host, with no policy, with 10 and with 1,000 tenants of a
//! hundred containers each; and what one change costs then.
//!
//! Connections are tracked in either case, as on every host with an engine. In a network namespace made for it; the two containers are processes in namespaces of their own, with real wires.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use selvedge_netsetup::Network;
use selvedge_netsetup::policy::{Grant, Party, Policy, PolicySettings, Verdict, Who};

use crate::Effort;
use crate::report::{Aim, Report, SELVEDGE, Scale, again, median};
use crate::wire::{Container, GATEWAY, GROUP, settings};

const OFF: &str = "no policy";
/// What any firewall that knows connections does at least: one rule that lets known ones pass.
const FLOOR: &str = "one rule alone";
/// Containers of each tenant.
const CONTAINERS: u32 = 100;
/// Echoes whose middle is one figure.
const ECHOES: usize = 2000;
/// Changes whose middle is one figure.
const CHANGES: u32 = 20;

/// Measures it.
///
/// # Errors
/// The kernel or nft refuses something.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> anyhow::Result<()> {
    eprintln!("tenants");
    crate::wire::in_its_own_namespace(|| rounds(effort, report))
}

async fn rounds(effort: Effort, report: &mut Report) -> anyhow::Result<()> {
    let network = Network::open(settings()?).await?;
    network.prepare_host().await?;
    let (caller, called) = (Container::start(1)?, Container::start(2)?);
    for container in [&caller, &called] {
        network.connect(&container.spec).await?;
        network.release(&container.spec).await?;
    }
    docker_s_own()?;
    let pair = Pair::between(&caller, &called)?;
    for round in 1..=effort.rounds {
        eprintln!("tenants: round {round} of {}", effort.rounds);
        for (candidate, tenants) in
            [(OFF.to_owned(), 0), (FLOOR.to_owned(), 0), (name(10), 10), (name(1000), 1000), (again(OFF), 0)]
        {
            let policy = in_force(tenants, [&caller, &called]).await?;
            one_rule(candidate == FLOOR)?;
            pair.measure(effort, &candidate, report)?;
            if tenants > 0 {
                changes(&policy, tenants, report).await?;
            }
            policy.withdraw().await?;
        }
    }
    Ok(())
}

/// An engine's NAT, by which every connection of a host is tracked, with or without a policy.
pub(crate) fn docker_s_own() -> anyhow::Result<()> {
    let rules = "table ip nat {\n chain postrouting {\n type nat hook postrouting priority srcnat;\n \
                 ip saddr 172.17.0.0/16 oifname != \"docker0\" masquerade\n }\n}\n";
    crate::wire::feed(Command::new("nft").args(["-f", "-"]), rules)
}

/// Takes the floor's table out, or puts it in.
fn one_rule(there: bool) -> anyhow::Result<()> {
    let table = "table inet floor {\n chain forward {\n type filter hook forward priority filter - 5;\n \
                 ct state established accept\n }\n}\n";
    let rules =
        format!("table inet floor {{ }}\ndelete table inet floor\n{}", if there { table } else { "" });
    crate::wire::feed(Command::new("nft").args(["-f", "-"]), &rules)
}

fn name(tenants: u32) -> String {
    if tenants == 1000 { SELVEDGE.to_owned() } else { format!("{tenants} tenants") }
}

/// Our two are of the first tenant.
async fn in_force(tenants: u32, ours: [&Container; 2]) -> anyhow::Result<Policy> {
    let policy = Policy::new(PolicySettings {
        group: GROUP,
        pool: settings()?.pool,
        pool6: None,
        dns: SocketAddr::from((GATEWAY, 53)),
        host: Verdict::Allow,
        published: Verdict::Allow,
        out: Verdict::Allow,
        names: Verdict::Allow,
    });
    if tenants == 0 {
        policy.withdraw().await?;
        return Ok(policy);
    }
    for container in ours {
        policy.put(&container.spec.container, party(container.spec.address, 0));
    }
    for number in 0..tenants * CONTAINERS {
        policy.put(&number.to_string(), party(made_up(number), number / CONTAINERS));
    }
    policy.apply().await?;
    policy.settled().await;
    Ok(policy)
}

/// Behind our own two.
fn made_up(number: u32) -> Ipv4Addr {
    (u32::from(Ipv4Addr::new(10, 33, 0, 0)) + number).into()
}

fn party(address: Ipv4Addr, tenant: u32) -> Party {
    let group = format!("tenant:t{tenant}");
    Party {
        address,
        groups: BTreeSet::from([group.clone()]),
        grants: vec![Grant { who: Who::Group(group), ports: vec![] }],
        aliases: vec![],
    }
}

async fn changes(policy: &Policy, tenants: u32, report: &mut Report) -> anyhow::Result<()> {
    let scale = Scale {
        name: format!(
            "{tenants} tenants of {CONTAINERS} containers: one container more, until it is in force"
        ),
        unit: "ms",
        bases: &[],
        yardstick: "",
        aim: None,
    };
    let mut took = Vec::new();
    for change in 0..CHANGES {
        let (id, number) = (format!("more {change}"), tenants * CONTAINERS + change);
        let began = Instant::now();
        policy.put(&id, party(made_up(number), change % tenants));
        policy.apply().await?;
        took.push(began.elapsed().as_secs_f64() * 1e3);
    }
    report.note(&scale, SELVEDGE, median(&took));
    Ok(())
}

/// Sockets of two containers.
struct Pair {
    stream: (TcpStream, TcpStream),
    echo: (UdpSocket, UdpSocket),
}

impl Pair {
    fn between(caller: &Container, called: &Container) -> anyhow::Result<Self> {
        let to = called.spec.address;
        let (listener, answering) = within(called, || {
            let answering = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 7))?;
            Ok((TcpListener::bind((Ipv4Addr::UNSPECIFIED, 7))?, answering))
        })?;
        let (stream, asking) = within(caller, || {
            let asking = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            asking.connect((to, 7))?;
            Ok((TcpStream::connect((to, 7))?, asking))
        })?;
        asking.set_read_timeout(Some(Duration::from_secs(1)))?;
        answering.set_read_timeout(Some(Duration::from_millis(100)))?;
        let taken = listener.accept()?.0;
        taken.set_read_timeout(Some(Duration::from_millis(100)))?;
        Ok(Self { stream: (stream, taken), echo: (asking, answering) })
    }

    fn measure(&self, effort: Effort, candidate: &str, report: &mut Report) -> anyhow::Result<()> {
        let scale = |name: &str, unit, aim| Scale {
            name: format!("tenants: {name}"),
            unit,
            bases: &[OFF, FLOOR],
            yardstick: OFF,
            aim,
        };
        let throughput = scale("one TCP stream", "Gbit/s", Some(Aim::AtLeast(0.97, OFF)));
        report.note(&throughput, candidate, self.throughput(effort)?);
        let packets =
            scale("UDP packets that came, of 64 bytes", "thousand/s", Some(Aim::AtLeast(0.97, OFF)));
        report.note(&packets, candidate, self.packets(effort));
        let latency = scale("UDP, there and back", "us", Some(Aim::AtMost(1.03, OFF)));
        report.note(&latency, candidate, self.latency()?);
        Ok(())
    }

    fn throughput(&self, effort: Effort) -> anyhow::Result<f64> {
        let (over, bytes) = (AtomicBool::new(false), AtomicU64::new(0));
        let (sending, taking) = (&self.stream.0, &self.stream.1);
        let figure = std::thread::scope(|scope| {
            scope.spawn(|| take(taking, &bytes));
            let sender = scope.spawn(|| fill(sending, &over));
            let figure = rate(effort, &bytes);
            over.store(true, Relaxed);
            sender.join().map(|sent| sent.map(|()| figure))
        });
        Ok(figure.map_err(|_| anyhow::anyhow!("the sender ended badly"))?? * 8.0 / 1e9)
    }

    fn packets(&self, effort: Effort) -> f64 {
        let (over, came) = (AtomicBool::new(false), AtomicU64::new(0));
        let (asking, answering) = (&self.echo.0, &self.echo.1);
        std::thread::scope(|scope| {
            scope.spawn(|| count(answering, &came));
            scope.spawn(|| flood(asking, &over));
            let figure = rate(effort, &came);
            over.store(true, Relaxed);
            figure / 1e3
        })
    }

    fn latency(&self) -> anyhow::Result<f64> {
        let (asking, answering) = (&self.echo.0, &self.echo.1);
        let mut took = Vec::with_capacity(ECHOES);
        let mut buffer = [0; 64];
        for _ in 0..ECHOES {
            let began = Instant::now();
            asking.send(&buffer)?;
            let (length, from) = answering.recv_from(&mut buffer)?;
            answering.send_to(&buffer[..length], from)?;
            asking.recv(&mut buffer)?;
            took.push(began.elapsed().as_secs_f64() * 1e6);
        }
        Ok(median(&took))
    }
}

/// Until nothing has come for a moment: what was under way when it was over belongs to nobody's figure.
fn take(mut stream: &TcpStream, bytes: &AtomicU64) {
    let mut buffer = vec![0; 256 << 10];
    while let Ok(length) = stream.read(&mut buffer) {
        bytes.fetch_add(length as u64, Relaxed);
    }
}

fn fill(mut stream: &TcpStream, over: &AtomicBool) -> std::io::Result<()> {
    let buffer = vec![0; 256 << 10];
    while !over.load(Relaxed) {
        stream.write_all(&buffer)?;
    }
    Ok(())
}

/// As [`take`].
fn count(socket: &UdpSocket, came: &AtomicU64) {
    while socket.recv(&mut [0; 64]).is_ok() {
        came.fetch_add(1, Relaxed);
    }
}

fn flood(socket: &UdpSocket, over: &AtomicBool) {
    while !over.load(Relaxed) {
        let _ = socket.send(&[0; 64]);
    }
}

/// How much a counter grows in a second; not from its very beginning.
fn rate(effort: Effort, counter: &AtomicU64) -> f64 {
    std::thread::sleep(Duration::from_millis(50));
    let (before, began) = (counter.load(Relaxed), Instant::now());
    std::thread::sleep(Duration::from_secs_f64(effort.slice));
    (counter.load(Relaxed) - before) as f64 / began.elapsed().as_secs_f64()
}

/// Opens sockets in a container; they stay where they were opened.
pub(crate) fn within<T: Send>(
    container: &Container,
    open: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    let netns = File::open(format!("/proc/{}/ns/net", container.spec.pid))?;
    std::thread::scope(|scope| {
        let opened = scope.spawn(move || {
            #[expect(clippy::disallowed_methods, reason = "a thread that does only this and ends")]
            setns(&netns, CloneFlags::CLONE_NEWNET)?;
            open()
        });
        opened.join().map_err(|_| anyhow::anyhow!("the thread ended badly"))?
    })
}
