//! A worker that is killed, at any instant, breaks no call: each is answered, once, and right.

use selvedge_tests::custody::chance::Chance;
use selvedge_tests::custody::scene::Scene;
use selvedge_tests::custody::steps::{CLI_STEPS, STEPS, Step};
use selvedge_tests::custody::storm::Storm;
use selvedge_tests::custody::sweep::Sweep;
use selvedge_tests::custody::tally::Tally;

/// What each engine's share is of the kills that a run of all suites makes.
const KILLS: usize = 1000;

fn storm(scene: &Scene, engine: &str) {
    let seed = Chance::seed();
    println!("{engine}: SELVEDGE_CUSTODY_SEED={seed}");
    let outcome = Storm::of(KILLS).rage(scene, seed);
    let (calls, seconds) = (outcome.tally.done(), outcome.took.as_secs_f64());
    println!(
        "{engine}: {} kills in {seconds:.0} s ({:.1} a second), {calls} operations\n{}",
        outcome.kills,
        outcome.kills as f64 / seconds,
        outcome.tally
    );
    let mut complaints = outcome.tally.complaints();
    complaints.extend(outcome.left_over.iter().map(|what| format!("left over: {what}")));
    let shown: Vec<&String> = complaints.iter().take(60).collect();
    assert!(complaints.is_empty(), "{engine}, seed {seed}: {} complaints: {shown:#?}", complaints.len());
}

#[test]
fn kills_at_any_instant_break_no_call() {
    storm(&Scene::debian(), "Debian's engine");
}

#[test]
fn kills_at_any_instant_break_no_call_of_trixies_engine() {
    storm(&Scene::trixie(), "trixie's engine");
}

/// Of the points between system calls, a run of all suites takes one of so many.
const EVERY: usize = 24;
/// The same for what a CLI does, in which there are many more of them.
const EVERY_OF_A_CLI: usize = 500;

fn sweep(scene: &Scene, steps: &[Step], every: usize) {
    let seed = Chance::seed();
    println!("SELVEDGE_CUSTODY_SEED={seed}");
    let (sweep, tally) = (Sweep::of(every, seed), Tally::default());
    for step in steps {
        let (points, covered) = sweep.through(scene, step, &tally);
        println!("{:<22} {points:>6} points, the worker was killed at {covered} of them", step.name);
    }
    let mut complaints = tally.complaints();
    complaints.extend(scene.left_over());
    let shown: Vec<&String> = complaints.iter().take(60).collect();
    assert!(complaints.is_empty(), "seed {seed}: {} complaints: {shown:#?}", complaints.len());
}

#[test]
fn a_kill_between_any_two_system_calls_of_a_question_or_create_is_noticed_by_no_client() {
    sweep(&Scene::debian(), &STEPS[..5], EVERY);
}

#[test]
fn a_kill_between_any_two_system_calls_of_another_change_is_noticed_by_no_client() {
    sweep(&Scene::debian(), &STEPS[5..], EVERY);
}

#[test]
fn a_kill_between_any_two_system_calls_of_a_cli_s_work_on_trixies_engine_is_noticed_by_no_client() {
    sweep(&Scene::trixie(), &CLI_STEPS, EVERY_OF_A_CLI);
}
