//! `scripts/soak`: a Mesos-shaped agent at full size, while everything under it is replaced and killed.
//!
//! It must never judge by anything but what an agent sees and what the engine logged.

use std::collections::BTreeMap;

use clap::Parser;
use selvedge_tests::Lab;
use selvedge_tests::mesos::scenario::{self, Between, Size, StandIn};

#[derive(Debug, Parser)]
#[command(about = "A Mesos-shaped agent, while everything under it is replaced and killed")]
struct Arguments {
    /// A quarter of everything.
    #[arg(long)]
    quick: bool,
    /// A plain proxy (socat) in Selvedge's place, restarted where Selvedge is upgraded.
    #[arg(long)]
    stand_in: bool,
}

const FULL: Size = Size { tasks: 40, at_once: 8, upgrades: 50, kills: 50, keepers: 10, engines: 5 };
const QUICK: Size = Size { tasks: 16, at_once: 6, upgrades: 12, kills: 12, keepers: 3, engines: 2 };

fn main() {
    let arguments = Arguments::parse();
    let size = if arguments.quick { QUICK } else { FULL };
    let lab = Lab::with_engine(&["--live-restore"]);
    let stand_in = arguments.stand_in.then(|| StandIn::start(&lab));
    let between: &dyn Between = stand_in.as_ref().map_or(&lab as &dyn Between, |one| one);
    let outcome = scenario::run(&lab, between, size);
    for complaint in outcome.complaints() {
        println!("{complaint}");
    }
    println!(
        "\n{} tasks ({}), {} upgrades, {} kill -9, {} replacements of the keeper, {} restarts of dockerd, {:.0} s",
        outcome.reports.len(),
        scenario::verdicts(&outcome),
        size.upgrades,
        size.kills,
        size.keepers,
        size.engines,
        outcome.took.as_secs_f64()
    );
    println!("{} launches were under way when the worker was killed; what must be none:", outcome.struck());
    let wrong = show(&outcome.table());
    // `exit` runs no destructors, and these take the laboratory away.
    drop((stand_in, lab));
    std::process::exit(i32::from(wrong));
}

/// Prints a table of what must be none; whether there was any.
fn show(table: &BTreeMap<&str, usize>) -> bool {
    for (what, count) in table {
        println!("  {count:>4}  {what}");
    }
    table.values().any(|count| *count > 0)
}
