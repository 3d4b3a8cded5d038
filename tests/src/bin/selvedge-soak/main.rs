//! `scripts/soak`: a Mesos-shaped agent at full size, while everything under it is replaced and killed.
//!
//! It must never judge by anything but what an agent sees and what the engine logged.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use clap::Parser;
use selvedge_tests::Lab;
use selvedge_tests::mesos::between::{Between, Nothing, StandIn};
use selvedge_tests::mesos::hardship::{Load, Registry};
use selvedge_tests::mesos::outcome::Outcome;
use selvedge_tests::mesos::scenario::{self, Size};

#[derive(Debug, Parser)]
#[command(about = "A Mesos-shaped agent, while everything under it is replaced and killed")]
struct Arguments {
    /// A quarter of everything.
    #[arg(long)]
    quick: bool,
    /// A plain proxy (socat) in Selvedge's place, restarted where Selvedge is upgraded or killed.
    #[arg(long, conflicts_with = "nothing")]
    stand_in: bool,
    /// Nothing in Selvedge's place: what goes wrong then is the engine's own.
    #[arg(long)]
    nothing: bool,
}

const FULL: Size = Size {
    tasks: 40,
    at_once: 8,
    upgrades: 50,
    kills: 50,
    keepers: 10,
    keeper_kills: 10,
    engines: 5,
    merciless: true,
};
const QUICK: Size = Size {
    tasks: 16,
    at_once: 6,
    upgrades: 12,
    kills: 12,
    keepers: 3,
    keeper_kills: 3,
    engines: 2,
    merciless: true,
};

fn main() {
    let arguments = Arguments::parse();
    let size = if arguments.quick { QUICK } else { FULL };
    let (lab, registry) = Registry::with_lab();
    let load = Load::start(&lab.host);
    let stand_in = arguments.stand_in.then(|| StandIn::start(&lab));
    let nothing = Nothing(&lab);
    let between: &dyn Between = match &stand_in {
        Some(stand_in) => stand_in,
        None if arguments.nothing => &nothing,
        None => &lab,
    };
    let (outcome, away) = beside(&lab, &registry, || scenario::run(&lab, between, size));
    tell(&outcome, size, away);
    let wrong = show(&outcome.table());
    println!(
        "  {:>4}  launches that dockerd's own end left half done, not in the counts above",
        outcome.half_started()
    );
    // `exit` runs no destructors, and these take the laboratory away.
    drop((stand_in, load, lab, registry));
    std::process::exit(i32::from(wrong));
}

/// Does something while the registry comes and goes; how often it was away.
fn beside(lab: &Lab, registry: &Registry, what: impl FnOnce() -> Outcome) -> (Outcome, usize) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let comes = scope.spawn(|| registry.come_and_go(&lab.host, &stop));
        let outcome = what();
        stop.store(true, Relaxed);
        (outcome, comes.join().unwrap_or(0))
    })
}

fn tell(outcome: &Outcome, size: Size, away: usize) {
    for complaint in outcome.complaints() {
        println!("{complaint}");
    }
    println!(
        "\n{} tasks ({}), {} upgrades, {} kill -9 of the worker and {} of the keeper, {} replacements of the keeper, \
         {} restarts of dockerd, the registry {away} times away, all cores busy, {:.0} s",
        outcome.reports.len(),
        outcome.verdicts(),
        size.upgrades,
        size.kills,
        size.keeper_kills,
        size.keepers,
        size.engines,
        outcome.took.as_secs_f64()
    );
    println!(
        "{} launches were under way at a kill, {} at a restart of dockerd; what must be none:",
        outcome.struck(),
        outcome.restarted()
    );
}

/// Prints a table of what must be none; whether there was any.
fn show(table: &BTreeMap<&str, usize>) -> bool {
    for (what, count) in table {
        println!("  {count:>4}  {what}");
    }
    table.values().any(|count| *count > 0)
}
