//! How long it takes until a container that was started on one of ten hosts is known on the nine others, and until one
//! that was killed is not known any more.
//!
//! From the moment at which the answer of the start, or of the kill, has been read; all hosts are real ones. With
//! `--policy tenant` a name is answered only when its container's rules are in force on the host that answers: so it is
//! also how long those take.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use selvedge_tests::fleet::{Fleet, Member, Plan, StoreKind};
use selvedge_tests::http;

use crate::Effort;
use crate::dns_load::query;
use crate::engine::{create, start};
use crate::report::{Aim, Report, SELVEDGE, Scale, percentile};

const HOSTS: usize = 10;
const LIMIT: Duration = Duration::from_secs(10);

/// Measures with ZooKeeper and with etcd, without and with tenants.
///
/// # Errors
/// Something does not start, or never gets known.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> anyhow::Result<()> {
    for (kind, name, policy) in [
        (StoreKind::Zookeeper, "ZooKeeper", "open"),
        (StoreKind::Etcd, "etcd", "open"),
        (StoreKind::Etcd, "etcd, --policy tenant", "tenant"),
    ] {
        let options = ["--policy", policy].map(str::to_owned).to_vec();
        let plan = Plan { hosts: HOSTS, links: 2, store: Some(kind), options, ..Plan::default() };
        let fleet = Fleet::new(&plan);
        let (mut known, mut gone) = (Vec::new(), Vec::new());
        let rounds = effort.starts * 2;
        for round in 0..rounds {
            eprintln!("names on {HOSTS} hosts by {name}: round {} of {rounds}", round + 1);
            one_round(&fleet, round, (&mut known, &mut gone))?;
        }
        for (what, figures) in [("is known", &known), ("is gone", &gone)] {
            for hundredths in [50, 99] {
                let aim = (hundredths == 99).then_some(Aim::Below(100.0));
                let name = format!("{HOSTS} hosts, {name}: a name {what} on another host, p{hundredths}");
                let scale = Scale { name, unit: "ms", bases: &[], yardstick: "", aim };
                report.note(&scale, SELVEDGE, percentile(figures, hundredths));
            }
        }
    }
    Ok(())
}

fn one_round(
    fleet: &Fleet,
    round: usize,
    (known, gone): (&mut Vec<f64>, &mut Vec<f64>),
) -> anyhow::Result<()> {
    let home = &fleet.members[round % HOSTS];
    let name = format!("c{round}");
    let others: Vec<UdpSocket> = fleet
        .members
        .iter()
        .filter(|other| other.name != home.name)
        .map(resolver)
        .collect::<Result<_, _>>()?;
    let socket = home.selvedge.socket();
    let id = create(&socket, "none", "[\"sleep\",\"100000\"]", &format!("?name={name}"))?;
    start(&socket, &id)?;
    known.extend(wait(&others, &name, true)?);
    let killed = http::post(&socket, &format!("/containers/{id}/kill"), "")?;
    ensure!(killed.status < 300, "the kill was answered with {}", killed.status);
    gone.extend(wait(&others, &name, false)?);
    Ok(())
}

fn resolver(member: &Member) -> anyhow::Result<UdpSocket> {
    let socket = member.host.udp("169.254.1.1:53");
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    Ok(socket)
}

/// Milliseconds until each of them knows the name, or knows it no longer.
fn wait(others: &[UdpSocket], name: &str, wanted: bool) -> anyhow::Result<Vec<f64>> {
    let began = Instant::now();
    let query = query(7, &format!("{name}.selvedge.internal"));
    let mut waiting: Vec<&UdpSocket> = others.iter().collect();
    let mut times = Vec::new();
    while !waiting.is_empty() {
        ensure!(began.elapsed() < LIMIT, "{name} is not {wanted} on {} hosts", waiting.len());
        let mut still = Vec::new();
        for socket in waiting {
            match answers(socket, &query)? == wanted {
                true => times.push(began.elapsed().as_secs_f64() * 1e3),
                false => still.push(socket),
            }
        }
        waiting = still;
    }
    Ok(times)
}

/// Whether there is an address in the answer.
fn answers(socket: &UdpSocket, query: &[u8]) -> anyhow::Result<bool> {
    let mut buffer = [0; 512];
    socket.send(query)?;
    let length = socket.recv(&mut buffer).context("no answer")?;
    // RFC 1035, section 4.1.1: the number of answers is in bytes 6 and 7.
    Ok(length > 12 && buffer[6..8] != [0, 0])
}
