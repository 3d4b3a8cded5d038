//! Follows the engine's events, and reads everything anew whenever some may have been missed.
//!
//! Events are only hints of when to look: what is done is decided by what the engine and the kernel say then.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::Incoming;
use selvedge_netsetup::Wire;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::book::Phase;
use crate::docker::engine::EngineError;
use crate::docker::model::{Event, Listed, short};
use crate::fabric;
use crate::front::parting;
use crate::note::LABEL;
use crate::reconcile;
use crate::route::percent_encode;
use crate::serving;
use crate::worker::Worker;

// {"type":["container","network"]}
const EVENTS: &str = "/events?filters=%7B%22type%22%3A%5B%22container%22%2C%22network%22%5D%7D";
const RECONNECT: Duration = Duration::from_millis(200);
/// For how long a container that an earlier worker was stopping is taken to be about to end.
const STAND_ASIDE: Duration = Duration::from_secs(60);
const SWEEP: Duration = Duration::from_millis(1500);
// A state line that makes no sense ends the stream: it is read anew.
const MAX_EVENT: usize = 4 * 1024 * 1024;

/// Follows the engine for ever. `ready` is told when everything has been read once.
pub(crate) async fn follow(worker: Arc<Worker>, ready: tokio::sync::oneshot::Sender<()>) {
    let mut ready = Some(ready);
    let mut told = false;
    loop {
        match session(&worker, &mut ready).await {
            Ok(()) => info!("the engine's event stream ended; reading anew"),
            Err(error) if !told => warn!(%error, "the engine cannot be followed; trying again"),
            Err(error) => debug!(%error, "the engine still cannot be followed"),
        }
        worker.life.ends();
        told = !worker.engine_seen(false);
        tokio::time::sleep(RECONNECT).await;
    }
}

