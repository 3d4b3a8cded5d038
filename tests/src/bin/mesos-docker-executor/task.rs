//! One task's life: its `docker run`, the inspect that shows it started, its checks, its end.
//!
//! All of it is decided on one thread, event by event. It must never judge by anything but exit codes and the first inspect
//! that shows the container started, which is all that the real executor has. (One thing is left out: the real one gives up
//! a `docker run` that goes on for a minute after its container's end; the suite sees that as a task that does not end.)

use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use selvedge_tests::mesos::{INSPECT_DELAY, INSPECT_TIMEOUT};
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::argv;
use crate::flags::{Flags, duration};
use crate::health::Check;

/// What can happen.
#[derive(Debug)]
pub(crate) enum Event {
    /// The agent has a task.
    Launch(Value),
    /// The agent wants its end, by this policy.
    Kill(Value),
    /// The agent wants our end.
    Shutdown,
    /// The agent has an update.
    Acknowledged(String),
    /// The agent's stream has ended.
    Lost,
    /// An inspect shows that the container was started.
    Seen(String),
    /// `docker run` has ended.
    Ended(ExitStatus),
    /// Nothing waits for an inspect any longer.
    Late,
    /// A check has a verdict.
    Health { passed: bool, failures: u64 },
    /// `docker stop` has ended.
    Stopped(Result<(), String>),
}

/// A launched task.
#[derive(Debug)]
pub(crate) struct Task {
    info: Value,
    agent: Agent,
    docker: Vec<String>,
    name: String,
    events: Sender<Event>,
    grace: Duration,
    /// Whether the first inspect has come, or is not waited for any longer.
    inspected: bool,
    /// The addresses that go with each update from the first inspect on.
    network: Option<Value>,
    ended: Option<ExitStatus>,
    /// The grace period of a wanted end.
    wanted: Option<Duration>,
    killed: bool,
    unhealthy: bool,
    stop: Option<u32>,
    /// The last update's id.
    last: Option<String>,
}

/// `KILL_RETRY_INTERVAL`, of tasks that are killed for their health alone.
const STOP_AGAIN: Duration = Duration::from_secs(5);

impl Task {
    /// Starts its `docker run`, and begins to look at its container.
    pub(crate) fn launch(
        info: Value,
        flags: &Flags,
        agent: Agent,
        events: &Sender<Event>,
    ) -> anyhow::Result<Self> {
        agent.update(&info, json!({"state": "TASK_STARTING"}))?;
        let line = argv::run(&info, flags);
        // Its output is ours, which is the sandbox's.
        let mut run = Command::new(&line[0]).args(&line[1..]).stdin(Stdio::null()).spawn()?;
        let told = events.clone();
        std::thread::spawn(move || run.wait().map(|status| told.send(Event::Ended(status))));
        let (docker, name) = (argv::docker(flags), flags.get("container").to_owned());
        let (look, told) = (
            [&docker[..], &["inspect", "--type=container", &name].map(str::to_owned)].concat(),
            events.clone(),
        );
        std::thread::spawn(move || inspect(&look, &told));
        let grace =
            std::env::var("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD").ok().and_then(|text| duration(&text));
        Ok(Self {
            info,
            agent,
            docker,
            name,
            events: events.clone(),
            grace: grace.unwrap_or(Duration::from_secs(5)),
            inspected: false,
            network: None,
            ended: None,
            wanted: None,
            killed: false,
            unhealthy: false,
            stop: None,
            last: None,
        })
    }

    /// Does what follows from an event; whether that was all.
    pub(crate) fn handle(&mut self, event: Event) -> anyhow::Result<bool> {
        match event {
            Event::Acknowledged(id) => return Ok(self.last == Some(id)),
            Event::Ended(status) => self.ended(status)?,
            Event::Seen(inspect) if !self.inspected => self.seen(&inspect)?,
            Event::Late => self.go_on()?,
            Event::Kill(policy) => {
                let nanoseconds = [&policy, &self.info["kill_policy"]]
                    .map(|from| from["grace_period"]["nanoseconds"].as_u64());
                let grace = nanoseconds.into_iter().flatten().next().map(Duration::from_nanos);
                self.end(grace.unwrap_or(self.grace));
            }
            Event::Shutdown => self.end(self.grace.saturating_sub(Duration::from_secs(2))),
            Event::Health { passed, failures } if !self.killed && self.ended.is_none() => {
                self.checked(passed, failures)?
            }
            Event::Stopped(how) => self.stopped(how),
            _ => {}
        }
        Ok(false)
    }

    fn update(&self, mut status: Value) -> anyhow::Result<String> {
        if let Some(network) = &self.network {
            status["container_status"] = network.clone();
        }
        self.agent.update(&self.info, status)
    }

    fn seen(&mut self, inspect: &str) -> anyhow::Result<()> {
        let all: Value = serde_json::from_str(inspect)?;
        let address = address(&all[0]);
        if !address.is_empty() {
            let mut network = self.info["container"]["network_infos"][0].clone();
            network["ip_addresses"] = json!([{"ip_address": address}]);
            self.network = Some(json!({"network_infos": [network]}));
        }
        self.update(json!({"state": "TASK_RUNNING", "data": BASE64_STANDARD.encode(inspect)}))?;
        if self.info["health_check"].is_object() {
            let (pid, events) = (&all[0]["State"]["Pid"], self.events.clone());
            let check = Check::new(&self.info["health_check"], &self.docker, &self.name, pid);
            std::thread::spawn(move || check.run(&events));
        }
        self.go_on()
    }

