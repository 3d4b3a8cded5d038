//! Steady launches and kills, while what stands between agent and engine is upgraded and killed.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::between::Between;
use super::database::{self, Most};
use super::outcome::Outcome;
use super::recover;
use super::task::{self, Gates, Report, Spec};
use crate::Lab;
use crate::docker::Docker;
use crate::selvedge::descriptors;

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Tasks in all.
    pub tasks: u32,
    /// How many at once.
    pub at_once: usize,
    /// Upgrades of the worker.
    pub upgrades: u32,
    /// `kill -9` of the worker.
    pub kills: u32,
    /// Replacements of the keeper in place.
    pub keepers: u32,
    /// `kill -9` of the keeper.
    pub keeper_kills: u32,
    /// Restarts of dockerd with live-restore.
    pub engines: u32,
    /// Restarts of dockerd do not wait for launches.
    pub merciless: bool,
}

/// One thing that happens under an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// An upgrade of the worker.
    Upgrade,
    /// `kill -9` of the worker.
    Kill,
    /// A replacement of the keeper in place.
    Keeper,
    /// `kill -9` of the keeper.
    KeeperKill,
    /// A restart of dockerd.
    Engine,
}

impl Size {
    /// All that is to happen, evenly mixed: what has the largest part of its number before it comes next.
    #[must_use]
    pub fn mixed(self) -> Vec<Happening> {
        use Happening::{Engine, Keeper, KeeperKill, Kill, Upgrade};
        let kinds = [Upgrade, Kill, Keeper, KeeperKill, Engine];
        let all = [self.upgrades, self.kills, self.keepers, self.keeper_kills, self.engines];
        let (mut left, mut mixed) = (all, Vec::new());
        while left.iter().any(|count| *count > 0) {
            let kind = (0..left.len()).max_by_key(|&kind| left[kind] * 1000 / all[kind].max(1)).unwrap_or(0);
            left[kind] -= 1;
            mixed.push(kinds[kind]);
        }
        mixed
    }
}

/// The task that is a database; a second one of it has this and a thousand.
const DATABASE: u32 = 4;
const TASKS_MOST: u32 = 1000;

/// Task number N: short ones that succeed or fail, checked ones, and those that run until they are killed.
fn spec(number: u32) -> Spec {
    let count = |lines: u32, end: &str| {
        format!("i=0; while [ $i -lt {lines} ]; do echo line $i; i=$((i+1)); sleep 0.2; done; {end}")
    };
    let (script, ends, checked) = match number % 5 {
        0 => (count(8, "exit 0"), Some(0), false),
        1 => (count(20, "exit 3"), Some(3), false),
        2 => (count(100_000, ""), None, true),
        3 => (count(40, "exit 0"), Some(0), true),
        _ => (count(100_000, ""), None, false),
    };
    let mut options = vec![format!("--label=selvedge.tenant=soak-{}", number % 3)];
    if number % TASKS_MOST == DATABASE {
        options.extend(database::options());
    }
    Spec { number, script: format!("trap 'exit 0' TERM; {script}"), ends, checked, options }
}

