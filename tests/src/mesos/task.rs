//! One task: an executor's life with it.

use std::process::{Child, Stdio};
use std::sync::{RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{INSPECT_DELAY, INSPECT_TIMEOUT, within};
use crate::docker::Docker;

/// What an executor tells its agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// `docker run` was forked.
    Starting,
    /// An inspect showed that the container was started.
    Running,
    /// `docker run` ended with 0.
    Finished,
    /// `docker run` ended with another code.
    Failed(i32),
    /// It was ended on demand.
    Killed,
}

/// What is to run.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The task's number: name, address in Marathon and sandbox follow from it.
    pub number: u32,
    /// A line for `/bin/sh -c`.
    pub script: String,
    /// The code with which it ends by itself; `None` for one that runs until it is killed.
    pub ends: Option<i32>,
    /// A health check by exec, every second.
    pub checked: bool,
    /// More options of `docker run`.
    pub options: Vec<String>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Report {
    /// The task.
    pub spec: Spec,
    /// All that was told, in order.
    pub history: Vec<State>,
    /// What `docker run` said.
    pub output: String,
    /// What it said on stderr.
    pub complaint: String,
    /// What the engine logged for it.
    pub logged: String,
    /// The address of the first inspect that showed it started.
    pub address: String,
    /// Inspects that showed a started container without its address, or with another.
    pub wrong_inspects: Vec<String>,
    /// The longest row of health checks that failed.
    pub unhealthy: u32,
    /// It was told to have ended, and its container ran on.
    pub orphaned: bool,
    /// `docker run` went on for long after its container's end, or after it was told to stop.
    pub hung: bool,
    /// What the engine itself says to a start of the container whose launch failed, when it refuses that for ever.
    pub unstartable: Option<String>,
    /// From the fork of `docker run` to the first inspect that showed the container started, or to the end.
    pub launch: (Instant, Instant),
}

impl Report {
    /// What the executor told last.
    ///
    /// # Panics
    /// Never: a report is made of what was told.
    #[must_use]
    pub fn verdict(&self) -> State {
        *self.history.last().expect("it was started")
    }

    /// It ended otherwise than it did by itself.
    #[must_use]
    pub fn is_wronged(&self) -> bool {
        match self.spec.ends {
            Some(0) => self.verdict() != State::Finished,
            Some(code) => self.verdict() != State::Failed(code),
            None => self.verdict() != State::Killed,
        }
    }

    /// Bytes that are missing, or there twice.
    #[must_use]
    pub fn is_garbled(&self) -> bool {
        self.output != self.logged
    }
}

/// Gates that are passed in a task's life: holding one for writing means that nothing behind it is half done.
#[derive(Debug, Default)]
pub struct Gates {
    /// Held for as long as a launch takes.
    pub launches: RwLock<()>,
    /// Held while the engine is asked what has come of a task.
    pub verdicts: RwLock<()>,
}

/// How long `docker run` may take to end once there is nothing left to wait for; then it hangs.
const HANG: Duration = Duration::from_secs(60);
/// Between two attempts of an executor to stop its container (`KILL_RETRY_INTERVAL`).
const STOP_AGAIN: Duration = Duration::from_secs(5);

/// Runs a task to its end; `kill` says when it is to be killed. The gate of launches is held until the task runs. What Mesos
/// would not ask is asked by `observer`, the engine's own CLI.
///
/// # Panics
/// When the CLI cannot be started.
pub fn run(
    (docker, observer): (&Docker, &Docker),
    spec: Spec,
    gates: &Gates,
    kill: impl Fn() -> bool,
) -> Report {
    let name = format!("mesos-00000000-0000-4000-8000-{:012}", spec.number);
    let mut launching = gates.launches.read().ok();
    let began = Instant::now();
    let mut child = start(docker, &name, &spec);
    let mut report = Report {
        spec,
        history: vec![State::Starting],
        output: String::new(),
        complaint: String::new(),
        logged: String::new(),
        address: String::new(),
        wrong_inspects: Vec::new(),
        unhealthy: 0,
        orphaned: false,
        hung: false,
        unstartable: None,
        launch: (began, began),
    };
    let runs = || observer.run(&["inspect", "--format", "{{.State.Running}}", &name]).stdout.trim() == "true";
    let killed = attend((docker, &runs), &name, &mut child, (&mut report, &mut launching), kill);
    if launching.take().is_some() {
        report.launch.1 = Instant::now();
    }
    let output = child.wait_with_output().expect("its pipes can be read");
    report.output = String::from_utf8_lossy(&output.stdout).into_owned();
    report.complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    report.history.push(match output.status.code() {
        _ if killed => State::Killed,
        Some(0) => State::Finished,
        code => State::Failed(code.unwrap_or(-1)),
    });
    // Not while the engine itself is being restarted.
    let _held = gates.verdicts.read();
    report.orphaned = runs();
    if !report.history.contains(&State::Running) && report.is_wronged() {
        report.unstartable = refused_start(observer, &name);
    }
    report.logged = observer.run(&["logs", &name]).stdout;
    observer.run(&["rm", "-f", "-v", &name]);
    report
}