async fn session(
    worker: &Arc<Worker>,
    ready: &mut Option<tokio::sync::oneshot::Sender<()>>,
) -> Result<(), SessionError> {
    // First the stream, then the list: what happens in between is seen twice rather than not at all.
    let stream = worker.engine.send(Method::GET, EVENTS, Vec::new()).await?;
    worker.life.begins();
    worker.wordings.clear();
    worker.network.prepare_host().await?;
    sync(worker).await?;
    worker.engine_seen(true);
    if let Some(ready) = ready.take() {
        worker.book.leap();
        let _ = ready.send(());
    }
    let mut lines = Lines { body: stream.into_body(), buffer: Vec::new() };
    let mut sweep = tokio::time::interval_at(Instant::now() + SWEEP / 3, SWEEP);
    loop {
        tokio::select! {
            line = lines.next() => match line? {
                Some(line) => event(worker, &line).await,
                None => return Ok(()),
            },
            _ = sweep.tick() => {
                serving::revive(worker);
                if let Err(error) = self::sweep(worker).await {
                    warn!(%error, "cannot look after the wires");
                }
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Network(#[from] selvedge_netsetup::Error),
    #[error("the event stream broke: {0}")]
    Broken(String),
}

struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Lines {
    /// The next line; safe to be dropped while waiting.
    async fn next(&mut self) -> Result<Option<Bytes>, SessionError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(Some(Bytes::from(line)));
            }
            if self.buffer.len() > MAX_EVENT {
                return Err(SessionError::Broken("an event of more than 4 MiB".to_owned()));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.buffer.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Some(Err(error)) => return Err(SessionError::Broken(error.to_string())),
                None => return Ok(None),
            }
        }
    }
}

/// Reads all of our containers and all wires, and mends the difference.
async fn sync(worker: &Arc<Worker>) -> Result<(), SessionError> {
    let began = Instant::now();
    let filters = percent_encode(&format!("{{\"label\":[{LABEL:?}]}}"));
    let listed: Vec<Listed> = worker.engine.get(&format!("/containers/json?all=1&filters={filters}")).await?;
    let wires = worker.network.wires().await?;
    let (mut known, mut ours) = (HashSet::new(), Vec::new());
    for container in &listed {
        let labels = container.labels.clone().unwrap_or_default();
        if worker.book.learn_labels(&container.id, container.name(), &labels) {
            known.insert(container.id.clone());
            ours.push(container);
        }
    }
    fabric::remember_blocks(worker);
    let aside = if worker.book.has_vips() { worker.balancer.aside().await } else { Vec::new() };
    look_closer(worker, &ours, &aside).await;
    let trusted = ours.into_iter().filter_map(|container| settle(worker, container, &wires)).collect();
    tokio::spawn(verify(Arc::clone(worker), trusted));
    for (id, _) in worker.book.all() {
        if !known.contains(&id) && worker.engine.inspect(&id).await.is_err_and(|error| error.is_not_found()) {
            reconcile::gone(worker, &id);
        }
    }
    worker.cluster.settled();
    worker.saw_all();
    sweep_with(worker, wires).await?;
    info!(containers = known.len(), took = ?began.elapsed(), "read the engine's containers and the kernel's wires");
    Ok(())
}

/// Which of several is the newest must be known before any is answered; and who serves its virtual addresses, before any
/// connection is led to it.
async fn look_closer(worker: &Worker, containers: &[&Listed], aside: &[Ipv4Addr]) {
    for container in containers {
        let Some(entry) = worker.book.entry(&container.id) else { continue };
        let note = entry.note;
        if !note.exclusive && note.vips.is_empty() {
            continue;
        }
        if let Ok(found) = worker.engine.inspect(&container.id).await {
            worker.book.set_life(&container.id, &found);
            worker.book.set_serving(&container.id, &serving::served(&note, found.state.pid));
        }
        if entry.draining.is_none() && aside.contains(&note.address) {
            worker.book.set_draining(&container.id, Some(Instant::now() + STAND_ASIDE));
        }
    }
}

/// A wire that was finished is taken as it is, without a look into the container; it is given back, to be
/// looked at when there is time.
fn settle(worker: &Arc<Worker>, container: &Listed, wires: &[Wire]) -> Option<(String, Wire)> {
    let id = &container.id;
    if !matches!(container.state.as_str(), "running" | "paused") {
        if !worker.book.is_expected(id) {
            reconcile::stopped(worker, id);
        }
        return None;
    }
    worker.book.set_listed(container);
    let entry = worker.book.entry(id)?;
    let is_its =
        |wire: &&Wire| id.starts_with(&wire.container_prefix) && wire.address == Some(entry.note.address);
    let Some(wire) = wires.iter().filter(|wire| wire.complete).find(is_its) else {
        mend(worker, id);
        return None;
    };
    if !worker.book.owns(entry.note.address) {
        worker.cluster.has_address(entry.note.address, id);
    }
    reconcile::publish(worker, id, &entry);
    worker.book.set_phase(id, Phase::Wired);
    Some((id.clone(), wire.clone()))
}

/// A container that was restarted while nobody looked may have left the wire of its earlier life behind, in a
/// namespace that takes its time to die.
async fn verify(worker: Arc<Worker>, trusted: Vec<(String, Wire)>) {
    for (id, wire) in trusted {
        let Ok(found) = worker.engine.inspect(&id).await else { continue };
        if found.state.running && found.state.pid != 0 && wire.serves(found.state.pid) {
            serving::follow(&worker, &id, found.state.pid);
        } else if found.state.running && found.state.pid != 0 {
            info!(container = short(&id), "its wire leads to an earlier life of it");
            worker.book.set_phase(&id, Phase::Starting);
            mend(&worker, &id);
        }
    }
}

fn mend(worker: &Arc<Worker>, id: &str) {
    if !worker.book.is_expected(id) {
        tokio::spawn(reconcile::unasked(Arc::clone(worker), id.to_owned()));
    }
}

/// Looks after the host's firewalls, for ever. Whoever asks firewalld may have to wait, so events do not wait for this.
pub(crate) async fn keep_firewalls_open(worker: Arc<Worker>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        worker.firewalls.found(worker.network.mind_firewalls().await);
    }
}

async fn sweep(worker: &Arc<Worker>) -> Result<(), selvedge_netsetup::Error> {
    sweep_with(worker, worker.network.wires().await?).await
}

