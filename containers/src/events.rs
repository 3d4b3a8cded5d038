//! Follows the engine's events, and reads the whole list again whenever some may have been missed.
//!
//! Events are only hints of when to look: what is done is decided by what the engine and the kernel say then.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::Incoming;
use selvedge_engine::client::EngineError;
use selvedge_engine::lifeline::Lifeline;
use selvedge_engine::model::{Event, Listed, short};
use selvedge_engine::route::percent_encode;
use selvedge_netsetup::Wire;
use tokio::time::Instant;
use tracing::{Instrument, debug, info, warn};

use crate::entry::Phase;
use crate::guests;
use crate::joined::Joined;
use crate::label::LABEL;
use crate::program;
use crate::publish;
use crate::readiness;
use crate::reconcile;
use crate::shared::Containers;
use crate::span;
use crate::upkeep::{self, SWEEP, mend};

// {"type":["container","network"]}
const EVENTS: &str = "/events?filters=%7B%22type%22%3A%5B%22container%22%2C%22network%22%5D%7D";
const RECONNECT: Duration = Duration::from_millis(200);
/// For how long a container that an earlier worker was stopping is taken to be about to end.
const STAND_ASIDE: Duration = Duration::from_secs(60);
// A state line that makes no sense ends the stream, and the list is read again.
const MAX_EVENT: usize = 4 * 1024 * 1024;

/// Follows the engine for ever. `ready` is told when everything has been read once.
pub async fn follow(containers: Arc<Containers>, ready: tokio::sync::oneshot::Sender<()>) {
    let mut ready = Some(ready);
    let mut told = false;
    loop {
        match session(&containers, &mut ready).await {
            Ok(()) => info!("the engine's event stream ended; reading the list again"),
            Err(error) if !told => warn!(%error, "the engine cannot be followed; trying again"),
            Err(error) => debug!(%error, "the engine still cannot be followed"),
        }
        containers.life.ends();
        told = !containers.set_followed(false);
        tokio::time::sleep(RECONNECT).await;
    }
}

