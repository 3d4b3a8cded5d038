//! What a virtual address costs: new connections by it, beside direct ones and beside HAProxy on the same host; with one
//! service and with a thousand.
//!
//! In a network namespace made for it; client and servers are processes in namespaces of their own, with real wires. Each
//! connection is made, greeted with one byte and reset, so that none is left behind.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use selvedge_netsetup::Network;
use selvedge_netsetup::policy::Protocol;
use selvedge_netsetup::services::{Service, Services, ServicesSettings};

use crate::Effort;
use crate::candidate::{HAPROXY, Started};
use crate::policy::{docker_s_own, within};
use crate::report::{Aim, Report, SELVEDGE, Scale, again, median};
use crate::wire::{Container, GATEWAY, GROUP, settings};

const DIRECT: &str = "direct";
const THOUSAND: &str = "1,000 services";
const VIP: Ipv4Addr = Ipv4Addr::new(10, 47, 0, 1);
const SERVERS: u32 = 4;
const PORT: u16 = 7100;
/// Connections whose middle is one figure.
const CALLS: usize = 500;
/// Changes whose middle is one figure.
const CHANGES: usize = 20;

/// Measures it.
///
/// # Errors
/// The kernel, nft or HAProxy refuses something.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> anyhow::Result<()> {
    eprintln!("virtual addresses");
    crate::wire::in_its_own_namespace(|| rounds(effort, report))
}

async fn rounds(effort: Effort, report: &mut Report) -> anyhow::Result<()> {
    let network = Network::open(settings()?).await?;
    network.prepare_host().await?;
    network.lead(Some("10.47.0.0/16".parse()?), None).await?;
    let mut containers = Vec::new();
    for number in 0..=SERVERS {
        let container = Container::start(number)?;
        network.connect(&container.spec).await?;
        network.release(&container.spec).await?;
        containers.push(container);
    }
    let (client, servers) = containers.split_first().context("containers")?;
    servers.iter().try_for_each(serve)?;
    docker_s_own()?;
    let backends: Vec<(Ipv4Addr, u16)> = servers.iter().map(|server| (server.spec.address, PORT)).collect();
    let haproxy = haproxy(&backends)?;
    let services =
        Services::new(ServicesSettings { group: GROUP, range: "10.47.0.0/16".parse()?, pool6: None });
    let direct = SocketAddr::from(backends[0]);
    for round in 1..=effort.rounds {
        eprintln!("virtual addresses: round {round} of {}", effort.rounds);
        for candidate in [DIRECT, SELVEDGE, THOUSAND, HAPROXY, &again(DIRECT)] {
            let (to, count) = match candidate {
                SELVEDGE => (SocketAddr::from((VIP, PORT)), 1),
                THOUSAND => (SocketAddr::from((VIP, PORT)), 1000),
                HAPROXY => (SocketAddr::from((GATEWAY, PORT)), 0),
                _ => (direct, 0),
            };
            services.set(&all(count, &backends), &[]);
            services.apply().await?;
            one(client, to, effort, (candidate, report))?;
            if candidate == THOUSAND {
                changes(&services, &backends, report).await?;
            }
            services.withdraw().await?;
        }
    }
    drop(haproxy);
    Ok(())
}

/// Ours, and others that have the same servers behind them.
fn all(count: u32, backends: &[(Ipv4Addr, u16)]) -> Vec<Service> {
    let one = |number: u32| Service {
        address: (u32::from(VIP) + number).into(),
        port: PORT,
        protocol: Protocol::Tcp,
        backends: backends.to_vec(),
    };
    (0..count).map(one).collect()
}

/// As most people would write it: four servers in turn, one thread for each of two processors.
fn haproxy(backends: &[(Ipv4Addr, u16)]) -> anyhow::Result<Started> {
    let servers: String = backends
        .iter()
        .enumerate()
        .map(|(number, (address, port))| format!(" server s{number} {address}:{port}\n"))
        .collect();
    let text = format!(
        "global\n maxconn 4000\n nbthread 2\n\
         defaults\n mode tcp\n timeout connect 5s\n timeout client 1m\n timeout server 1m\n\
         frontend f\n bind {GATEWAY}:{PORT}\n default_backend b\n\
         backend b\n balance roundrobin\n{servers}"
    );
    let dir = tempfile::tempdir()?;
    let config = dir.path().join("haproxy.cfg");
    std::fs::write(&config, text)?;
    let started = Started::new(Command::new("/usr/sbin/haproxy").arg("-db").arg("-f").arg(&config))?;
    let to = SocketAddr::from((GATEWAY, PORT));
    let end = Instant::now() + Duration::from_secs(5);
    while TcpStream::connect(to).is_err() {
        ensure!(Instant::now() < end, "HAProxy does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(started)
}

fn serve(server: &Container) -> anyhow::Result<()> {
    let listener = within(server, || Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?))?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.write_all(b"!");
        }
    });
    Ok(())
}

fn call(to: SocketAddr) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(to)?;
    stream.read_exact(&mut [0])?;
    let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    Ok(setsockopt(&stream, sockopt::Linger, &linger)?)
}

fn one(
    client: &Container,
    to: SocketAddr,
    effort: Effort,
    (candidate, report): (&str, &mut Report),
) -> anyhow::Result<()> {
    let scale = |name: &str, unit, aim| Scale {
        name: format!("virtual addresses: {name}"),
        unit,
        bases: &[DIRECT, HAPROXY],
        yardstick: DIRECT,
        aim,
    };
    let rate = scale("new connections, by four threads", "thousand/s", Some(Aim::AtLeast(0.9, DIRECT)));
    report.note(&rate, candidate, within(client, || connections(to, effort))?);
    let took = within(client, || {
        let mut took = Vec::with_capacity(CALLS);
        for _ in 0..CALLS {
            let began = Instant::now();
            call(to)?;
            took.push(began.elapsed().as_secs_f64() * 1e6);
        }
        Ok(median(&took))
    })?;
    report.note(&scale("one connection, until it is greeted", "us", None), candidate, took);
    Ok(())
}

/// Thousands a second. Who is refused, or cut off, ends the run.
fn connections(to: SocketAddr, effort: Effort) -> anyhow::Result<f64> {
    let (over, made) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let work = || {
            while !over.load(Relaxed) {
                call(to)?;
                made.fetch_add(1, Relaxed);
            }
            Ok(())
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        std::thread::sleep(Duration::from_millis(50));
        let (before, began) = (made.load(Relaxed), Instant::now());
        std::thread::sleep(Duration::from_secs_f64(effort.slice));
        let rate = (made.load(Relaxed) - before) as f64 / began.elapsed().as_secs_f64();
        over.store(true, Relaxed);
        let ended: Result<Vec<()>, anyhow::Error> =
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Ok(()))).collect();
        ended.map(|_| rate / 1e3)
    })
}

async fn changes(
    services: &Services,
    backends: &[(Ipv4Addr, u16)],
    report: &mut Report,
) -> anyhow::Result<()> {
    let scale = Scale {
        name: format!("virtual addresses: {THOUSAND}, an instance comes or goes, until it is in force"),
        unit: "ms",
        bases: &[],
        yardstick: "",
        aim: None,
    };
    let mut took = Vec::new();
    for change in 0..CHANGES {
        let mut wanted = all(1000, backends);
        if change % 2 == 0 {
            wanted[0].backends.pop();
        }
        let began = Instant::now();
        services.set(&wanted, &[]);
        services.apply().await?;
        took.push(began.elapsed().as_secs_f64() * 1e3);
    }
    report.note(&scale, SELVEDGE, median(&took));
    Ok(())
}
