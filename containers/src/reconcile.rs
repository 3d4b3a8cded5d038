//! The one path by which a container gets its wire, its names and its go, however it was started: by a client
//! through us, the engine by a restart policy, another client behind our back, or before we were there.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use selvedge_engine::client::EngineError;
use selvedge_engine::model::{self, short};
use selvedge_engine::wording::Lookup;
use selvedge_netsetup::WireSpec;
use selvedge_registry::pool::Holder;
use tracing::{Instrument, debug, info, warn};

use crate::entry::{Entry, Phase};
use crate::etc_hosts;
use crate::names::OwnLine;
use crate::place::Place;
use crate::program::{self, Program};
use crate::publish;
use crate::readiness;
use crate::shared::Containers;
use crate::span;

/// What became of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Its program runs, with wire and names.
    Wired,
    /// It has ended already, or is none of ours.
    NotRunning,
    /// `wait` found no program to run, and still holds.
    NeverRan(Lookup),
}

/// Why a container could not be connected.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The engine could not be asked.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The wire could not be made.
    #[error(transparent)]
    Network(#[from] selvedge_netsetup::Error),
    /// Another container has the address.
    #[error("address {address} is taken by {holder}")]
    Taken {
        /// The address.
        address: Ipv4Addr,
        /// Who has it.
        holder: Holder,
    },
    /// Another host has the address, or the registry does not say.
    #[error(transparent)]
    Address(#[from] selvedge_datapath::blocks::ClaimError),
    /// The /etc/hosts could not be written.
    #[error("cannot write the container's /etc/hosts: {0}")]
    Hosts(std::io::Error),
    /// A silent `wait` could not be told that its wire is up.
    #[error("cannot reach the container's memory, which its seccomp profile makes necessary: {0}")]
    Gate(std::io::Error),
}

/// Gives a running container what it lacks. Does nothing that is right already; safe to call at any time.
///
/// # Errors
/// Any [`ReconcileError`]; the container then still waits, its program has not run.
pub async fn container(containers: &Arc<Containers>, id: &str) -> Result<Outcome, ReconcileError> {
    Box::pin(in_turn(containers, id)).instrument(span::container(id)).await
}

async fn in_turn(containers: &Arc<Containers>, id: &str) -> Result<Outcome, ReconcileError> {
    let Some(turn) = containers.book.turn(id) else { return Ok(Outcome::NotRunning) };
    let _turn = turn.lock().await;
    let found = match containers.engine.inspect(id).await {
        Ok(found) => found,
        Err(error) if error.is_not_found() => {
            gone(containers, id);
            return Ok(Outcome::NotRunning);
        }
        Err(error) => return Err(error.into()),
    };
    containers.book.rename(id, found.name.trim_start_matches('/'));
    containers.book.set_life(id, &found);
    let Some(entry) = containers.book.entry(id) else { return Ok(Outcome::NotRunning) };
    if !found.state.running || found.state.pid == 0 {
        stopped(containers, id);
        return Ok(Outcome::NotRunning);
    }
    connect(containers, &entry, &found).await
}

async fn connect(
    containers: &Arc<Containers>,
    entry: &Entry,
    found: &model::Container,
) -> Result<Outcome, ReconcileError> {
    let pid = found.state.pid;
    let wire = WireSpec { container: found.id.clone(), address: entry.note.address, pid };
    let starts_over = entry.phase != Phase::Wired || entry.pid != Some(pid);
    if entry.phase != Phase::Wired {
        containers.book.set_phase(&found.id, Phase::Starting);
    }
    hold(containers, &found.id, wire.address).await?;
    // Our own blocks are ours to give; any other address may be on another host just now.
    if !containers.addresses.owns(wire.address) {
        containers.host.claim_address(wire.address, &found.id).await?;
    }
    let (made, program) = tokio::join!(make_wire(containers, &wire), program::settled(pid));
    match (made, program) {
        (_, Program::Gone) => return Ok(Outcome::NotRunning),
        (made, Program::Missing(lookup)) => {
            debug!(container = short(&found.id), ?lookup, made = made.is_ok(), "no program to run");
            return Ok(Outcome::NeverRan(lookup));
        }
        (Err(ReconcileError::Network(selvedge_netsetup::Error::Gone { .. })), _) => {
            return Ok(Outcome::NotRunning);
        }
        (made, _) => made?,
    }
    containers.host.admit(&publish::record(&containers.settings, &found.id, entry), &entry.aliases).await?;
    // A stop of it may have begun meanwhile.
    let Some(entry) = containers.book.entry(&found.id) else { return Ok(Outcome::NotRunning) };
    publish::publish(containers, &found.id, &entry);
    debug!("its names are answered");
    if starts_over {
        write_hosts(containers, &entry, found)?;
    }
    match containers.host.release(&wire).await {
        Err(selvedge_netsetup::Error::Gone { .. }) => {
            containers.host.withdraw(&found.id);
            return Ok(Outcome::NotRunning);
        }
        result => result?,
    }
    open_gate(&entry, pid)?;
    debug!("its program may run");
    containers.book.wired(&found.id, pid);
    if starts_over {
        readiness::follow(containers, &found.id, pid);
        let name = found.name.trim_start_matches('/');
        info!(container = short(&found.id), name, names = ?entry.note.names, address = %entry.note.address, "wired");
    }
    Ok(Outcome::Wired)
}

/// The route lets most programs run. A `wait` that cannot see it is told as well.
fn open_gate(entry: &Entry, pid: u32) -> Result<(), ReconcileError> {
    match program::open_gate(pid) {
        Err(error) if Place::at(&entry.note.wait).is_some_and(|place| place.silent) => {
            Err(ReconcileError::Gate(error))
        }
        Err(error) => {
            debug!(pid, %error, "cannot reach the memory of its first process; the route must do");
            Ok(())
        }
        Ok(_) => Ok(()),
    }
}

/// Gives a container that is to run its address, unless another one has it that runs.
///
/// # Errors
/// [`ReconcileError::Taken`].
pub async fn hold(containers: &Containers, id: &str, address: Ipv4Addr) -> Result<(), ReconcileError> {
    let Err(holder) = containers.book.hold(id) else { return Ok(()) };
    if let Holder::Container(other) = &holder {
        // It may have ended a moment ago.
        look_again(containers, other).await?;
        if containers.book.hold(id).is_ok() {
            return Ok(());
        }
    }
    Err(ReconcileError::Taken { address, holder })
}

/// Makes a container's wire. Where the kernel routes its address to another one, whose container does not run any more, that
/// one goes first.
async fn make_wire(containers: &Containers, wire: &WireSpec) -> Result<(), ReconcileError> {
    let interface = match containers.host.connect(wire).await {
        Err(selvedge_netsetup::Error::Routed { interface, .. }) => interface,
        outcome => return Ok(outcome?),
    };
    let wires = containers.host.wires().await?;
    if let Some(stale) = wires.into_iter().find(|other| other.name == interface) {
        match containers.engine.inspect(&stale.container_prefix).await {
            Ok(other) if other.state.running => {
                return Err(ReconcileError::Taken {
                    address: wire.address,
                    holder: Holder::Container(other.id),
                });
            }
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => containers.host.disconnect(&[stale]).await?,
        }
        return Ok(containers.host.connect(wire).await?);
    }
    Err(ReconcileError::Taken { address: wire.address, holder: Holder::Interface(interface) })
}

/// Takes in that a container has ended or is gone, if so.
async fn look_again(containers: &Containers, id: &str) -> Result<(), EngineError> {
    match containers.engine.inspect(id).await {
        Ok(found) if found.state.running => {}
        Ok(_) => stopped(containers, id),
        Err(error) if error.is_not_found() => gone(containers, id),
        Err(error) => return Err(error),
    }
    Ok(())
}

/// A container that runs is called something else: so it is in its own /etc/hosts.
pub async fn rewrite_hosts(containers: Arc<Containers>, id: String) {
    let Ok(found) = containers.engine.inspect(&id).await else { return };
    let Some(entry) = containers.book.entry(&id).filter(|entry| entry.phase == Phase::Wired) else { return };
    if let Err(error) = write_hosts(&containers, &entry, &found) {
        warn!(container = short(&id), %error, "its /etc/hosts still has its former name");
    }
}

/// The engine has just written a container's /etc/hosts, in which our names are not yet.
fn write_hosts(
    containers: &Containers,
    entry: &Entry,
    found: &model::Container,
) -> Result<(), ReconcileError> {
    let (hostname, domain) = (&found.config.hostname, &found.config.domainname);
    let ours = publish::names(entry).into_iter().map(|name| format!("{name}.{}", containers.settings.domain));
    let users_own = found.mounts.iter().any(|mount| mount.destination == "/etc/hosts");
    if found.hosts_path.is_empty() || users_own {
        return Ok(());
    }
    let own = OwnLine {
        address: entry.note.address,
        engines: if entry.note.beside { Vec::new() } else { found.network_settings.addresses() },
        hostname,
        domain,
        named: (entry.note.named || !domain.is_empty()) && !entry.note.beside,
        fqdns: &ours.collect::<Vec<_>>(),
    };
    etc_hosts::write(containers.engine.socket(), &found.hosts_path, &own).map_err(ReconcileError::Hosts)
}

/// A container has ended: its names go at once, its wire with its namespace.
pub fn stopped(containers: &Containers, id: &str) {
    containers.host.withdraw(id);
    release_address(containers, id);
    containers.book.ended(id);
    containers.book.set_phase(id, Phase::Stopped);
}

/// An address outside of our blocks may be another container's on another host from now on.
fn release_address(containers: &Containers, id: &str) {
    if let Some(note) = containers.book.note(id) {
        containers.host.release_address(note.address, id);
    }
}

/// A container has been removed: its address is free again.
pub fn gone(containers: &Containers, id: &str) {
    containers.host.withdraw(id);
    release_address(containers, id);
    containers.book.forget(id);
}

/// Ends a container that a client started and that cannot be connected, so that no restart policy brings it
/// back; its program has never run.
pub async fn abandon(containers: &Containers, id: &str) {
    containers.host.withdraw(id);
    if let Err(error) = containers.engine.stop(id).await
        && !error.is_not_found()
    {
        warn!(container = short(id), %error, "cannot stop a container that could not be connected");
    }
    containers.book.ended(id);
    containers.book.set_phase(id, Phase::Stopped);
}

const ATTEMPTS: u32 = 3;

/// For a container that the engine started by itself: tries, and if it cannot be, ends only the process, so
/// that the restart policy works on.
pub async fn unasked(containers: Arc<Containers>, id: String) {
    for attempt in 1..=ATTEMPTS {
        match container(&containers, &id).await {
            Ok(Outcome::NeverRan(_)) => return end_process(&containers, &id, Signal::SIGTERM).await,
            Ok(_) => return,
            Err(error) => {
                warn!(container = short(&id), %error, attempt, "cannot connect a container that the engine started");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
    end_process(&containers, &id, Signal::SIGKILL).await;
}

async fn end_process(containers: &Containers, id: &str, signal: Signal) {
    let Ok(found) = containers.engine.inspect(id).await else { return };
    let Ok(pid) = i32::try_from(found.state.pid) else { return };
    // A client may have started it again since the event that brought us here: then the process is its start's,
    // which has an answer to give. Asked after the inspect, since a start is announced before the engine hears of it.
    if containers.book.is_expected(id) {
        return;
    }
    // Only ever the process that waits: a program that runs is not ours to end.
    if pid > 1 && program::is_waiting(found.state.pid) {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}
