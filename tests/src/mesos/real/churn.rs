//! Tasks that come and go while Selvedge is upgraded and killed and the engine is restarted, and nothing waits for a launch.
//!
//! It must never call a loss the engine's without the engine's own word.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::Mesos;
use super::app::{App, Program};
use super::framework::{Framework, is_last};
use super::story::address;
use crate::Lab;
use crate::docker::Docker;
use crate::mesos::between::Between;
use crate::mesos::scenario::{Happening, Size};
use crate::mesos::task::refused_start;

/// A task that did not end as it does by itself.
#[derive(Debug)]
pub struct Loss {
    /// Its id.
    pub task: String,
    /// What was told of it.
    pub told: Vec<String>,
    /// What its CLI said.
    pub said: String,
    /// The engine's own word that it has lost the task when it was restarted.
    pub engines: Option<String>,
    /// What the engine logged about its container.
    pub log: String,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Outcome {
    /// How many tasks ended.
    pub ended: usize,
    /// Launches that were under way while something happened: all of it, and the engine's restarts alone.
    pub struck: (usize, usize),
    /// Tasks that ended otherwise than they do by themselves.
    pub losses: Vec<Loss>,
    /// Tasks that were told to run with no address of the pool.
    pub strays: Vec<String>,
    /// Addresses that two living tasks had.
    pub doubles: Vec<String>,
    /// Tasks of which the kill had to be asked for again, and what their CLIs had said.
    pub kills_again: Vec<String>,
}

/// What the rows of tasks share.
struct Field<'a> {
    lab: &'a Lab,
    mesos: &'a Mesos,
    framework: &'a Framework,
    size: Size,
    next: AtomicU32,
    calm: AtomicBool,
    living: Mutex<BTreeMap<String, String>>,
    seen: Mutex<Seen>,
}

/// What the rows note.
#[derive(Default)]
struct Seen {
    outcome: Outcome,
    /// From when to when each launch took.
    launches: Vec<Span>,
    lost: Vec<Lost>,
}

/// A task that did not end as it does by itself, its launch, and its life.
struct Lost {
    task: String,
    launch: Span,
    life: Span,
}

type Span = (Instant, Instant);

/// Runs it.
///
/// # Panics
/// When something that happens cannot be done, or a task does not end.
#[must_use]
pub fn run(lab: &Lab, mesos: &Mesos, framework: &Framework, size: Size) -> Outcome {
    let field = Field {
        lab,
        mesos,
        framework,
        size,
        next: AtomicU32::new(0),
        calm: AtomicBool::new(false),
        living: Mutex::default(),
        seen: Mutex::default(),
    };
    let (others, restarts) = std::thread::scope(|scope| {
        for _ in 0..size.at_once {
            scope.spawn(|| field.row());
        }
        let happened = happen(lab, size);
        field.calm.store(true, Relaxed);
        happened
    });
    let Seen { mut outcome, launches, lost } = std::mem::take(&mut *field.seen());
    let struck =
        |by: &[Span]| launches.iter().filter(|launch| by.iter().any(|span| meet(**launch, *span))).count();
    outcome.struck = (struck(&[&others[..], &restarts].concat()), struck(&restarts));
    outcome.losses = lost.iter().map(|lost| field.loss(lost, &restarts)).collect();
    outcome
}

fn meet(one: Span, other: Span) -> bool {
    one.0 <= other.1 && other.0 <= one.1
}

/// How a task is to end, by its number.
fn app(number: u32) -> (App, &'static str) {
    let check = json!({"type": "COMMAND", "command": {"shell": true, "value": "true"}, "delay_seconds": 0.5,
        "interval_seconds": 1.0, "timeout_seconds": 20.0, "grace_period_seconds": 30.0});
    let (program, end, health) = match number % 5 {
        0 => ("sleep 2", "TASK_FINISHED", None),
        1 => ("sleep 4; exit 3", "TASK_FAILED", None),
        2 => (ENDLESS, "TASK_KILLED", Some(check)),
        3 => ("for i in 1 2 3 4 5 6; do echo $i; sleep 1; done", "TASK_FINISHED", Some(check)),
        _ => (ENDLESS, "TASK_KILLED", None),
    };
    let app = App {
        health,
        grace: Some(2),
        ..App::new(&format!("/churn-{}/app-{number}", number % 3), Program::Shell(program))
    };
    (app, end)
}

const ENDLESS: &str = "trap 'exit 0' TERM; while :; do sleep 0.2; done";
/// How long the endless ones live.
const LIFE: Duration = Duration::from_secs(4);
/// A launch, or an end, that takes as long hangs: the engine's restarts are in between.
const HANG: Duration = Duration::from_secs(60);
/// After so long Marathon asks for a kill again (`kill_retry_timeout`).
const KILL_AGAIN: Duration = Duration::from_secs(10);

