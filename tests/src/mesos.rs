//! A Mesos agent as the docker CLI sees it: its argv, its order, its intervals and timeouts, and what it makes of them.
//!
//! After the code of Apache Mesos (`src/docker/docker.cpp`, `src/docker/executor.cpp`): it forks a docker CLI for
//! everything, holds one foreground `docker run` per task, and judges by exit codes alone. It must never be kinder than
//! Mesos: nothing is tried again that Mesos does not try again.

pub mod between;
pub mod database;
pub mod hardship;
pub mod outcome;
pub mod real;
pub mod scenario;
pub mod task;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::docker::Docker;
use crate::shell::Output;

/// `DOCKER_INSPECT_DELAY`: between two looks at a container that has not started.
pub const INSPECT_DELAY: Duration = Duration::from_millis(500);
/// `DOCKER_INSPECT_TIMEOUT`: then the CLI is killed, and another started.
pub const INSPECT_TIMEOUT: Duration = Duration::from_secs(5);

/// An agent's recovery: all containers, and an inspect of each that is a task's.
///
/// # Errors
/// Any of it failed: a real agent exits then.
pub fn recover(docker: &Docker) -> Result<usize, String> {
    let listed = docker.run(&["ps", "-a"]);
    if listed.code != 0 || listed.stdout.is_empty() {
        return Err(format!("ps -a: {}", listed.stderr));
    }
    let names: Vec<&str> =
        listed.stdout.lines().skip(1).filter_map(|line| line.split_whitespace().last()).collect();
    let tasks: Vec<&str> = names.into_iter().filter(|name| name.starts_with("mesos-")).collect();
    for name in &tasks {
        let seen = docker.run(&["inspect", "--type=container", name]);
        // A task that ends in between would fail a real agent's recovery, whoever answers; that is not asked here.
        if seen.code != 0 && !seen.stderr.contains("No such container") {
            return Err(format!("inspect {name}: {}", seen.stderr));
        }
    }
    Ok(tasks.len())
}

/// Runs a CLI, and kills it when it takes longer than that.
#[must_use]
pub fn within(limit: Duration, docker: &Docker, arguments: &[&str]) -> Option<Output> {
    output_within(limit, &mut docker.command(arguments))
}

/// The same with any command.
#[must_use]
pub fn output_within(limit: Duration, command: &mut Command) -> Option<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().ok()?;
    let end = Instant::now() + limit;
    while child.try_wait().ok()?.is_none() {
        if Instant::now() >= end {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().ok()?;
    Some(Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
