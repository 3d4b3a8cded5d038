//! Those that have joined the network of one of ours: the tasks of a Nomad group, whose wire is that of its pause container.
//! Their names and labels count for it while they run, and whose it is they say from the moment when they are made.
//!
//! Nothing is known here that cannot be read again: each look asks the engine. Must never answer a name before its rules.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use selvedge_engine::model::{Listed, short};
use tracing::{Instrument, debug, info, warn};

use crate::entry::{Entry, Phase};
use crate::find;
use crate::joined::Guest;
use crate::publish;
use crate::readiness;
use crate::shared::Containers;
use crate::span;

/// Takes in all that the engine lists, in place of what was known.
pub(crate) fn listed(containers: &Containers, listed: &[Listed]) {
    let mut hosts: HashMap<String, BTreeMap<String, Guest>> = HashMap::new();
    for container in listed {
        if let Some(guest) = Guest::listed(container) {
            hosts.entry(guest.joined.joins.clone()).or_default().insert(container.id.clone(), guest);
        }
    }
    for (id, _) in containers.book.all() {
        containers.book.guests(&id, |known| *known = hosts.remove(&id).unwrap_or_default());
    }
}

/// An event of one of them.
pub(crate) fn happened(containers: &Arc<Containers>, host: &str, id: &str, action: &str) {
    let matters = matches!(action, "create" | "start" | "die" | "destroy" | "pause" | "unpause" | "rename");
    if matters || action.starts_with("health_status:") {
        let (containers, host, id) = (Arc::clone(containers), host.to_owned(), id.to_owned());
        tokio::spawn(async move { look(&containers, &host, &id).await }.in_current_span());
    }
}

/// A start of this container has been answered: if it has joined one of ours, its names are answered when this returns.
pub async fn started(containers: &Arc<Containers>, id: &str) {
    if let Some(host) = containers.book.joined_by(id) {
        look(containers, &host, id).await;
    }
}

/// Asks the engine for one of them, and takes in what it says.
pub async fn look(containers: &Arc<Containers>, host: &str, id: &str) {
    let looked = async {
        let Some(host) = find::ours(containers, host).await else { return };
        let Some(turn) = containers.book.turn(&host) else { return };
        let _turn = turn.lock().await;
        let found = match containers.engine.inspect(id).await {
            Ok(found) => Guest::found(&found),
            Err(error) if error.is_not_found() => None,
            Err(error) => return debug!(%error, "cannot look at a container that has joined another"),
        };
        take_in(containers, &host, id, found).await;
    };
    looked.instrument(span::container(id)).await;
}

async fn take_in(containers: &Arc<Containers>, host: &str, id: &str, found: Option<Guest>) {
    let before = containers.book.guests(host, |known| match found.clone() {
        Some(guest) => known.insert(id.to_owned(), guest),
        None => known.remove(id),
    });
    if before.flatten() == found {
        return;
    }
    let Some(entry) = containers.book.entry(host) else { return };
    if let Some(guest) = &found {
        tell(&entry, (host, id), guest);
    }
    if entry.phase == Phase::Wired {
        make_known(containers, host, &entry, found).await;
    }
}

fn tell(entry: &Entry, (host, id): (&str, &str), guest: &Guest) {
    let (wire, tenant) = (short(host), guest.joined.tenant.as_str());
    if let Some(other) = entry.tenant().filter(|other| *other != tenant) {
        warn!(
            container = short(id),
            wire, tenant, other, "its tenant does not count: its group is another one's"
        );
    }
    let (names, address) = (&guest.joined.names, entry.note.address);
    match guest.runs {
        true => info!(container = short(id), wire, name = guest.name, ?names, %address, "joined the wire"),
        false => debug!(container = short(id), wire, "does not run"),
    }
}

async fn make_known(containers: &Arc<Containers>, host: &str, entry: &Entry, guest: Option<Guest>) {
    let ends = !guest.as_ref().is_some_and(|guest| guest.runs);
    if ends && entry.draining.is_some() {
        containers.book.set_draining(host, None);
    }
    let pid = pid_of(containers, host, entry).await;
    containers.book.set_serving(host, &readiness::served(entry, pid));
    let record = publish::record(&containers.settings, host, entry);
    // What ends takes its names with it, whatever becomes of the rules.
    if let Err(error) = containers.host.admit(&record, &entry.aliases).await
        && !ends
    {
        return warn!(container = short(host), %error, "the names of its tasks are not answered: its rules are refused");
    }
    if let Some(entry) = containers.book.entry(host).filter(|entry| entry.phase == Phase::Wired) {
        publish::publish(containers, host, &entry);
    }
    readiness::follow(containers, host, pid);
}

/// The process in whose network is looked who listens; a worker that found the wire finished has not asked for it yet.
async fn pid_of(containers: &Containers, host: &str, entry: &Entry) -> u32 {
    match entry.pid {
        _ if entry.vips().is_empty() => 0,
        Some(pid) => pid,
        None => containers.engine.inspect(host).await.map_or(0, |found| found.state.pid),
    }
}
