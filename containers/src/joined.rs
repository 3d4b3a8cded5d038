//! A container that has joined another one's network and counts for its wire: a task of a Nomad group. What is written on it,
//! and what it adds to the record of the one whose wire it uses. Pure.

use std::collections::HashMap;

use selvedge_engine::model;
use serde::{Deserialize, Serialize};

use crate::label::LABEL;

/// What is written on it, under the same label as a wire: all that a later worker needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Joined {
    /// The id of the container whose network it has.
    pub joins: String,
    /// Names relative to the domain, besides its container's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Who it belongs to.
    pub tenant: String,
    /// Who else may call it, as the label `selvedge.allow` is written.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub allow: String,
    /// Its named ports, as `http:8080/tcp`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
    /// The virtual addresses that it stands behind, one each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vips: Vec<String>,
    /// Only the newest healthy one of its name is answered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exclusive: bool,
}

impl Joined {
    /// What is written on a container with these labels.
    pub fn read(labels: &HashMap<String, String>) -> Option<Self> {
        Self::parse(labels.get(LABEL)?)
    }

    /// The label's text; that of a wire is another one.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// As the label's text.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whether a container in this network mode is where its label says. A label alone proves nothing: a commit carries it
    /// along.
    fn is_there(&self, mode: &str) -> bool {
        mode.strip_prefix("container:") == Some(self.joins.as_str())
    }
}

/// One of them, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// Its container's name, without a slash.
    pub name: String,
    /// What is written on it.
    pub joined: Joined,
    /// Its program runs; before that it has no names.
    pub runs: bool,
    /// Its HEALTHCHECK does not say that it is healthy, or it is paused.
    pub unhealthy: bool,
    /// When it was made, in seconds since 1970: the oldest one says whose they all are.
    pub created: u64,
}

impl Guest {
    /// One as the engine tells of it.
    pub fn found(container: &model::Container) -> Option<Self> {
        let joined = Joined::read(container.config.labels.as_ref()?)?;
        let state = &container.state;
        let unhealthy = state.paused || state.health.as_ref().is_some_and(model::Health::is_bad);
        joined.is_there(&container.host_config.network_mode).then(|| Self {
            name: container.name.trim_start_matches('/').to_owned(),
            joined,
            runs: state.running,
            unhealthy,
            created: selvedge_engine::lifetime::moment(&container.created) / 1_000_000_000,
        })
    }

    /// One as the engine lists it.
    pub fn listed(container: &model::Listed) -> Option<Self> {
        let joined = Joined::read(container.labels.as_ref()?)?;
        joined.is_there(&container.host_config.network_mode).then(|| Self {
            name: container.name().to_owned(),
            joined,
            runs: matches!(container.state.as_str(), "running" | "paused"),
            unhealthy: container.state == "paused" || container.is_unhealthy(),
            created: u64::try_from(container.created).unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text() -> String {
        Joined { joins: "abc".to_owned(), tenant: "shop".to_owned(), ..Joined::default() }.to_text()
    }

    #[test]
    fn a_label_counts_only_where_it_says() {
        let of = |mode: &str| {
            let container = json!({
                "Name": "/web", "Config": {"Labels": {LABEL: text()}}, "HostConfig": {"NetworkMode": mode},
                "State": {"Running": true}, "Created": "2026-12-01T00:00:00Z",
            });
            Guest::found(&serde_json::from_value(container).unwrap())
        };
        let guest = of("container:abc").unwrap();
        assert_eq!((guest.name.as_str(), guest.runs, guest.created), ("web", true, 1_796_083_200));
        assert_eq!(of("container:abd"), None);
        assert_eq!(of("bridge"), None);
    }

    #[test]
    fn a_list_tells_the_same() {
        let of = |state: &str, status: &str| {
            let listed = json!({
                "Names": ["/web"], "Labels": {LABEL: text()}, "HostConfig": {"NetworkMode": "container:abc"},
                "State": state, "Status": status, "Created": 1_796_083_200,
            });
            let guest = Guest::listed(&serde_json::from_value(listed).unwrap()).unwrap();
            (guest.runs, guest.unhealthy)
        };
        assert_eq!(of("running", "Up 2 seconds"), (true, false));
        assert_eq!(of("running", "Up 2 seconds (unhealthy)"), (true, true));
        assert_eq!(of("paused", "Up 2 seconds (Paused)"), (true, true));
        assert_eq!(of("created", "Created"), (false, false));
    }

    #[test]
    fn a_wire_s_label_is_another_one() {
        assert_eq!(
            Joined::parse(r#"{"address":"10.32.0.2","runtime":"/x","wait":"/y","original":{}}"#),
            None
        );
        assert_eq!(crate::label::Note::parse(&text()), None);
        assert_eq!(Joined::parse(""), None);
    }
}
