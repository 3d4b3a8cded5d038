//! An agent's answer to `GET_TASKS` (Mesos' v1 operator API), and the name of a task's container. Must never take a word for a
//! verdict that is none.

use std::collections::HashMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

#[derive(Deserialize)]
struct Answer {
    get_tasks: Tasks,
}

#[derive(Deserialize)]
struct Tasks {
    #[serde(default)]
    launched_tasks: Vec<Task>,
}

#[derive(Deserialize)]
struct Task {
    #[serde(default)]
    health_check: Option<IgnoredAny>,
    #[serde(default)]
    statuses: Vec<Status>,
}

/// One for each state that the task has been in, with what was told last in that state.
#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    healthy: Option<bool>,
    #[serde(default)]
    container_status: Option<ContainerStatus>,
}

#[derive(Deserialize)]
struct ContainerStatus {
    #[serde(default)]
    container_id: Option<Id>,
}

#[derive(Deserialize)]
struct Id {
    value: String,
}

/// The verdicts by container.
pub(super) fn read(answer: &[u8]) -> Result<HashMap<String, bool>, String> {
    let answer: Answer = serde_json::from_slice(answer).map_err(|error| format!("its answer: {error}"))?;
    Ok(answer.get_tasks.launched_tasks.iter().filter_map(Task::verdict).collect())
}

impl Task {
    /// The container, and whether it is healthy: not before a check has passed, as Docker has it. None without a check.
    fn verdict(&self) -> Option<(String, bool)> {
        let status =
            |status: &Status| Some(status.container_status.as_ref()?.container_id.as_ref()?.value.clone());
        let container = self.statuses.iter().rev().find_map(status)?;
        let told = self.statuses.last().and_then(|status| status.healthy);
        let healthy = told.or_else(|| self.health_check.as_ref().map(|_| false))?;
        Some((container, healthy))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn task(check: Value, statuses: Value) -> HashMap<String, bool> {
        let task = json!({"task_id": {"value": "web"}, "health_check": check, "statuses": statuses});
        read(json!({"type": "GET_TASKS", "get_tasks": {"launched_tasks": [task]}}).to_string().as_bytes())
            .unwrap()
    }

    #[test]
    fn a_task_is_healthy_when_its_check_says_so() {
        let at = |healthy: Value| json!({"state": "TASK_RUNNING", "healthy": healthy, "container_status": {"container_id": {"value": "c1"}}});
        let check = json!({"type": "HTTP"});
        let of = |healthy: bool| HashMap::from([("c1".to_owned(), healthy)]);
        assert_eq!(task(check.clone(), json!([at(Value::Null), at(true.into())])), of(true));
        assert_eq!(task(check.clone(), json!([at(true.into()), at(false.into())])), of(false));
        assert_eq!(task(check, json!([at(Value::Null)])), of(false), "no verdict yet");
        assert!(task(Value::Null, json!([at(Value::Null)])).is_empty(), "no check");
    }

    #[test]
    fn one_that_has_no_container_yet_has_no_verdict() {
        assert!(task(json!({"type": "COMMAND"}), json!([])).is_empty());
        assert!(task(json!({"type": "COMMAND"}), json!([{"state": "TASK_STARTING"}])).is_empty());
        assert!(read(br#"{"type":"GET_TASKS","get_tasks":{}}"#).unwrap().is_empty());
        assert!(read(b"<html>").is_err());
    }
}
