//! Steady launches and kills, while what stands between agent and engine is upgraded and killed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::database::{self, Most};
use super::recover;
use super::task::{self, Gate, Report, Spec, State};
use crate::Lab;
use crate::docker::Docker;
use crate::selvedge::descriptors;
use crate::wait::until_true;

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
    /// Restarts of dockerd with live-restore.
    pub engines: u32,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Every task's report.
    pub reports: Vec<Report>,
    /// When the worker was killed.
    pub kills: Vec<Instant>,
    /// Wires that no container has.
    pub orphaned_wires: Vec<String>,
    /// The keeper's descriptors before and after.
    pub descriptors: (usize, usize),
    /// The database, of which there must be one.
    pub database: Most,
    /// Recoveries of the agent that failed.
    pub recoveries: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

impl Outcome {
    /// What is to be none by README, and how many there are.
    #[must_use]
    pub fn table(&self) -> BTreeMap<&'static str, usize> {
        let mut table = wrongs(&self.reports.iter().collect::<Vec<_>>());
        table.extend([
            ("databases that ran, or were answered, beside another", self.database.duplicates()),
            ("failed recoveries of the agent", self.recoveries.len()),
            ("orphaned wires", self.orphaned_wires.len()),
            ("leaked descriptors", self.descriptors.1.saturating_sub(self.descriptors.0)),
        ]);
        table
    }

    /// Of how many tasks the launch was under way when the worker was killed.
    #[must_use]
    pub fn struck(&self) -> usize {
        self.reports.iter().filter(|one| self.is_struck(one)).count()
    }

    fn is_struck(&self, report: &Report) -> bool {
        let (began, ran) = report.launch;
        self.kills.iter().any(|kill| (began..=ran).contains(kill))
    }

    /// The tasks about which there is something to say.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let odd = |one: &&Report| {
            one.is_wronged() || one.orphaned || one.hung || one.is_garbled() || !one.wrong_inspects.is_empty()
        };
        let recoveries = self.recoveries.iter().map(|error| format!("recovery: {}", error.trim()));
        self.reports
            .iter()
            .filter(odd)
            .map(|one| {
                let at = one.output.bytes().zip(one.logged.bytes()).take_while(|(a, b)| a == b).count();
                format!(
                    "task {}{}: {:?}, {} of {} bytes, same up to {at}, inspects {:?}, stderr {:?}",
                    one.spec.number,
                    if self.is_struck(one) { ", struck in its launch" } else { "" },
                    one.history,
                    one.output.len(),
                    one.logged.len(),
                    one.wrong_inspects,
                    one.complaint
                )
            })
            .chain(recoveries)
            .collect()
    }
}

/// What went wrong with these tasks, and with how many of them.
fn wrongs(reports: &[&Report]) -> BTreeMap<&'static str, usize> {
    let count = |what: &dyn Fn(&Report) -> bool| reports.iter().filter(|one| what(one)).count();
    BTreeMap::from([
        ("tasks failed that did not fail themselves", count(&Report::is_wronged)),
        ("tasks told to be over whose container ran on", count(&|one| one.orphaned)),
        ("`docker run` that hung", count(&|one| one.hung)),
        ("wrong inspect answers", reports.iter().map(|one| one.wrong_inspects.len()).sum()),
        ("tasks with output lost or repeated", count(&Report::is_garbled)),
        ("tasks killed for their health", count(&|one| one.unhealthy >= 3)),
    ])
}

/// What stands between agent and engine.
pub trait Between: Sync {
    /// The agent's CLI.
    fn docker(&self) -> Docker;
    /// Replaces what can be replaced.
    fn upgrade(&self);
    /// Kills what may be killed.
    fn kill(&self);
    /// Replaces the rest of it.
    fn replace_all(&self);
}

/// Selvedge.
impl Between for Lab {
    fn docker(&self) -> Docker {
        self.selvedge.docker()
    }

    fn upgrade(&self) {
        let told = self.selvedge.ask(&["upgrade"]);
        assert_eq!(told.code, 0, "{}{}", told.stdout, told.stderr);
    }

    fn kill(&self) {
        self.selvedge.kill_worker();
    }

    fn replace_all(&self) {
        let told = self.selvedge.ask(&["upgrade", "--keeper"]);
        assert_eq!(told.code, 0, "{}{}", told.stdout, told.stderr);
    }
}

/// A proxy without Selvedge's means, which can only be started anew.
#[derive(Debug)]
pub struct StandIn {
    engine: PathBuf,
    socket: PathBuf,
    child: Mutex<Option<Child>>,
}

impl StandIn {
    /// Starts one (`socat`) in front of an engine.
    #[must_use]
    pub fn start(lab: &Lab) -> Self {
        let stand_in = Self {
            engine: lab.engine.socket.clone(),
            socket: lab.host.path("stand-in.sock"),
            child: Mutex::new(None),
        };
        stand_in.restart();
        stand_in
    }