impl Field<'_> {
    fn row(&self) {
        loop {
            let number = self.next.fetch_add(1, Relaxed);
            // New ones come for as long as something happens, and then until there were enough.
            if number >= self.size.tasks && self.calm.load(Relaxed) {
                return;
            }
            self.one(number);
        }
    }

    fn one(&self, number: u32) {
        let (app, end) = app(number);
        let began = Instant::now();
        let task = self.framework.launch(&[app]).remove(0);
        let runs = |update: &Value| update["state"] == "TASK_RUNNING" || is_last(update);
        let running = self.framework.until(&task, "it runs or has ended", HANG, runs);
        let launch = (began, Instant::now());
        // The others may have ended before an inspect came, which then shows no address.
        if running["state"] == "TASK_RUNNING" && end == "TASK_KILLED" {
            self.note_address(&task, &running);
            std::thread::sleep(LIFE);
            self.kill(&task);
        }
        let last = self.framework.until(&task, "it has ended", HANG, is_last);
        self.living().retain(|_, holder| *holder != task);
        let as_by_itself = last["state"] == end
            && (end != "TASK_FAILED" || last["message"] == "Container exited with status 3");
        let mut seen = self.seen();
        seen.outcome.ended += 1;
        seen.launches.push(launch);
        if !as_by_itself {
            seen.lost.push(Lost { task, launch, life: (began, Instant::now()) });
        }
    }

    fn note_address(&self, task: &str, running: &Value) {
        let Some(address) = address(running).filter(|address| address.starts_with("10.32.")) else {
            return self.seen().outcome.strays.push(format!("{task}: {running}"));
        };
        if let Some(other) = self.living().insert(address.to_owned(), task.to_owned()) {
            self.seen().outcome.doubles.push(format!("{address}: {other} and {task}"));
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn living(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.living.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An executor asks its `docker stop` once; it is for the framework to ask again.
    fn kill(&self, task: &str) {
        self.framework.kill(task);
        let end = Instant::now() + HANG;
        while Instant::now() < end && !self.framework.ends_within(task, KILL_AGAIN) {
            let said = self.mesos.said(task).1;
            self.seen().outcome.kills_again.push(format!("{task}: {said}"));
            self.framework.kill(task);
        }
    }

    fn loss(&self, lost: &Lost, restarts: &[Span]) -> Loss {
        let told = self.framework.updates(&lost.task);
        let told = told
            .iter()
            .map(|update| format!("{} {} {}", update["state"], update["reason"], update["message"]));
        let engine = self.lab.engine.docker();
        let filter = format!("label=MESOS_TASK_ID={}", lost.task);
        let listed =
            engine.run(&["ps", "-a", "--no-trunc", "--filter", &filter, "--format", "{{.ID}}"]).stdout;
        let container = listed.trim();
        let restarted = |span: Span| restarts.iter().any(|restart| meet(span, *restart));
        let half_started = || restarted(lost.launch).then(|| refused_start(&engine, container)).flatten();
        let unknown = || restarted(lost.life).then(|| unknown_status(&engine, container)).flatten();
        let log = std::fs::read_to_string(self.lab.host.path("dockerd.log")).unwrap_or_default();
        let about = log.lines().filter(|line| !container.is_empty() && line.contains(container));
        Loss {
            task: lost.task.clone(),
            told: told.collect(),
            said: self.mesos.said(&lost.task).1,
            engines: unknown().or_else(half_started),
            log: about.collect::<Vec<_>>().join("\n"),
        }
    }
}

/// A container may end while its engine ends, with a status that the next engine does not learn: that then says 255, as it
/// does without Selvedge. No program here ends with 255, nor does the one that containers begin with.
fn unknown_status(engine: &Docker, container: &str) -> Option<String> {
    let format = "{{.State.Status}} {{.State.ExitCode}} {{.State.FinishedAt}}";
    let state = engine.run(&["inspect", "--type=container", "--format", format, container]).stdout;
    state.starts_with("exited 255 ").then(|| state.trim().to_owned())
}

/// Does it all; when the engine was restarted comes second, when all else was done first.
fn happen(lab: &Lab, size: Size) -> (Vec<Span>, Vec<Span>) {
    let (mut others, mut restarts) = (Vec::new(), Vec::new());
    for happening in size.mixed() {
        let began = Instant::now();
        match happening {
            Happening::Upgrade => lab.upgrade(),
            Happening::Kill => lab.kill(),
            Happening::Keeper => lab.replace_all(),
            Happening::KeeperKill => lab.kill_keeper(),
            Happening::Engine => {
                lab.engine.end(Signal::SIGTERM);
                lab.engine.start_again();
            }
        }
        let spans = if happening == Happening::Engine { &mut restarts } else { &mut others };
        spans.push((began, Instant::now()));
        std::thread::sleep(BETWEEN);
    }
    (others, restarts)
}

/// Between two of what happens, so that tasks are launched and end in between too.
const BETWEEN: Duration = Duration::from_millis(1500);