/// What the engine says to a start of a container that it has and cannot start.
pub(super) fn refused_start(engine: &Docker, name: &str) -> Option<String> {
    let exists = engine.run(&["inspect", "--type=container", name]).code == 0;
    let started = engine.run(&["start", name]);
    (exists && started.code != 0).then_some(started.stderr)
}

/// `docker run` in Mesos' order (`Docker::run`), with Marathon's environment.
fn start(docker: &Docker, name: &str, spec: &Spec) -> Child {
    let app = format!("/soak/app-{}", spec.number);
    let sandbox = std::env::temp_dir();
    let mut arguments: Vec<String> = vec!["run".into()];
    arguments.extend(["--cpu-shares", "102", "--memory", "33554432"].map(str::to_owned));
    for (key, value) in [
        ("HOST", "agent"),
        ("MARATHON_APP_DOCKER_IMAGE", "busybox"),
        ("MARATHON_APP_ID", app.as_str()),
        ("MARATHON_APP_LABELS", ""),
        ("MARATHON_APP_RESOURCE_MEM", "32.0"),
        ("MARATHON_APP_VERSION", "2026-11-23T04:00:00.000Z"),
        ("MESOS_CONTAINER_NAME", name),
        ("MESOS_SANDBOX", "/mnt/mesos/sandbox"),
        ("MESOS_TASK_ID", &format!("soak_app-{}.instance-1._app.1", spec.number)),
        ("PORT", "31000"),
        ("PORT0", "31000"),
        ("PORTS", "31000"),
    ] {
        arguments.extend(["-e".to_owned(), format!("{key}={value}")]);
    }
    arguments.extend(["-v".to_owned(), format!("{}:/mnt/mesos/sandbox", sandbox.display())]);
    arguments.extend(["--net", "bridge", "--entrypoint", "/bin/sh", "--name", name].map(str::to_owned));
    arguments.extend(spec.options.iter().cloned());
    arguments.extend(["busybox", "-c", &spec.script].map(str::to_owned));
    let mut command = docker.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the docker CLI can be started")
}

/// Looks after a task while its `docker run` lasts; says whether it was killed.
fn attend(
    (docker, runs): (&Docker, &dyn Fn() -> bool),
    name: &str,
    child: &mut Child,
    (report, launching): (&mut Report, &mut Option<RwLockReadGuard<'_, ()>>),
    kill: impl Fn() -> bool,
) -> bool {
    let mut unhealthy = 0;
    let mut next = Instant::now();
    let mut idle_since = None;
    while !matches!(child.try_wait(), Ok(Some(_))) {
        std::thread::sleep(Duration::from_millis(20));
        if Instant::now() < next {
            continue;
        }
        next = Instant::now() + INSPECT_DELAY;
        look(docker, name, report);
        // A container that ended, or was never made, leaves nothing that `docker run` could wait for.
        idle_since = if runs() { None } else { idle_since.or(Some(Instant::now())) };
        if idle_since.is_some_and(|since| since.elapsed() > HANG) {
            return give_up(child, report);
        }
        if report.history.last() != Some(&State::Running) {
            continue;
        }
        if launching.take().is_some() {
            report.launch.1 = Instant::now();
        }
        if report.spec.checked {
            let check = ["exec", name, "sh", "-c", "true"];
            let well = within(Duration::from_secs(10), docker, &check).is_some_and(|output| output.code == 0);
            unhealthy = if well { 0 } else { unhealthy + 1 };
            report.unhealthy = report.unhealthy.max(unhealthy);
            next = Instant::now() + Duration::from_secs(1);
        }
        if kill() {
            return stop(docker, name, child, report);
        }
    }
    false
}

/// Stops it as an executor does: again and again, until its `docker run` ends.
fn stop(docker: &Docker, name: &str, child: &mut Child, report: &mut Report) -> bool {
    let (end, mut next) = (Instant::now() + HANG, Instant::now());
    while !matches!(child.try_wait(), Ok(Some(_))) {
        if Instant::now() > end {
            return give_up(child, report);
        }
        if Instant::now() >= next {
            docker.run(&["stop", "-t", "1", name]);
            next = Instant::now() + STOP_AGAIN;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

/// Notes that `docker run` hangs, and ends it; the task was not killed.
fn give_up(child: &mut Child, report: &mut Report) -> bool {
    report.hung = true;
    let _ = child.kill();
    false
}

fn look(docker: &Docker, name: &str, report: &mut Report) {
    let seen = within(INSPECT_TIMEOUT, docker, &["inspect", "--type=container", name]);
    let Some(seen) = seen.filter(|seen| seen.code == 0) else { return };
    let Ok(all) = serde_json::from_str::<Value>(&seen.stdout) else {
        return report.wrong_inspects.push(seen.stdout);
    };
    let container = &all[0];
    let state = &container["State"];
    if state["StartedAt"].as_str().is_none_or(|at| at.starts_with("0001-")) {
        return;
    }
    let address =
        container["NetworkSettings"]["Networks"]["bridge"]["IPAddress"].as_str().unwrap_or_default();
    if report.address.is_empty() {
        address.clone_into(&mut report.address);
        report.history.push(State::Running);
    }
    if state["Running"] == true && (address.is_empty() || address != report.address) {
        report.wrong_inspects.push(address.to_owned());
    }
}
