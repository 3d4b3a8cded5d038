//! Fifty tenants that grow from 1 to 100 containers each on three real hosts, and one of them to 2,000 more on made-up
//! ones, without any setting: all of them share the pool, and hosts take blocks of it as they need them.
//!
//! The containers are really created, by the engines; two of each tenant also run (five thousand would not fit into this
//! machine's memory).

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use selvedge_tests::fleet::{Fleet, Plan, StoreKind};
use selvedge_tests::growth::{Growth, addresses, blocks, create, place};

use crate::fleet::{Others, Shape};
use crate::report::{Report, SELVEDGE, Scale};

const HOSTS: usize = 3;
const TENANTS: usize = 50;
const CONTAINERS: usize = 100;
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
    let growth = Growth { tenants: TENANTS, running: 2 };
    for (number, size) in [(0, 1), (1, 10), (10, CONTAINERS)] {
        let step = format!("{TENANTS} tenants grow from {number} to {size} containers each");
        eprintln!("{step}");
        let began = Instant::now();
        growth.grow(&fleet, number..size)?;
        let created = (TENANTS * (size - number)) as f64;
        note(report, &format!("{step}: created"), "a second", created / began.elapsed().as_secs_f64());
        let (found, all) = (addresses(&fleet).len(), TENANTS * size);
        ensure!(found == all, "{found} different addresses of {all}");
        note(report, &format!("{step}: blocks of 256 addresses then"), "", blocks(&fleet) as f64);
    }
    growth.kept_apart(&fleet)?;
    eprintln!("{} pairs of tenants tried: each reaches its own, and nobody else's", TENANTS * TENANTS);
    beyond(&fleet, report)
}

fn note(report: &mut Report, name: &str, unit: &'static str, figure: f64) {
    let scale = Scale { name: name.to_owned(), unit, bases: &[], yardstick: "", aim: None };
    report.note(&scale, SELVEDGE, figure);
}

/// One of them grows on, on hosts that exist only in the registry.
fn beyond(fleet: &Fleet, report: &mut Report) -> anyhow::Result<()> {
    eprintln!("one of them grows by {} on {MADE_UP} more hosts", MADE_UP * 100);
    let store = fleet.store.as_ref().context("a registry")?;
    let shape = Shape { base: Ipv4Addr::new(10, 40, 0, 0), tenant: Some("t0") };
    let began = Instant::now();
    let _others = Others::write(&fleet.members[0].host, store, MADE_UP, shape)?;
    let (own, foreign) = (place(fleet, 0, 1)?.0, place(fleet, 1, 1)?.0);
    let last = format!("h{}.bench.selvedge.internal", MADE_UP * 100 - 1);
    while own.dig(&last).0 != "NOERROR" {
        ensure!(began.elapsed() < LIMIT, "the last of them is not known");
        std::thread::sleep(Duration::from_millis(5));
    }
    let took = began.elapsed().as_secs_f64() * 1e3;
    note(report, "one tenant grows by 2,000 elsewhere: written, in force and answered", "ms", took);
    ensure!(foreign.dig(&last).0 == "NXDOMAIN", "another tenant sees a name of it");
    let began = Instant::now();
    create(&fleet.members[0].selvedge.socket(), (0, CONTAINERS), true)?;
    let took = began.elapsed().as_secs_f64() * 1e3;
    note(report, "one container more of it: created, started and admitted", "ms", took);
    Ok(())
}
