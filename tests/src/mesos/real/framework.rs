//! A framework by the v1 scheduler API: takes offers, launches and kills tasks, and keeps what it is told of them.
//!
//! It must never launch a task again, nor ask twice for what it was told: every update is acknowledged and kept in order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::app::App;
use super::talk::{Door, Events};
use crate::http::Answer;

/// A registered framework.
#[derive(Debug)]
pub struct Framework {
    line: Line,
    seen: Arc<Seen>,
    next: AtomicUsize,
}

/// How a framework calls its master.
#[derive(Debug, Clone)]
struct Line {
    door: Door,
    stream: String,
    id: Value,
}

#[derive(Debug, Default)]
struct Seen {
    told: Mutex<Told>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Told {
    offers: Vec<Value>,
    updates: BTreeMap<String, Vec<Value>>,
}

const API: &str = "/master/api/v1/scheduler";
const OFFER: Duration = Duration::from_secs(30);

impl Framework {
    /// Registers one.
    ///
    /// # Panics
    /// When the master does not take it.
    #[must_use]
    pub(super) fn subscribe(door: &Door, name: &str) -> Self {
        let framework = json!({"user": "root", "name": name, "roles": ["*"], "failover_timeout": 600.0, "checkpoint": true,
            "capabilities": [{"type": "MULTI_ROLE"}, {"type": "PARTITION_AWARE"}]});
        let call = json!({"type": "SUBSCRIBE", "subscribe": {"framework_info": framework}});
        let (head, mut events) = door.subscribe(API, &call).expect("the master takes a framework");
        let stream = head
            .lines()
            .find_map(|line| line.strip_prefix("Mesos-Stream-Id: "))
            .expect("it names the stream");
        let subscribed = events.take().expect("the first event");
        let id = subscribed["subscribed"]["framework_id"].clone();
        assert!(id["value"].is_string(), "no framework id: {subscribed}");
        let line = Line { door: door.clone(), stream: stream.trim().to_owned(), id };
        let framework = Self { line, seen: Arc::default(), next: AtomicUsize::new(1) };
        let (line, seen) = (framework.line.clone(), Arc::clone(&framework.seen));
        std::thread::spawn(move || listen(&line, &seen, events));
        framework
    }

    /// Launches instances of apps, all of them by one offer; the ids of their tasks.
    ///
    /// # Panics
    /// When there is no offer, or the call is refused.
    pub fn launch(&self, apps: &[App]) -> Vec<String> {
        let offer = self.wait("an offer", OFFER, |told| told.offers.pop());
        let mut free = free_ports(&offer).into_iter();
        let (mut ids, mut tasks) = (Vec::new(), Vec::new());
        for app in apps {
            let ports: Vec<u64> = free.by_ref().take(app.ports.len().max(1)).collect();
            let id = app.task_id(self.next.fetch_add(1, Relaxed));
            tasks.push(app.task(&id, &offer["agent_id"], &ports));
            ids.push(id);
        }
        let operation = json!({"type": "LAUNCH", "launch": {"task_infos": tasks}});
        self.line.call(json!({"type": "ACCEPT", "accept": {
            "offer_ids": [offer["id"]], "operations": [operation], "filters": {"refuse_seconds": 0.0}}}));
        ids
    }

    /// Asks for a task's end.
    ///
    /// # Panics
    /// When the call is refused.
    pub fn kill(&self, task: &str) {
        self.line.call(json!({"type": "KILL", "kill": {"task_id": {"value": task}}}));
    }

    /// What was told of a task so far.
    #[must_use]
    pub fn updates(&self, task: &str) -> Vec<Value> {
        self.seen.told().updates.get(task).cloned().unwrap_or_default()
    }

    /// Waits until something that holds was told of a task.
    ///
    /// # Panics
    /// When it was not told in time.
    pub fn until(&self, task: &str, what: &str, limit: Duration, holds: impl Fn(&Value) -> bool) -> Value {
        self.wait(&format!("{task}: {what}"), limit, |told| {
            told.updates.get(task)?.iter().find(|one| holds(one)).cloned()
        })
    }

    /// Whether a task's end is told in time.
    #[must_use]
    pub fn ends_within(&self, task: &str, limit: Duration) -> bool {
        self.find(limit, |told| told.updates.get(task)?.iter().any(is_last).then_some(())).is_some()
    }

    fn wait<T>(&self, what: &str, limit: Duration, find: impl FnMut(&mut Told) -> Option<T>) -> T {
        self.find(limit, find).unwrap_or_else(|| panic!("{what}: not within {limit:?}"))
    }

    fn find<T>(&self, limit: Duration, mut find: impl FnMut(&mut Told) -> Option<T>) -> Option<T> {
        let mut found = None;
        let missing = |told: &mut Told| {
            found = find(told);
            found.is_none()
        };
        let waited = self.seen.changed.wait_timeout_while(self.seen.told(), limit, missing);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        found
    }
}

/// Whether an update is a task's last one.
#[must_use]
pub fn is_last(update: &Value) -> bool {
    !matches!(
        update["state"].as_str(),
        Some("TASK_STAGING" | "TASK_STARTING" | "TASK_RUNNING" | "TASK_KILLING")
    )
}

impl Seen {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn call(&self, call: Value) {
        let what = call["type"].clone();
        let answer = self.try_call(call).expect("the master answers");
        assert_eq!(answer.status, 202, "{what}: {}", answer.text());
    }

    fn try_call(&self, mut call: Value) -> std::io::Result<Answer> {
        call["framework_id"] = self.id.clone();
        self.door.call(API, Some(&self.stream), &call)
    }
}

/// Keeps what is told, until the master ends.
fn listen(line: &Line, seen: &Seen, mut events: Events) {
    while let Ok(event) = events.take() {
        let mut told = seen.told();
        match event["type"].as_str() {
            Some("OFFERS") => {
                told.offers.extend(event["offers"]["offers"].as_array().cloned().unwrap_or_default())
            }
            Some("RESCIND") => told.offers.retain(|offer| offer["id"] != event["rescind"]["offer_id"]),
            Some("UPDATE") => {
                let status = event["update"]["status"].clone();
                let task = status["task_id"]["value"].as_str().unwrap_or_default().to_owned();
                told.updates.entry(task).or_default().push(status.clone());
                drop(told);
                acknowledge(line, &status);
            }
            Some("ERROR") => eprintln!("the master says: {event}"),
            _ => continue,
        }
        seen.changed.notify_all();
    }
}

/// Those of the master itself have no id, and want no answer; nor does a master that ends.
fn acknowledge(line: &Line, status: &Value) {
    if status["uuid"].is_string() {
        let _ = line.try_call(json!({"type": "ACKNOWLEDGE", "acknowledge": {
            "agent_id": status["agent_id"], "task_id": status["task_id"], "uuid": status["uuid"]}}));
    }
}

fn free_ports(offer: &Value) -> Vec<u64> {
    let resources = offer["resources"].as_array().into_iter().flatten();
    let ranges =
        resources.filter(|one| one["name"] == "ports").filter_map(|one| one["ranges"]["range"].as_array());
    let ends = ranges.flatten().filter_map(|range| Some((range["begin"].as_u64()?, range["end"].as_u64()?)));
    ends.flat_map(|(begin, end)| begin..=end).collect()
}
