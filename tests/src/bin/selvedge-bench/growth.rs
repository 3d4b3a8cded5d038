//! Fifty tenants that grow from 1 to 100 containers each on three real hosts, and one of them to 2,000 more on made-up
//! ones, without any setting: all of them share the pool, and hosts take blocks of it as they need them.
//!
//! The containers are really created, by the engines; two of each tenant also run (five thousand would not fit into this
//! machine's memory). Must never change a setting on the way: that is what it shows.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use selvedge_tests::fleet::{Fleet, Member, Plan, StoreKind};
use selvedge_tests::http;
use selvedge_tests::reach::{Answer, Place, TCP};

use crate::engine::start;
use crate::fleet::{Others, Shape};
use crate::report::{Report, SELVEDGE, Scale};

const HOSTS: usize = 3;
const TENANTS: usize = 50;
const CONTAINERS: usize = 100;
/// So many of each run.
const RUNNING: usize = 2;
/// Made-up hosts of a hundred containers each.
const MADE_UP: u32 = 20;
const LIMIT: Duration = Duration::from_secs(60);

/// Measures it.
///
/// # Errors
/// A container cannot be had, or two are not kept apart.
pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    let options = ["--policy", "tenant"].map(str::to_owned).to_vec();
    let plan = Plan { hosts: HOSTS, store: Some(StoreKind::Zookeeper), options, ..Plan::default() };
    let fleet = Fleet::new(&plan);
    for (number, size) in [(0, 1), (1, 10), (10, CONTAINERS)] {
        eprintln!("{TENANTS} tenants grow from {number} to {size} containers each");
        let began = Instant::now();
        grow(&fleet, number..size)?;
        let created = (TENANTS * (size - number)) as f64;
        note(
            report,
            &format!("{TENANTS} tenants grow from {number} to {size}: created"),
            "a second",
            created / began.elapsed().as_secs_f64(),
        );
        let addresses: BTreeSet<String> = fleet.members.iter().flat_map(addresses).collect();
        ensure!(
            addresses.len() == TENANTS * size,
            "{} different addresses of {}",
            addresses.len(),
            TENANTS * size
        );
        let blocks: usize = fleet.members.iter().map(blocks).sum();
        note(
            report,
            &format!("{TENANTS} tenants of {size}: blocks of 256 addresses in use, of all hosts"),
            "",
            blocks as f64,
        );
    }
    kept_apart(&fleet)?;
    beyond(&fleet, report)
}

fn note(report: &mut Report, name: &str, unit: &'static str, figure: f64) {
    let scale = Scale { name: name.to_owned(), unit, bases: &[], yardstick: "", aim: None };
    report.note(&scale, SELVEDGE, figure);
}

fn home(tenant: usize, number: usize) -> usize {
    (tenant + number) % HOSTS
}

/// All hosts at once, each its own share.
fn grow(fleet: &Fleet, numbers: std::ops::Range<usize>) -> anyhow::Result<()> {
    let share = |host: usize| {
        let all = numbers.clone().flat_map(|number| (0..TENANTS).map(move |tenant| (tenant, number)));
        for (tenant, number) in all.filter(|(tenant, number)| home(*tenant, *number) == host) {
            let socket = fleet.members[host].selvedge.socket();
            let id = create(&socket, tenant, number)?;
            if number < RUNNING {
                start(&socket, &id)?;
            }
        }
        anyhow::Ok(())
    };
    std::thread::scope(|scope| {
        let shares: Vec<_> = (0..HOSTS).map(|host| scope.spawn(move || share(host))).collect();
        shares.into_iter().try_for_each(|share| share.join().unwrap_or(Ok(())))
    })
}

fn name(tenant: usize, number: usize) -> String {
    format!("t{tenant}-{number}")
}

fn create(socket: &std::path::Path, tenant: usize, number: usize) -> anyhow::Result<String> {
    let body = format!(
        r#"{{"Image":"busybox","Cmd":["sleep","100000"],"Labels":{{"selvedge.tenant":"t{tenant}"}},"HostConfig":{{"NetworkMode":"none"}}}}"#
    );
    let path = format!("/containers/create?name={}", name(tenant, number));
    let answer = http::post(socket, &path, &body)?;
    ensure!(answer.status == 201, "a create was answered with {}: {}", answer.status, answer.text());
    let created: serde_json::Value = serde_json::from_str(&answer.text())?;
    Ok(created["Id"].as_str().context("no id")?.to_owned())
}

fn addresses(member: &Member) -> Vec<String> {
    member.selvedge.ps().iter().filter_map(|shown| shown["address"].as_str().map(str::to_owned)).collect()
}

fn blocks(member: &Member) -> usize {
    member.selvedge.status()["blocks"].as_array().map_or(0, Vec::len)
}

fn place(fleet: &Fleet, tenant: usize, number: usize) -> (Place, std::net::IpAddr) {
    let docker = fleet.members[home(tenant, number)].selvedge.docker();
    let name = name(tenant, number);
    let address = docker.address(&name).parse().unwrap_or_else(|_| std::net::Ipv4Addr::UNSPECIFIED.into());
    (Place::of(&docker, &name), address)
}

/// Those of a tenant that run reach each other over hosts, and nobody else's.
fn kept_apart(fleet: &Fleet) -> anyhow::Result<()> {
    let servers: Vec<(Place, std::net::IpAddr)> =
        (0..TENANTS).map(|tenant| place(fleet, tenant, 0)).collect();
    servers.iter().for_each(|(server, _)| server.serve());
    for tenant in 0..TENANTS {
        let (caller, _) = place(fleet, tenant, 1);
        for (other, (_, to)) in servers.iter().enumerate() {
            let expected = if other == tenant { Answer::Reached } else { Answer::Refused };
            let end = Instant::now() + Duration::from_secs(5);
            while caller.tcp((*to, TCP[0]).into()) != expected {
                ensure!(Instant::now() < end, "t{tenant} and t{other} are not as they should be");
            }
        }
    }
    eprintln!("{} pairs of tenants tried: each reaches its own, and nobody else's", TENANTS * TENANTS);
    Ok(())
}

/// One of them grows on, on hosts that exist only in the registry.
fn beyond(fleet: &Fleet, report: &mut Report) -> anyhow::Result<()> {
    eprintln!("one of them grows by {} on {MADE_UP} more hosts", MADE_UP * 100);
    let store = fleet.store.as_ref().context("a registry")?;
    let shape = Shape { base: std::net::Ipv4Addr::new(10, 40, 0, 0), tenant: Some("t0") };
    let began = Instant::now();
    let _others = Others::write(&fleet.members[0].host, store, MADE_UP, shape)?;
    let (own, foreign) = (place(fleet, 0, 1).0, place(fleet, 1, 1).0);
    let last = format!("h{}.bench.selvedge.internal", MADE_UP * 100 - 1);
    while own.dig(&last).0 != "NOERROR" {
        ensure!(began.elapsed() < LIMIT, "the last of them is not known");
        std::thread::sleep(Duration::from_millis(5));
    }
    let took = began.elapsed().as_secs_f64() * 1e3;
    note(report, "one tenant grows by 2,000 elsewhere: written, in force and answered", "ms", took);
    ensure!(foreign.dig(&last).0 == "NXDOMAIN", "another tenant sees a name of it");
    let began = Instant::now();
    let socket = fleet.members[0].selvedge.socket();
    let id = create(&socket, 0, CONTAINERS)?;
    start(&socket, &id)?;
    let took = began.elapsed().as_secs_f64() * 1e3;
    note(report, "one container more of it: created, started and admitted", "ms", took);
    Ok(())
}
