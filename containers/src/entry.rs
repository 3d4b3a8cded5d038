//! One container, as far as it is known.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use selvedge_engine::lifetime::moment;
use selvedge_engine::model;
use selvedge_engine::wording::Failure;
use selvedge_registry::pool::Holder;
use tokio::time::Instant;

use crate::joined::Guest;
use crate::label::Note;

/// How far a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Created, or ended.
    Stopped,
    /// Runs, its wire is not known to be there.
    Starting,
    /// Runs, with wire and names.
    Wired,
}

/// One container of ours.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The container's name, without a slash.
    pub name: String,
    /// What is written on it.
    pub note: Note,
    /// How far it is.
    pub phase: Phase,
    /// Its HEALTHCHECK does not say that it is healthy.
    pub unhealthy: bool,
    /// Its Mesos agent does not say that it is healthy.
    pub ailing: bool,
    /// It is paused and answers no calls.
    pub paused: bool,
    /// When it was started last, in milliseconds since 1970; 0 = not looked at.
    pub since: u64,
    /// The same as the engine writes it; nothing = not looked at.
    pub started: Option<String>,
    /// The addresses that the engine has given it on its own networks.
    pub aliases: Vec<IpAddr>,
    /// Of its virtual addresses those whose ports it listens on.
    pub serving: Vec<String>,
    /// It is about to be stopped: no new connections by virtual addresses; if it still runs then, it is as before.
    pub draining: Option<Instant>,
    /// The process that was wired last: another one is another life of the container.
    pub pid: Option<u32>,
    /// Those that have joined its network, by id: the tasks of a Nomad group.
    pub guests: BTreeMap<String, Guest>,
    /// Who has the address that it should have; it gets no wire meanwhile.
    pub refused: Option<Holder>,
    /// The start of it failed for want of a program.
    pub(crate) never_ran: Option<Failure>,
    /// With which code it ended last, and when, as the engine writes it.
    pub ended: Option<(i64, String)>,
    /// Who holds it works on the container.
    pub(crate) turn: Arc<tokio::sync::Mutex<()>>,
}

impl Entry {
    /// One of which nothing is known but what is written on it.
    pub(crate) fn new(name: String, note: Note) -> Self {
        Self {
            name,
            note,
            phase: Phase::Stopped,
            unhealthy: false,
            ailing: false,
            paused: false,
            since: 0,
            started: None,
            aliases: Vec::new(),
            serving: Vec::new(),
            draining: None,
            pid: None,
            guests: BTreeMap::new(),
            refused: None,
            never_ran: None,
            ended: None,
            turn: Arc::default(),
        }
    }

    /// Whether all who look at it find it well: its HEALTHCHECK, its Mesos agent; and it is not paused.
    pub fn is_well(&self) -> bool {
        !(self.unhealthy || self.ailing || self.paused)
    }

    /// Those of its guests whose programs run.
    pub fn running_guests(&self) -> impl Iterator<Item = &Guest> {
        self.guests.values().filter(|guest| guest.runs)
    }

    /// The virtual addresses that it stands behind, its guests' as well.
    pub fn vips(&self) -> Vec<String> {
        let mut vips = self.note.vips.clone();
        for vip in self.running_guests().flat_map(|guest| &guest.joined.vips) {
            if !vips.contains(vip) {
                vips.push(vip.clone());
            }
        }
        vips
    }

    /// Only the newest healthy one of its names is answered.
    pub fn is_exclusive(&self) -> bool {
        self.note.exclusive || self.running_guests().any(|guest| guest.joined.exclusive)
    }

    /// Whose it is: who holds a network for others belongs to the first of them, from before that one runs.
    pub fn tenant(&self) -> Option<&str> {
        let first = self.guests.iter().min_by_key(|(id, guest)| (guest.created, *id));
        first.map(|(_, guest)| guest.joined.tenant.as_str()).or(self.note.tenant.as_deref())
    }

    /// Takes in what the engine says of its life.
    pub(crate) fn take(&mut self, container: &model::Container) {
        self.unhealthy = container.state.health.as_ref().is_some_and(model::Health::is_bad);
        self.paused = container.state.paused;
        self.aliases = container.network_settings.addresses();
        self.started = Some(container.state.started_at.clone());
        let state = &container.state;
        if !state.running && moment(&state.finished_at) > 0 {
            self.ended = Some((state.exit_code, state.finished_at.clone()));
        }
        let since = moment(&container.state.started_at) / 1_000_000;
        // A restarted container serves nothing yet, and no stop of it is under way.
        if self.since != 0 && self.since != since {
            self.serving.clear();
            self.draining = None;
        }
        self.since = since;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn begun(second: u32) -> model::Container {
        let state =
            model::State { started_at: format!("2026-11-28T00:00:{second:02}Z"), ..Default::default() };
        model::Container { state, ..Default::default() }
    }

    #[test]
    fn another_life_serves_nothing_yet_and_is_not_about_to_stop() {
        let note = serde_json::json!({"address": "10.32.0.1", "runtime": "/run/x", "wait": "/dev/x", "original": {}});
        let mut entry = Entry::new("db".to_owned(), serde_json::from_value(note).unwrap());
        let until = Some(Instant::now() + Duration::from_secs(60));
        let is_as_before =
            |entry: &Entry| (entry.draining, entry.serving.as_slice()) == (until, &["db:1".to_owned()]);
        // The first look of a worker finds who stood aside, and then what the engine says.
        (entry.draining, entry.serving) = (until, vec!["db:1".to_owned()]);
        for second in [1, 1] {
            entry.take(&begun(second));
            assert!(is_as_before(&entry), "the same life, however often it is looked at");
        }
        entry.take(&begun(2));
        assert!(entry.draining.is_none() && entry.serving.is_empty());
    }
}
