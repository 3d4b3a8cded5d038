//! Stands in for `mesos-docker-executor`, which Mesos' Python package does not have: runs one task by the docker CLI.
//!
//! After `src/docker/executor.cpp` of Mesos 1.11, but by the v1 HTTP API of executors, where the real one uses Mesos' own
//! protocol. The agent's recovery skips such executors, so an agent cannot be restarted under it. It must never be kinder
//! than the real one: what that does not try again is not tried again here.

mod agent;
mod argv;
mod flags;
mod health;
mod task;

use std::process::ExitCode;
use std::sync::mpsc::channel;

use agent::Agent;
use flags::Flags;
use task::{Event, Task};

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("executor: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Takes the task that it is told to launch, and lives until the agent has its last word.
fn serve() -> anyhow::Result<()> {
    let flags = Flags::of(std::env::args().skip(1));
    let agent = Agent::from_environment()?;
    let (events, told) = channel();
    agent.subscribe(events.clone())?;
    let mut task: Option<Task> = None;
    for event in told {
        match (&mut task, event) {
            (None, Event::Launch(info)) => task = Some(Task::launch(info, &flags, agent.clone(), &events)?),
            (None, Event::Shutdown) | (_, Event::Lost) => return Ok(()),
            (Some(task), event) => {
                if task.handle(event)? {
                    return Ok(());
                }
            }
            (None, _) => {}
        }
    }
    Ok(())
}
