//! The keeper as a process, with workers as processes: this same binary, started again in a role.
//!
//! It must never touch a socket or process that a scene did not make itself.
#![allow(clippy::unwrap_used, reason = "a test that can't go on shall say where")]

mod custody;
mod fake;
mod held;
mod inputs;
mod killed;
mod life;
mod measure;
mod quits;
mod scene;
mod stepped;
mod succession;
mod upgrade;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("role-keeper") => fake::keeper(args.collect()),
        Some("role-worker") => fake::worker(args.collect()),
        filter => run(filter.filter(|filter| !filter.starts_with('-')).unwrap_or_default()),
    }
}

/// Runs all cases whose name contains the filter, one after the other.
fn run(filter: &str) -> ExitCode {
    let mut failed = Vec::new();
    let measure = filter.starts_with("measure");
    let cases = if measure {
        measure::CASES.to_vec()
    } else {
        [
            life::CASES,
            quits::CASES,
            upgrade::CASES,
            succession::CASES,
            custody::CASES,
            killed::CASES,
            inputs::CASES,
            stepped::CASES,
        ]
        .concat()
    };
    for (name, case) in cases.iter().filter(|(name, _)| name.contains(filter)) {
        let start = std::time::Instant::now();
        let fine = catch_unwind(AssertUnwindSafe(case)).is_ok();
        println!("test {name} ... {} ({:.2?})", if fine { "ok" } else { "FAILED" }, start.elapsed());
        if !fine {
            failed.push(name);
        }
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed: {failed:?}");
    ExitCode::FAILURE
}
