//! What is looked after without an event: wires that were cut, wires of containers that are gone, and what containers
//! need of the host itself. Must never take out a wire before the engine has said that its container is gone.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use selvedge_engine::model::short;
use selvedge_netsetup::Wire;
use tracing::{Instrument, debug, warn};

use crate::entry::Phase;
use crate::reconcile;
use crate::shared::Containers;
use crate::span;

/// The time between two looks.
pub(crate) const SWEEP: Duration = Duration::from_millis(1500);

/// Brings a container's wire and names into step, unless a start of it is under way, which does that itself.
pub(crate) fn mend(containers: &Arc<Containers>, id: &str) {
    if !containers.book.is_expected(id) {
        tokio::spawn(
            reconcile::unasked(Arc::clone(containers), id.to_owned()).instrument(span::container(id)),
        );
    }
}

/// Keeps the host's firewalls open, for ever. A question to firewalld may take long, so events do not wait for this.
pub async fn keep_firewalls_open(containers: Arc<Containers>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        containers.firewalls.found(containers.host.mind_firewalls().await);
    }
}

/// What containers need of the host itself: without the gateway's address none of them starts, and names are not answered.
pub(crate) async fn mind_host(containers: &Containers) {
    match containers.host.mind().await {
        Ok(0) => {}
        Ok(repaired) => {
            warn!(repaired, "addresses or settings of this host were taken away from outside; restored")
        }
        Err(error) => warn!(%error, "cannot restore this host's own addresses"),
    }
}

pub(crate) async fn sweep(containers: &Arc<Containers>) -> Result<(), selvedge_netsetup::Error> {
    sweep_with(containers, containers.host.wires().await?).await
}

/// Takes out wires whose containers are gone, and mends containers whose wires are.
pub async fn sweep_with(
    containers: &Arc<Containers>,
    wires: Vec<Wire>,
) -> Result<(), selvedge_netsetup::Error> {
    let all = containers.book.all();
    let by_prefix: HashMap<&str, (&str, Phase)> =
        all.iter().map(|(id, entry)| (short(id), (id.as_str(), entry.phase))).collect();
    let mut wired = HashSet::new();
    let mut stray = Vec::new();
    for wire in wires {
        match by_prefix.get(wire.container_prefix.as_str()) {
            // Its route is gone: the table was flushed from outside. Restore it.
            Some((id, Phase::Wired)) if wire.address.is_none() => {
                wired.insert((*id).to_owned());
                mend(containers, id);
            }
            Some((id, phase)) if *phase != Phase::Stopped || containers.book.is_expected(id) => {
                wired.insert((*id).to_owned());
            }
            Some((id, _)) if still_runs(containers, id).await => mend(containers, id),
            _ => stray.push(wire),
        }
    }
    for (id, entry) in &all {
        if entry.phase == Phase::Wired && !wired.contains(id) {
            debug!(container = short(id), "its wire is gone");
            containers.book.set_phase(id, Phase::Starting);
            mend(containers, id);
        }
    }
    if !stray.is_empty() {
        debug!(wires = stray.len(), "taking out wires of containers that are gone");
        containers.host.disconnect(&stray).await?;
    }
    Ok(())
}

// The book may be behind: before a wire is taken out, the engine has the word.
async fn still_runs(containers: &Containers, id: &str) -> bool {
    containers
        .engine
        .inspect(id)
        .await
        .map_or_else(|error| !error.is_not_found(), |found| found.state.running)
}
