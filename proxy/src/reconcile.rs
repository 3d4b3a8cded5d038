//! The one path by which a container gets its wire, its names and its go, whoever started it: a client
//! through us, the engine by a restart policy, another client behind our back, or before we were there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use selvedge_netsetup::WireSpec;
use selvedge_registry::allow;
use selvedge_registry::name::Name;
use selvedge_registry::record::{DEFAULT_TENANT, NamedPort, Record, Traits};
use selvedge_registry::vip::{self, Vip};
use tracing::{debug, info, warn};

use crate::book::{Entry, Phase};
use crate::docker::engine::EngineError;
use crate::docker::model::{self, short};
use crate::docker::wording::Lookup;
use crate::hosts;
use crate::naming;
use crate::program::{self, Program};
use crate::serving;
use crate::worker::Worker;

/// What became of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Its program runs, with wire and names.
    Wired,
    /// It has ended already, or is none of ours.
    NotRunning,
    /// `wait` found no program to run, and still holds.
    NeverRan(Lookup),
}

/// Why a container could not be connected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    /// The engine could not be asked.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The wire could not be made.
    #[error(transparent)]
    Network(#[from] selvedge_netsetup::Error),
    /// Another host has the address, or the registry does not say.
    #[error(transparent)]
    Address(#[from] selvedge_cluster::claim::ClaimError),
    /// The /etc/hosts could not be written.
    #[error("cannot write the container's /etc/hosts: {0}")]
    Hosts(std::io::Error),
}

/// Gives a running container what it lacks. Does nothing that is right already; safe to call at any time.
///
/// # Errors
/// Any [`ReconcileError`]; the container then still waits, its program has not run.
pub(crate) async fn container(worker: &Arc<Worker>, id: &str) -> Result<Outcome, ReconcileError> {
    let Some(turn) = worker.book.turn(id) else { return Ok(Outcome::NotRunning) };
    let _turn = turn.lock().await;
    let found = match worker.engine.inspect(id).await {
        Ok(found) => found,
        Err(error) if error.is_not_found() => {
            gone(worker, id);
            return Ok(Outcome::NotRunning);
        }
        Err(error) => return Err(error.into()),
    };
    worker.book.rename(id, found.name.trim_start_matches('/'));
    worker.book.set_life(id, &found);
    let Some(entry) = worker.book.entry(id) else { return Ok(Outcome::NotRunning) };
    if !found.state.running || found.state.pid == 0 {
        stopped(worker, id);
        return Ok(Outcome::NotRunning);
    }
    connect(worker, &entry, &found).await
}

async fn connect(
    worker: &Arc<Worker>,
    entry: &Entry,
    found: &model::Container,
) -> Result<Outcome, ReconcileError> {
    let pid = found.state.pid;
    let wire = WireSpec { container: found.id.clone(), address: entry.note.address, pid };
    let anew = entry.phase != Phase::Wired || entry.pid != Some(pid);
    if entry.phase != Phase::Wired {
        worker.book.set_phase(&found.id, Phase::Starting);
    }
    // Our own blocks are ours to give; any other address may be on another host just now.
    if !worker.book.owns(wire.address) {
        worker.cluster.claim_address(wire.address, &found.id).await?;
    }
    let (made, program) = tokio::join!(worker.network.connect(&wire), program::settled(pid));
    match (made, program) {
        (_, Program::Gone) => return Ok(Outcome::NotRunning),
        (made, Program::Missing(lookup)) => {
            debug!(container = short(&found.id), ?lookup, made = made.is_ok(), "no program to run");
            return Ok(Outcome::NeverRan(lookup));
        }
        (Err(selvedge_netsetup::Error::Gone { .. }), _) => return Ok(Outcome::NotRunning),
        (made, _) => made?,
    }
    worker.guard.admit(&record(worker, &found.id, entry), &entry.aliases).await?;
    // Somebody may have begun to stop it meanwhile.
    let Some(entry) = worker.book.entry(&found.id) else { return Ok(Outcome::NotRunning) };
    publish(worker, &found.id, &entry);
    if anew {
        write_hosts(worker, &entry, found)?;
    }
    match worker.network.release(&wire).await {
        Err(selvedge_netsetup::Error::Gone { .. }) => {
            worker.forget_name(&found.id);
            return Ok(Outcome::NotRunning);
        }
        result => result?,
    }
    worker.book.wired(&found.id, pid);
    if anew {
        serving::follow(worker, &found.id, pid);
        let name = found.name.trim_start_matches('/');
        info!(container = short(&found.id), name, names = ?entry.note.names, address = %entry.note.address, "wired");
    }
    Ok(Outcome::Wired)
}

/// The engine has just written a container's /etc/hosts, in which our names are not yet.
fn write_hosts(worker: &Worker, entry: &Entry, found: &model::Container) -> Result<(), ReconcileError> {
    let (hostname, domain) = (&found.config.hostname, &found.config.domainname);
    // A domain that the user gave stays the canonical one: the first name of the line is `hostname -f`.
    let users = (!domain.is_empty()).then(|| format!("{hostname}.{domain}"));
    let ours = names(entry).into_iter().map(|name| format!("{name}.{}", worker.config.domain));
    let fqdns: Vec<String> = users.into_iter().chain(ours).collect();
    let users_own = found.mounts.iter().any(|mount| mount.destination == "/etc/hosts");
    if found.hosts_path.is_empty() || users_own {
        return Ok(());
    }
    let names = hosts::Names { address: entry.note.address, hostname, fqdns: &fqdns };
    hosts::write(worker.engine.socket(), &found.hosts_path, &names).map_err(ReconcileError::Hosts)
}

/// All names of a container, relative to the domain.
pub(crate) fn names(entry: &Entry) -> Vec<Name> {
    let own = Name::mangle(&entry.name).ok().filter(|own| !naming::is_virtual(&own.to_string()));
    let mut names: Vec<Name> = entry.note.names.iter().filter_map(|name| Name::parse(name).ok()).collect();
    names.extend(own.filter(|own| !names.contains(own)));
    names
}

/// Lets the container's names be answered.
pub(crate) fn publish(worker: &Worker, id: &str, entry: &Entry) {
    worker.put_name(record(worker, id, entry), &entry.aliases);
}

/// The same for one of which something has changed, if it runs.
pub(crate) fn republish(worker: &Worker, id: &str) {
    if let Some(entry) = worker.book.entry(id).filter(|entry| entry.phase == Phase::Wired) {
        publish(worker, id, &entry);
    }
}

/// What everybody shall know of the container.
fn record(worker: &Worker, id: &str, entry: &Entry) -> Record {
    let note = &entry.note;
    let traits = Traits {
        tenant: note.tenant.as_deref().filter(|tenant| *tenant != DEFAULT_TENANT).map(Into::into),
        app: note.app.as_deref().map(Into::into),
        // It was checked when it was written.
        allow: allow::parse(&note.allow).unwrap_or_default().into(),
        ports: note.ports.iter().filter_map(|port| NamedPort::parse(port)).collect(),
        // Who is about to go, or stands still, is asked last.
        unhealthy: entry.unhealthy || entry.paused || entry.draining.is_some(),
        vips: vips(entry).collect(),
        exclusive: note.exclusive,
        // Nobody else's matters, and each start would be another record.
        since: if note.exclusive { entry.since } else { 0 },
    };
    let upstreams = note.upstreams.iter().map(|ip| SocketAddr::new(*ip, 53)).collect();
    let mut names = names(entry);
    if let Some(app) = note.app.as_deref().filter(|_| worker.config.dns_style_mesos) {
        names.extend(naming::of_mesos(app));
    }
    Record { upstreams, traits, ..Record::new(id, note.address, names) }
}

/// The virtual addresses by which new connections may come.
fn vips(entry: &Entry) -> impl Iterator<Item = Vip> {
    let serving = if entry.draining.is_some() { &[][..] } else { &entry.serving };
    serving.iter().filter_map(|text| vip::parse(text).ok()).flatten()
}

/// A container has ended: its names go at once, its wire with its namespace.
pub(crate) fn stopped(worker: &Worker, id: &str) {
    worker.forget_name(id);
    release_address(worker, id);
    worker.book.set_phase(id, Phase::Stopped);
}

/// An address outside of our blocks may be another container's on another host from now on.
fn release_address(worker: &Worker, id: &str) {
    if let Some(note) = worker.book.note(id) {
        worker.cluster.release_address(note.address, id);
    }
}

/// A container has been removed: its address is free again.
pub(crate) fn gone(worker: &Worker, id: &str) {
    worker.forget_name(id);
    release_address(worker, id);
    worker.book.forget(id);
}

/// Ends a container that a client started and that cannot be connected, so that no restart policy brings it
/// back; its program has never run.
pub(crate) async fn abandon(worker: &Worker, id: &str) {
    worker.forget_name(id);
    if let Err(error) = worker.engine.stop(id).await
        && !error.is_not_found()
    {
        warn!(container = short(id), %error, "cannot stop a container that could not be connected");
    }
    worker.book.set_phase(id, Phase::Stopped);
}

const ATTEMPTS: u32 = 3;

/// For a container that the engine started by itself: tries, and if it cannot be, ends only the process, so
/// that the restart policy works on.
pub(crate) async fn unasked(worker: Arc<Worker>, id: String) {
    for attempt in 1..=ATTEMPTS {
        match container(&worker, &id).await {
            Ok(Outcome::NeverRan(_)) => return end_process(&worker, &id, Signal::SIGTERM).await,
            Ok(_) => return,
            Err(error) => {
                warn!(container = short(&id), %error, attempt, "cannot connect a container that the engine started");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
    end_process(&worker, &id, Signal::SIGKILL).await;
}

async fn end_process(worker: &Worker, id: &str, signal: Signal) {
    let Ok(found) = worker.engine.inspect(id).await else { return };
    let Ok(pid) = i32::try_from(found.state.pid) else { return };
    // A client may have started it again since the event that brought us here: then the process is its start's,
    // which has an answer to give. Asked after the inspect, since a start is announced before the engine hears of it.
    if worker.book.is_expected(id) {
        return;
    }
    // Only ever the process that waits: a program that runs is not ours to end.
    if pid > 1 && program::is_waiting(found.state.pid) {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}