async fn session(
    containers: &Arc<Containers>,
    ready: &mut Option<tokio::sync::oneshot::Sender<()>>,
) -> Result<(), SessionError> {
    // First the stream, then the list: what happens in between is seen twice rather than not at all.
    let stream = containers.engine.send(Method::GET, EVENTS, Vec::new()).await?;
    let lifeline = Lifeline::to(containers.engine.socket()).await;
    containers.life.begins(lifeline.map_err(|error| SessionError::Broken(error.to_string()))?);
    containers.wordings.clear();
    containers.host.prepare().await?;
    if containers.settings.alone {
        containers.firewalls.found(containers.host.is_alone().await);
    }
    sync(containers).await?;
    containers.set_followed(true);
    if let Some(ready) = ready.take() {
        let _ = ready.send(());
    }
    let mut lines = Lines { body: stream.into_body(), buffer: Vec::new() };
    let mut sweep = tokio::time::interval_at(Instant::now() + SWEEP / 3, SWEEP);
    loop {
        tokio::select! {
            line = lines.next() => match line? {
                Some(line) => event(containers, &line).await,
                None => return Ok(()),
            },
            _ = sweep.tick() => {
                readiness::revive(containers);
                upkeep::mind_host(containers).await;
                if let Err(error) = upkeep::sweep(containers).await {
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
async fn sync(containers: &Arc<Containers>) -> Result<(), SessionError> {
    let began = Instant::now();
    let before = containers.addresses.snapshot();
    let filters = percent_encode(&format!("{{\"label\":[{LABEL:?}]}}"));
    let mut listed: Vec<Listed> =
        containers.engine.get(&format!("/containers/json?all=1&filters={filters}")).await?;
    let wires = containers.host.wires().await?;
    // Where two say that an address is theirs, it is that of the one with the wire, or else of the older one.
    listed.sort_by_key(|container| (wire_of(container, &wires).is_none(), container.created));
    let (mut known, mut ours) = (HashSet::new(), Vec::new());
    for container in &listed {
        if learn(containers, container).await? {
            known.insert(container.id.clone());
            ours.push(container);
        }
    }
    guests::listed(containers, &listed);
    let given = containers.book.all().into_iter().filter(|(_, entry)| !entry.note.fixed);
    let mut given = given.map(|(_, entry)| (entry.note.address, entry.note.subnet.is_some()));
    containers.host.remember_blocks(&mut given);
    let aside = if containers.book.has_vips() { containers.host.aside().await } else { Vec::new() };
    look_closer(containers, &ours, &aside).await;
    let trusted = ours.into_iter().filter_map(|container| settle(containers, container, &wires)).collect();
    tokio::spawn(verify(Arc::clone(containers), trusted));
    for (id, _) in containers.book.all() {
        if !known.contains(&id)
            && containers.engine.inspect(&id).await.is_err_and(|error| error.is_not_found())
        {
            reconcile::gone(containers, &id);
        }
    }
    containers.addresses.set_foreign(&containers.host.foreign_addresses().await?);
    containers.addresses.free_stale(before);
    if containers.addresses.set_known() {
        containers.addresses.leap();
    }
    containers.host.all_seen();

    upkeep::sweep_with(containers, wires).await?;
    info!(containers = known.len(), took = ?began.elapsed(), "read the engine's containers and the kernel's wires");
    Ok(())
}

/// Takes in a container of the list; whether it is one of ours. An engine that lists no mounts is asked for them.
async fn learn(containers: &Containers, container: &Listed) -> Result<bool, EngineError> {
    if !container.mounts.is_empty() {
        return Ok(containers.book.learn_listed(container));
    }
    match containers.engine.inspect(&container.id).await {
        Ok(found) => Ok(containers.book.learn(&found)),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// The finished wire that leads to a container, if it has one.
fn wire_of<'w>(container: &Listed, wires: &'w [Wire]) -> Option<&'w Wire> {
    wires.iter().find(|wire| wire.complete && container.id.starts_with(&wire.container_prefix))
}

/// Which of several is the newest must be known before any is answered; and who serves its virtual addresses, before any
/// connection is led to it.
async fn look_closer(containers: &Containers, listed: &[&Listed], aside: &[Ipv4Addr]) {
    for container in listed {
        let Some(entry) = containers.book.entry(&container.id) else { continue };
        if !entry.is_exclusive() && entry.vips().is_empty() {
            continue;
        }
        if let Ok(found) = containers.engine.inspect(&container.id).await {
            containers.book.set_life(&container.id, &found);
            containers.book.set_serving(&container.id, &readiness::served(&entry, found.state.pid));
        }
        if entry.draining.is_none() && aside.contains(&entry.note.address) {
            containers.book.set_draining(&container.id, Some(Instant::now() + STAND_ASIDE));
        }
    }
}

/// A wire that was finished is taken as it is, without a look into the container; it is given back, to be
/// looked at when there is time.
fn settle(containers: &Arc<Containers>, container: &Listed, wires: &[Wire]) -> Option<(String, Wire)> {
    let id = &container.id;
    if !matches!(container.state.as_str(), "running" | "paused") {
        if !containers.book.is_expected(id) {
            reconcile::stopped(containers, id);
        }
        return None;
    }
    containers.book.set_listed(container);
    let entry = containers.book.entry(id)?;
    let wire = wire_of(container, wires).filter(|wire| wire.address == Some(entry.note.address));
    let Some(wire) = wire.filter(|_| containers.book.hold(id).is_ok()) else {
        mend(containers, id);
        return None;
    };
    if !containers.addresses.owns(entry.note.address) {
        containers.host.has_address(entry.note.address, id);
    }
    publish::publish(containers, id, &entry);
    containers.book.set_phase(id, Phase::Wired);
    Some((id.clone(), wire.clone()))
}

/// A container that was restarted while no worker looked may have left the wire of its earlier life behind, in a
/// namespace that takes its time to die.
async fn verify(containers: Arc<Containers>, trusted: Vec<(String, Wire)>) {
    for (id, wire) in trusted {
        let Ok(found) = containers.engine.inspect(&id).await else { continue };
        if found.state.running && found.state.pid != 0 && wire.serves(found.state.pid) {
            // The last worker may have died between the route and the gate, or not have known of gates.
            if let Err(error) = program::open_gate(found.state.pid) {
                debug!(container = short(&id), %error, "cannot reach the memory of its first process");
            }
            readiness::follow(&containers, &id, found.state.pid);
        } else if found.state.running && found.state.pid != 0 {
            info!(container = short(&id), "its wire leads to an earlier life of it");
            containers.book.set_phase(&id, Phase::Starting);
            mend(&containers, &id);
        }
    }
}

async fn event(containers: &Arc<Containers>, line: &[u8]) {
    let event: Event = match serde_json::from_slice(line) {
        Ok(event) => event,
        Err(error) => return debug!(%error, "an event that we cannot read"),
    };
    let attributes = &event.actor.attributes;
    if event.kind == "network" {
        if matches!(event.action.as_str(), "connect" | "disconnect") {
            attributes.get("container").iter().for_each(|id| moved(containers, id));
        }
    } else if event.kind == "container" {
        let span = span::container(&event.actor.id);
        of_container(containers, &event).instrument(span).await;
    }
}

async fn of_container(containers: &Arc<Containers>, event: &Event) {
    let attributes = &event.actor.attributes;
    let id = event.actor.id.as_str();
    let name = attributes.get("name").map(String::as_str).unwrap_or_default();
    if event.action == "die"
        && let Some(code) = attributes.get("exitCode").and_then(|code| code.parse().ok())
    {
        containers.life.exited(id, code);
    }
    if let Some(joined) = attributes.get(LABEL).and_then(|text| Joined::parse(text)) {
        return guests::happened(containers, &joined.joins, id, &event.action);
    }
    if containers.book.note(id).is_none() {
        if event.action != "destroy" && attributes.get(LABEL).is_some_and(|label| !label.is_empty()) {
            tokio::spawn(unknown(Arc::clone(containers), id.to_owned()).in_current_span());
        }
        return;
    }
    match event.action.as_str() {
        "start" => mend(containers, id),
        "die" => drop(tokio::spawn(died(Arc::clone(containers), id.to_owned()).in_current_span())),
        "destroy" => reconcile::gone(containers, id),
        "pause" | "unpause" => {
            publish::update(containers, id, |entry| entry.paused = event.action == "pause");
        }
        "kill" if readiness::is_stop_signal(attributes.get("signal").map(String::as_str)) => {
            // The engine was told by another way than ours: late, and better than not at all.
            readiness::drain(containers, id, readiness::AFTER_A_SIGNAL, false).await;
        }
        "rename" => renamed(containers, id, name),
        // `health_status: healthy`, as every engine writes it.
        action => {
            if let Some(health) = action.strip_prefix("health_status:") {
                fares(containers, id, health.trim() != "healthy");
            }
        }
    }
}

/// A container that claims to be ours and that this worker did not make: an earlier worker made it, or none of ours did.
/// Its label came with the event; whether that counts is told by the container itself.
async fn unknown(containers: Arc<Containers>, id: String) {
    match containers.engine.inspect(&id).await {
        Ok(found) if containers.book.learn(&found) => {
            if found.state.running {
                mend(&containers, &id);
            }
        }
        Ok(found) => {
            let name = found.name.trim_start_matches('/');
            debug!(
                container = short(&id),
                name, "has a label of ours, and was not made by us: it is left alone"
            );
        }
        Err(error) => {
            debug!(container = short(&id), %error, "cannot look at a container that says it is ours")
        }
    }
}

/// A container that runs has come to one of the engine's networks, or left it: its address there is judged as its own.
fn moved(containers: &Arc<Containers>, id: &str) {
    let runs = containers.book.entry(id).is_some_and(|entry| entry.phase == Phase::Wired);
    if !runs || !containers.settings.by_tenant {
        return;
    }
    let (containers, id) = (Arc::clone(containers), id.to_owned());
    tokio::spawn(async move {
        let Ok(found) = containers.engine.inspect(&id).await else { return };
        debug!(container = short(&id), "is on other networks of the engine's now");
        publish::update(&containers, &id, |entry| entry.take(&found));
    });
}

fn fares(containers: &Containers, id: &str, unhealthy: bool) {
    info!(container = short(id), unhealthy, "its HEALTHCHECK says something new");
    publish::update(containers, id, |entry| entry.unhealthy = unhealthy);
}

/// The event may be old news: a restart may have come since. What the engine says now decides.
async fn died(containers: Arc<Containers>, id: String) {
    match reconcile::container(&containers, &id).await {
        Ok(reconcile::Outcome::NotRunning) => info!(container = short(&id), "ended"),
        Ok(_) => {}
        Err(error) => debug!(container = short(&id), %error, "cannot look at a container that ended"),
    }
}

fn renamed(containers: &Arc<Containers>, id: &str, name: &str) {
    info!(container = short(id), name, "renamed");
    publish::update(containers, id, |entry| name.trim_start_matches('/').clone_into(&mut entry.name));
    tokio::spawn(reconcile::rewrite_hosts(Arc::clone(containers), id.to_owned()).in_current_span());
}
