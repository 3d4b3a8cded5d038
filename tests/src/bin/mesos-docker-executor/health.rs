//! Health checks as Mesos makes them (`src/checks/checker_process.cpp`): COMMAND by `docker exec`, HTTP by curl in the
//! container's network namespace, without Docker.
//! It must never outlive the task's end: a check whose verdict has no one to hear it is the last.

use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::task::Event;

/// What a check runs.
#[derive(Debug)]
pub(crate) struct Check {
    command: Vec<String>,
    health: Value,
}

impl Check {
    /// `docker` is what comes before a verb; `pid` the container's program.
    pub(crate) fn new(health: &Value, docker: &[String], container: &str, pid: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let command = if health["type"] == "COMMAND" {
            let exec = ["exec", container, "sh", "-c"].map(str::to_owned);
            docker.iter().cloned().chain(exec).chain([text(&health["command"]["value"])]).collect()
        } else {
            let http = &health["http"];
            let url = format!("http://127.0.0.1:{}{}", http["port"], http["path"].as_str().unwrap_or("/"));
            let curl = "curl -s -S -L -k -f -g -o /dev/null".split(' ').map(str::to_owned);
            ["nsenter".to_owned(), format!("--net=/proc/{pid}/ns/net")]
                .into_iter()
                .chain(curl)
                .chain([url])
                .collect()
        };
        Self { command, health: health.clone() }
    }

    /// Checks again and again, and tells each change and each failure that counts.
    pub(crate) fn run(&self, to: &Sender<Event>) {
        std::thread::sleep(self.seconds("delay_seconds", 15.0));
        let began = Instant::now();
        let grace = self.seconds("grace_period_seconds", 10.0);
        let (mut was, mut failures) = (None, 0);
        loop {
            let is = self.passes();
            failures = if is { 0 } else { failures + 1 };
            // Until it has passed once, failures of the grace period are none.
            let is_early = !is && was.is_none() && began.elapsed() < grace;
            if is_early {
                failures = 0;
            } else if (!is || was != Some(true)) && to.send(Event::Health { passed: is, failures }).is_err() {
                return;
            } else {
                was = Some(is);
            }
            std::thread::sleep(self.seconds("interval_seconds", 10.0));
        }
    }

    fn seconds(&self, name: &str, default: f64) -> Duration {
        Duration::from_secs_f64(self.health[name].as_f64().unwrap_or(default))
    }

    fn passes(&self) -> bool {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().is_ok_and(|child| ended_well(child, self.seconds("timeout_seconds", 20.0)))
    }
}

/// Whether it ends with 0 in time; later it is killed.
pub(crate) fn ended_well(mut child: Child, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(Duration::from_millis(20)),
            Ok(Some(status)) => return status.success(),
            Err(_) => return false,
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    false
}
