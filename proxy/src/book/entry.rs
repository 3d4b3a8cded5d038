//! One container, as far as it is known.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::time::Instant;

use crate::docker::life::moment;
use crate::docker::model;
use crate::docker::wording::Failure;
use crate::note::Note;

/// How far a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// Created, or ended.
    Stopped,
    /// Runs, its wire is not known to be there.
    Starting,
    /// Runs, with wire and names.
    Wired,
}

/// One container of ours.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// The container's name, without a slash.
    pub(crate) name: String,
    /// What is written on it.
    pub(crate) note: Note,
    /// How far it is.
    pub(crate) phase: Phase,
    /// Its HEALTHCHECK does not say that it is healthy.
    pub(crate) unhealthy: bool,
    /// It is paused: it answers nobody.
    pub(crate) paused: bool,
    /// When it was started last, in milliseconds since 1970; 0 = not looked at.
    pub(crate) since: u64,
    /// The addresses that the engine has given it on its own networks.
    pub(crate) aliases: Vec<IpAddr>,
    /// Of its virtual addresses those whose ports it listens on.
    pub(crate) serving: Vec<String>,
    /// It is about to be stopped: no new connections by virtual addresses; if it still runs then, it is as before.
    pub(crate) draining: Option<Instant>,
    /// The process that was wired last: another one is another life of the container.
    pub(crate) pid: Option<u32>,
    /// The start of it failed for want of a program.
    pub(super) never_ran: Option<Failure>,
    /// Clients that wait for a start of it.
    pub(super) expected: u32,
    /// Who holds it works on the container.
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
}

impl Entry {
    /// One of which nothing is known but what is written on it.
    pub(super) fn new(name: String, note: Note) -> Self {
        Self {
            name,
            note,
            phase: Phase::Stopped,
            unhealthy: false,
            paused: false,
            since: 0,
            aliases: Vec::new(),
            serving: Vec::new(),
            draining: None,
            pid: None,
            never_ran: None,
            expected: 0,
            turn: Arc::default(),
        }
    }

    /// Takes in what the engine says of its life.
    pub(super) fn take(&mut self, container: &model::Container) {
        self.unhealthy = container.state.health.as_ref().is_some_and(model::Health::is_bad);
        self.paused = container.state.paused;
        self.aliases = container.network_settings.addresses();
        let since = moment(&container.state.started_at) / 1_000_000;
        // Another life of it serves nothing yet, and nobody is about to stop it.
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
