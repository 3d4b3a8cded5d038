//! What is made known of a container, and when: from its label and its state to a record. Must never be told of one that
//! does not run.

use std::net::SocketAddr;

use selvedge_registry::allow;
use selvedge_registry::name::Name;
use selvedge_registry::record::{DEFAULT_TENANT, NamedPort, Record, Traits};
use selvedge_registry::vip::{self, Vip};
use tracing::warn;

use crate::entry::{Entry, Phase};
use crate::names;
use crate::shared::{Containers, Settings};

/// All names of a container, relative to the domain.
pub fn names(entry: &Entry) -> Vec<Name> {
    let own = Name::mangle(&entry.name).ok().filter(|own| !names::is_virtual(&own.to_string()));
    let mut names: Vec<Name> = entry.note.names.iter().filter_map(|name| Name::parse(name).ok()).collect();
    names.extend(own.filter(|own| !names.contains(own)));
    names
}

/// Lets the container's names be answered.
pub fn publish(containers: &Containers, id: &str, entry: &Entry) {
    let record = record(&containers.settings, id, entry);
    for error in containers.host.publish(record, &entry.aliases) {
        warn!(%error, "a name is left out");
    }
}

/// Changes what is known of a container; gives back what the change does. If it runs and others would see a difference, they
/// do.
pub fn update<T>(containers: &Containers, id: &str, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
    let (before, after, done) = containers.book.change(id, change)?;
    let is_seen = |entry: &Entry| (record(&containers.settings, id, entry), entry.aliases.clone());
    if after.phase == Phase::Wired && is_seen(&before) != is_seen(&after) {
        publish(containers, id, &after);
    }
    Some(done)
}

/// What other containers and hosts need to know of the container.
pub fn record(settings: &Settings, id: &str, entry: &Entry) -> Record {
    let note = &entry.note;
    let traits = Traits {
        tenant: note.tenant.as_deref().filter(|tenant| *tenant != DEFAULT_TENANT).map(Into::into),
        app: note.app.as_deref().map(Into::into),
        // It was checked when it was written.
        allow: allow::parse(&note.allow).unwrap_or_default().into(),
        ports: note.ports.iter().filter_map(|port| NamedPort::parse(port)).collect(),
        // Who is about to go, or stands still, is asked last.
        unhealthy: !entry.is_well() || entry.draining.is_some(),
        vips: vips(entry).collect(),
        exclusive: note.exclusive,
        // No other container's start time matters, and each start would be another record.
        since: if note.exclusive { entry.since } else { 0 },
    };
    let upstreams = note.upstreams.iter().map(|ip| SocketAddr::new(*ip, 53)).collect();
    let mut names = names(entry);
    if let Some(app) = note.app.as_deref().filter(|_| settings.mesos) {
        names.extend(names::of_mesos(app));
    }
    Record { upstreams, traits, ..Record::new(id, note.address, names) }
}

/// The virtual addresses by which new connections may come.
fn vips(entry: &Entry) -> impl Iterator<Item = Vip> {
    let serving = if entry.draining.is_some() { &[][..] } else { &entry.serving };
    serving.iter().filter_map(|text| vip::parse(text).ok()).flatten()
}