    fn restart(&self) {
        use std::os::unix::process::CommandExt;
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        end(child.take());
        let listen = format!("UNIX-LISTEN:{},fork,unlink-early", self.socket.display());
        let mut command = Command::new("socat");
        command.arg(listen).arg(format!("UNIX-CONNECT:{}", self.engine.display()));
        command.stderr(Stdio::null()).process_group(0);
        *child = Some(command.spawn().expect("socat can be started"));
        until_true("it listens", Duration::from_secs(5), || self.socket.exists());
    }
}

/// socat's children, one per connection, end with it.
fn end(child: Option<Child>) {
    if let Some(mut child) = child {
        let _ = killpg(Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX)), Signal::SIGTERM);
        let _ = child.wait();
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        end(self.child.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Between for StandIn {
    fn docker(&self) -> Docker {
        Docker::new(&self.socket)
    }

    fn upgrade(&self) {
        self.restart();
    }

    fn kill(&self) {
        self.restart();
    }

    fn replace_all(&self) {
        self.restart();
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
    let (gate, next) = (Gate::new(()), AtomicU32::new(0));
    let (reports, recoveries) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let calm = AtomicBool::new(false);
    let before = descriptors(lab.selvedge.keeper());
    let (docker, observer) = (between.docker(), lab.engine.docker());
    let kills = Mutex::new(Vec::new());
    let row = || {
        while let Some(number) = take(&next, size.tasks) {
            // The last ones live until all has happened.
            let last = number as usize + size.at_once >= size.tasks as usize;
            let is_database = number == DATABASE;
            let may_end = || if is_database || last { calm.load(Relaxed) } else { true };
            let report = one((&docker, &observer), number, &gate, may_end);
            // What Marathon does when it is told that a task has failed.
            let again = is_database && report.is_wronged() && !calm.load(Relaxed);
            reports.lock().unwrap_or_else(PoisonError::into_inner).push(report);
            if again {
                let report = one((&docker, &observer), number + TASKS_MOST, &gate, may_end);
                reports.lock().unwrap_or_else(PoisonError::into_inner).push(report);
            }
        }
    };
    let (watched, mut database) = (AtomicBool::new(false), Most::default());
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| database::watch(lab, &watched));
        let rows: Vec<_> = (0..size.at_once).map(|_| scope.spawn(row)).collect();
        happen(lab, between, size, &Notes { gate: &gate, recoveries: &recoveries, kills: &kills });
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
        orphaned_wires: lab.host.wires(),
        database,
        descriptors: (before, descriptors(lab.selvedge.keeper())),
        recoveries: recoveries.into_inner().unwrap_or_default(),
        took: began.elapsed(),
    }
}

// How long a task lives at least that does not end by itself.
const LIFE: Duration = Duration::from_secs(8);

fn one(dockers: (&Docker, &Docker), number: u32, gate: &Gate, may_end: impl Fn() -> bool) -> Report {
    let (began, spec) = (Instant::now(), spec(number));
    let endless = spec.ends.is_none();
    task::run(dockers, spec, gate, || endless && began.elapsed() > LIFE && may_end())
}

fn take(next: &AtomicU32, tasks: u32) -> Option<u32> {
    let number = next.fetch_add(1, Relaxed);
    (number < tasks).then_some(number)
}

/// What is written down while it happens, and the gate that launches pass.
struct Notes<'a> {
    gate: &'a Gate,
    recoveries: &'a Mutex<Vec<String>>,
    kills: &'a Mutex<Vec<Instant>>,
}

/// What happens, evenly mixed.
fn happen(lab: &Lab, between: &dyn Between, size: Size, notes: &Notes<'_>) {
    let mut left = [size.upgrades, size.kills, size.keepers, size.engines];
    let all = left;
    while left.iter().any(|count| *count > 0) {
        // Whatever has the largest part of its number before it.
        let kind = (0..4).max_by_key(|&kind| left[kind] * 1000 / all[kind].max(1)).unwrap_or(0);
        left[kind] -= 1;
        match kind {
            0 => between.upgrade(),
            1 => {
                notes.kills.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
                between.kill();
            }
            2 => between.replace_all(),
            _ => {
                // An engine of 20.10 that ends between a task's creation and its start leaves the task to containerd, and
                // its successor can never start that container ("task already exists").
                let _none = notes.gate.write();
                lab.engine.end(Signal::SIGTERM);
                lab.engine.start_again();
            }
        }
        if kind == 0
            && let Err(error) = recover(&between.docker())
        {
            notes.recoveries.lock().unwrap_or_else(PoisonError::into_inner).push(error);
        }
        std::thread::sleep(Duration::from_millis(700));
    }
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

/// How many tasks ended as what.
#[must_use]
pub fn verdicts(outcome: &Outcome) -> String {
    let count =
        |what: &dyn Fn(State) -> bool| outcome.reports.iter().filter(|one| what(one.verdict())).count();
    format!(
        "{} finished, {} failed, {} killed",
        count(&|state| state == State::Finished),
        count(&|state| matches!(state, State::Failed(_))),
        count(&|state| state == State::Killed)
    )
}