/// Runs it: tasks in several rows, and what happens to them meanwhile in another.
///
/// # Panics
/// When something that happens cannot be done.
#[must_use]
pub fn run(lab: &Lab, between: &dyn Between, size: Size) -> Outcome {
    let began = Instant::now();
    let (gates, next) = (Gates::default(), AtomicU32::new(0));
    let (reports, recoveries) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let calm = AtomicBool::new(false);
    let before = descriptors(lab.selvedge.keeper());
    let (docker, observer) = (between.docker(), lab.engine.docker());
    let (kills, restarts) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let row = || {
        while let Some(number) = take(&next, size.tasks) {
            // The last ones live until all has happened.
            let last = number as usize + size.at_once >= size.tasks as usize;
            let is_database = number == DATABASE;
            let may_end = || if is_database || last { calm.load(Relaxed) } else { true };
            let report = one((&docker, &observer), number, &gates, may_end);
            // What Marathon does when it is told that a task has failed.
            let again = is_database && report.is_wronged() && !calm.load(Relaxed);
            reports.lock().unwrap_or_else(PoisonError::into_inner).push(report);
            if again {
                let report = one((&docker, &observer), number + TASKS_MOST, &gates, may_end);
                reports.lock().unwrap_or_else(PoisonError::into_inner).push(report);
            }
        }
    };
    let (watched, mut database) = (AtomicBool::new(false), Most::default());
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| database::watch(lab, &watched));
        let rows: Vec<_> = (0..size.at_once).map(|_| scope.spawn(row)).collect();
        let notes = Notes { gates: &gates, recoveries: &recoveries, kills: &kills, restarts: &restarts };
        happen(lab, between, size, &notes);
        calm.store(true, Relaxed);
        for row in rows {
            row.join().expect("a row of tasks ends well");
        }
        watched.store(true, Relaxed);
        database = watch.join().expect("it has watched");
    });
    let reports = reports.into_inner().unwrap_or_default();
    settle(lab);
    Outcome {
        reports,
        kills: kills.into_inner().unwrap_or_default(),
        restarts: restarts.into_inner().unwrap_or_default(),
        orphaned_wires: lab.host.wires(),
        database,
        descriptors: (before, descriptors(lab.selvedge.keeper())),
        recoveries: recoveries.into_inner().unwrap_or_default(),
        took: began.elapsed(),
    }
}

// How long a task lives at least that does not end by itself.
const LIFE: Duration = Duration::from_secs(8);

fn one(dockers: (&Docker, &Docker), number: u32, gates: &Gates, may_end: impl Fn() -> bool) -> Report {
    let (began, spec) = (Instant::now(), spec(number));
    let endless = spec.ends.is_none();
    task::run(dockers, spec, gates, || endless && began.elapsed() > LIFE && may_end())
}

fn take(next: &AtomicU32, tasks: u32) -> Option<u32> {
    let number = next.fetch_add(1, Relaxed);
    (number < tasks).then_some(number)
}

/// What is written down while it happens, and the gates that tasks pass.
struct Notes<'a> {
    gates: &'a Gates,
    recoveries: &'a Mutex<Vec<String>>,
    kills: &'a Mutex<Vec<Instant>>,
    restarts: &'a Mutex<Vec<(Instant, Instant)>>,
}

/// What happens, evenly mixed.
fn happen(lab: &Lab, between: &dyn Between, size: Size, notes: &Notes<'_>) {
    let killed = || notes.kills.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
    for happening in size.mixed() {
        match happening {
            Happening::Upgrade => {
                between.upgrade();
                if let Err(error) = recover(&between.docker()) {
                    notes.recoveries.lock().unwrap_or_else(PoisonError::into_inner).push(error);
                }
            }
            Happening::Kill => {
                killed();
                between.kill();
            }
            Happening::Keeper => between.replace_all(),
            Happening::KeeperKill => {
                killed();
                between.kill_keeper();
            }
            Happening::Engine => restart_engine(lab, size.merciless, notes),
        }
        std::thread::sleep(Duration::from_millis(700));
    }
}

/// An engine of 20.10 that ends between a task's creation and its start leaves the task to containerd, and its successor can
/// never start that container ("task already exists"): with mercy, none is in its launch.
fn restart_engine(lab: &Lab, merciless: bool, notes: &Notes<'_>) {
    let _none = (!merciless).then(|| notes.gates.launches.write());
    let _asks_nothing = notes.gates.verdicts.write();
    let end = Instant::now();
    lab.engine.end(Signal::SIGTERM);
    lab.engine.start_again();
    notes.restarts.lock().unwrap_or_else(PoisonError::into_inner).push((end, Instant::now()));
}

/// Lets what ended be noticed.
fn settle(lab: &Lab) {
    let idle = || {
        let status = lab.selvedge.status();
        status["keeper"]["streams"].as_array().is_some_and(Vec::is_empty) && lab.host.wires().is_empty()
    };
    let end = Instant::now() + Duration::from_secs(5);
    while !idle() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(100));
    }
}
