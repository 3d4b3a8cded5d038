//! What is made known of a container, and when: from its label and its state to a record. Must never be told of one that
//! does not run.

use std::net::SocketAddr;

use selvedge_registry::allow::{self, Grant};
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
    for guest in entry.running_guests() {
        let own = Name::mangle(&guest.name).into_iter();
        for name in guest.joined.names.iter().filter_map(|name| Name::parse(name).ok()).chain(own) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
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
        tenant: entry.tenant().filter(|tenant| *tenant != DEFAULT_TENANT).map(Into::into),
        app: note.app.as_deref().map(Into::into),
        allow: allowed(entry).into(),
        ports: ports(entry).into(),
        // Who is about to go, or stands still, is asked last.
        unhealthy: is_asked_last(entry),
        vips: vips(entry).collect(),
        exclusive: entry.is_exclusive(),
        // No other container's start time matters, and each start would be another record.
        since: if entry.is_exclusive() { entry.since } else { 0 },
    };
    let upstreams = note.upstreams.iter().map(|ip| SocketAddr::new(*ip, 53)).collect();
    let mut names = names(entry);
    if let Some(app) = note.app.as_deref().filter(|_| settings.mesos) {
        names.extend(names::of_mesos(app));
    }
    Record { upstreams, traits, ..Record::new(id, note.address, names) }
}

fn is_asked_last(entry: &Entry) -> bool {
    let guest = || entry.running_guests().any(|guest| guest.unhealthy);
    !entry.is_well() || entry.draining.is_some() || guest()
}

/// Callers besides its own tenant: those of its guests as well, since all of them share one address.
fn allowed(entry: &Entry) -> Vec<Grant> {
    let guests = entry.guests.values().map(|guest| &guest.joined.allow);
    // They were checked when they were written.
    std::iter::once(&entry.note.allow)
        .chain(guests)
        .flat_map(|text| allow::parse(text).unwrap_or_default())
        .collect()
}

fn ports(entry: &Entry) -> Vec<NamedPort> {
    let guests = entry.running_guests().flat_map(|guest| &guest.joined.ports);
    entry.note.ports.iter().chain(guests).filter_map(|port| NamedPort::parse(port)).collect()
}

/// The virtual addresses by which new connections may come.
fn vips(entry: &Entry) -> impl Iterator<Item = Vip> {
    let serving = if entry.draining.is_some() { &[][..] } else { &entry.serving };
    serving.iter().filter_map(|text| vip::parse(text).ok()).flatten()
}