/// Takes out wires whose containers are gone, and mends containers whose wires are.
async fn sweep_with(worker: &Arc<Worker>, wires: Vec<Wire>) -> Result<(), selvedge_netsetup::Error> {
    let containers = worker.book.all();
    let by_prefix: HashMap<&str, (&str, Phase)> =
        containers.iter().map(|(id, entry)| (short(id), (id.as_str(), entry.phase))).collect();
    let mut wired = HashSet::new();
    let mut stray = Vec::new();
    for wire in wires {
        match by_prefix.get(wire.container_prefix.as_str()) {
            // Its route is gone: somebody flushed the table. What is missing is put back.
            Some((id, Phase::Wired)) if wire.address.is_none() => {
                wired.insert((*id).to_owned());
                mend(worker, id);
            }
            Some((id, phase)) if *phase != Phase::Stopped || worker.book.is_expected(id) => {
                wired.insert((*id).to_owned());
            }
            Some((id, _)) if still_runs(worker, id).await => mend(worker, id),
            _ => stray.push(wire),
        }
    }
    for (id, entry) in &containers {
        if entry.phase == Phase::Wired && !wired.contains(id) {
            debug!(container = short(id), "its wire is gone");
            worker.book.set_phase(id, Phase::Starting);
            mend(worker, id);
        }
    }
    if !stray.is_empty() {
        debug!(wires = stray.len(), "taking out wires of containers that are gone");
        worker.network.disconnect(&stray).await?;
    }
    Ok(())
}

// The book may be behind: before a wire is taken out, the engine has the word.
async fn still_runs(worker: &Worker, id: &str) -> bool {
    worker.engine.inspect(id).await.map_or_else(|error| !error.is_not_found(), |found| found.state.running)
}

async fn event(worker: &Arc<Worker>, line: &[u8]) {
    let event: Event = match serde_json::from_slice(line) {
        Ok(event) => event,
        Err(error) => return debug!(%error, "an event that we cannot read"),
    };
    let attributes = &event.actor.attributes;
    if event.kind == "network" {
        if matches!(event.action.as_str(), "connect" | "disconnect") {
            attributes.get("container").iter().for_each(|id| moved(worker, id));
        }
        return;
    }
    if event.kind != "container" {
        return;
    }
    let id = event.actor.id.as_str();
    let name = attributes.get("name").map(String::as_str).unwrap_or_default();
    if event.action == "die"
        && let Some(code) = attributes.get("exitCode").and_then(|code| code.parse().ok())
    {
        worker.life.exited(id, code);
    }
    if worker.book.note(id).is_none() && !worker.book.learn_labels(id, name, attributes) {
        return;
    }
    match event.action.as_str() {
        "start" => mend(worker, id),
        "die" => drop(tokio::spawn(died(Arc::clone(worker), id.to_owned()))),
        "destroy" => reconcile::gone(worker, id),
        "pause" | "unpause" => {
            worker.book.set_paused(id, event.action == "pause");
            reconcile::republish(worker, id);
        }
        "kill" if parting::is_parting(attributes.get("signal").map(String::as_str)) => {
            // The engine was told by another way than ours: late, and better than not at all.
            serving::drain(worker, id, parting::AFTER_A_SIGNAL, false).await;
        }
        "rename" => renamed(worker, id, name),
        // `health_status: healthy`, as every engine writes it.
        action => {
            if let Some(health) = action.strip_prefix("health_status:") {
                fares(worker, id, health.trim() != "healthy");
            }
        }
    }
}

/// A container that runs has come to one of the engine's networks, or left it: its address there is judged as its own.
fn moved(worker: &Arc<Worker>, id: &str) {
    let runs = worker.book.entry(id).is_some_and(|entry| entry.phase == Phase::Wired);
    if !runs || !worker.config.policy.tenants {
        return;
    }
    let (worker, id) = (Arc::clone(worker), id.to_owned());
    tokio::spawn(async move {
        let Ok(found) = worker.engine.inspect(&id).await else { return };
        worker.book.set_life(&id, &found);
        debug!(container = short(&id), "is on other networks of the engine's now");
        reconcile::republish(&worker, &id);
    });
}

fn fares(worker: &Worker, id: &str, unhealthy: bool) {
    worker.book.set_health(id, unhealthy);
    info!(container = short(id), unhealthy, "its HEALTHCHECK says something new");
    reconcile::republish(worker, id);
}

/// The event may be old news: a restart may have come since. What the engine says now decides.
async fn died(worker: Arc<Worker>, id: String) {
    match reconcile::container(&worker, &id).await {
        Ok(reconcile::Outcome::NotRunning) => info!(container = short(&id), "ended"),
        Ok(_) => {}
        Err(error) => debug!(container = short(&id), %error, "cannot look at a container that ended"),
    }
}

fn renamed(worker: &Worker, id: &str, name: &str) {
    worker.book.rename(id, name.trim_start_matches('/'));
    info!(container = short(id), name, "renamed");
    reconcile::republish(worker, id);
}