    /// What has waited for the first inspect.
    fn go_on(&mut self) -> anyhow::Result<()> {
        self.inspected = true;
        if let Some(status) = self.ended {
            self.finish(status)?;
        } else if let Some(grace) = self.wanted.filter(|_| !self.killed) {
            self.stop(grace);
        }
        Ok(())
    }

    fn ended(&mut self, status: ExitStatus) -> anyhow::Result<()> {
        self.ended = Some(status);
        if let Some(pid) = self.stop.take() {
            let _ = kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL);
        }
        if self.inspected { self.finish(status) } else { self.wait_for_inspect() }
    }

    /// So that a task that ran is told to have run; one that never started has no such inspect.
    fn wait_for_inspect(&self) -> anyhow::Result<()> {
        let events = self.events.clone();
        std::thread::spawn(move || {
            std::thread::sleep(INSPECT_TIMEOUT);
            let _ = events.send(Event::Late);
        });
        Ok(())
    }

    /// Tells how it ended, once.
    fn finish(&mut self, status: ExitStatus) -> anyhow::Result<()> {
        if self.last.is_some() {
            return Ok(());
        }
        let state = match status.success() {
            _ if self.killed => "TASK_KILLED",
            true => "TASK_FINISHED",
            false => "TASK_FAILED",
        };
        let mut told = json!({"state": state, "message": format!("Container {}", how(status))});
        if self.killed && self.unhealthy {
            told["healthy"] = false.into();
        }
        self.last = Some(self.agent.update(&self.info, told)?);
        Ok(())
    }

    fn checked(&mut self, passed: bool, failures: u64) -> anyhow::Result<()> {
        let reason = "REASON_TASK_HEALTH_CHECK_STATUS_UPDATED";
        self.update(json!({"state": "TASK_RUNNING", "healthy": passed, "reason": reason}))?;
        if !passed && failures >= self.info["health_check"]["consecutive_failures"].as_u64().unwrap_or(3) {
            self.unhealthy = true;
            self.end(self.grace);
        }
        Ok(())
    }

    /// Ends the container, but not before the first inspect has had its time.
    fn end(&mut self, grace: Duration) {
        if self.ended.is_some() {
            return;
        }
        self.wanted = Some(grace);
        if self.inspected {
            self.stop(grace);
        } else {
            let _ = self.wait_for_inspect();
        }
    }

    fn stop(&mut self, grace: Duration) {
        self.killed = true;
        if let Some(pid) = self.stop.take() {
            let _ = kill(Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX)), Signal::SIGKILL);
        }
        let mut command = Command::new(&self.docker[0]);
        command.args(&self.docker[1..]).args(["stop", "-t", &grace.as_secs().to_string(), &self.name]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let events = self.events.clone();
        match command.spawn() {
            Ok(child) => {
                self.stop = Some(child.id());
                std::thread::spawn(move || events.send(Event::Stopped(outcome(child))));
            }
            Err(error) => self.stopped(Err(error.to_string())),
        }
    }

    fn stopped(&mut self, how: Result<(), String>) {
        self.stop = None;
        let Err(error) = how else { return };
        if self.ended.is_some() {
            return;
        }
        eprintln!("executor: failed to stop {}: {error}", self.name);
        if self.unhealthy {
            let (events, grace) = (self.events.clone(), self.grace);
            std::thread::spawn(move || {
                std::thread::sleep(STOP_AGAIN);
                events.send(Event::Kill(json!({"grace_period": {"nanoseconds": grace.as_nanos() as u64}})))
            });
        }
    }
}

/// Waits for a CLI's end.
fn outcome(child: Child) -> Result<(), String> {
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{}: {said}", how(output.status))) }
}

/// A status in libprocess' words.
fn how(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, signal) => format!("terminated with signal {}", signal.unwrap_or_default()),
    }
}

/// Looks until the container was started; a look that takes too long is ended, and another begun.
fn inspect(line: &[String], to: &Sender<Event>) {
    loop {
        let seen =
            selvedge_tests::mesos::output_within(INSPECT_TIMEOUT, Command::new(&line[0]).args(&line[1..]));
        if let Some(text) = seen.filter(|seen| seen.code == 0).map(|seen| seen.stdout)
            && was_started(&text)
        {
            let _ = to.send(Event::Seen(text));
            return;
        }
        std::thread::sleep(INSPECT_DELAY);
    }
}

fn was_started(inspect: &str) -> bool {
    let all: Value = serde_json::from_str(inspect).unwrap_or_default();
    all[0]["State"]["StartedAt"].as_str().is_some_and(|at| !at.starts_with("0001-01-01T00:00:00"))
}

/// Where Mesos reads a container's address.
fn address(container: &Value) -> String {
    let mode = match container["HostConfig"]["NetworkMode"].as_str().unwrap_or_default() {
        "default" => "bridge",
        other => other,
    };
    let settings = &container["NetworkSettings"];
    let own = &settings["Networks"][mode]["IPAddress"];
    let found = if own.is_null() { &settings["IPAddress"] } else { own };
    found.as_str().unwrap_or_default().to_owned()
}
