//! The few fields that we read of the engine's answers. Every field may be missing, none is an enum: next
//! year's engine may say more, and must not break us.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use serde::Deserialize;
use serde::de::IgnoredAny;

/// `GET /containers/{id}/json`, the part that we read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Container {
    /// 64 hex digits.
    pub(crate) id: String,
    /// With a leading slash.
    pub(crate) name: String,
    /// RFC 3339.
    pub(crate) created: String,
    /// Its first program, as the engine started it.
    pub(crate) path: String,
    /// Where the engine keeps its /etc/hosts, as the engine sees it.
    pub(crate) hosts_path: String,
    pub(crate) state: State,
    pub(crate) config: Config,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) network_settings: NetworkSettings,
}

/// `State` of an inspect.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct State {
    pub(crate) running: bool,
    pub(crate) paused: bool,
    pub(crate) restarting: bool,
    /// In the engine's pid namespace; 0 when it does not run.
    pub(crate) pid: u32,
    /// Only with a HEALTHCHECK.
    pub(crate) health: Option<Health>,
    /// RFC 3339; the year 1 for never.
    pub(crate) started_at: String,
    /// RFC 3339; the year 1 for never.
    pub(crate) finished_at: String,
}

/// `State.Health` of an inspect.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Health {
    /// `none`, `starting`, `healthy` or `unhealthy`.
    pub(crate) status: String,
}

/// `Config` of an inspect, of a container or of an image.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Config {
    pub(crate) hostname: String,
    pub(crate) domainname: String,
    pub(crate) labels: Option<HashMap<String, String>>,
    pub(crate) entrypoint: Option<Vec<String>>,
    pub(crate) cmd: Option<Vec<String>>,
    pub(crate) tty: bool,
    pub(crate) exposed_ports: Option<BTreeMap<String, IgnoredAny>>,
}

/// One of `Mounts` of an inspect.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Mount {
    pub(crate) destination: String,
}

/// `GET /images/{name}/json`, the part that we read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Image {
    pub(crate) config: Option<Config>,
}

/// One of `GET /containers/json`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Listed {
    pub(crate) id: String,
    /// Each with a leading slash; links of others too, so the one without a second slash is its own.
    pub(crate) names: Vec<String>,
    /// `running`, `exited`, ...
    pub(crate) state: String,
    /// For people: `Up 5 minutes (healthy)`.
    pub(crate) status: String,
    pub(crate) labels: Option<HashMap<String, String>>,
    pub(crate) network_settings: NetworkSettings,
}

/// `NetworkSettings` of an inspect and of a list.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct NetworkSettings {
    pub(crate) networks: Option<HashMap<String, Option<Endpoint>>>,
}

/// A container's end on one of the engine's networks.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Endpoint {
    /// Empty when it has none.
    #[serde(rename = "IPAddress")]
    pub(crate) ip_address: String,
    /// Empty when it has none.
    #[serde(rename = "GlobalIPv6Address")]
    pub(crate) global_ipv6_address: String,
}

impl NetworkSettings {
    /// The addresses that the engine gave.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let ends = self.networks.iter().flatten().filter_map(|(_, end)| end.as_ref());
        let mut addresses: Vec<IpAddr> = ends
            .flat_map(|end| [&end.ip_address, &end.global_ipv6_address])
            .filter_map(|text| text.parse().ok())
            .collect();
        addresses.sort_unstable();
        addresses
    }
}

/// One line of `GET /events`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Event {
    #[serde(rename = "Type")]
    pub(crate) kind: String,
    pub(crate) action: String,
    pub(crate) actor: Actor,
}

/// Who an event is about.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Actor {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    pub(crate) attributes: HashMap<String, String>,
}

impl Health {
    /// Whether a container with this HEALTHCHECK is not (yet) healthy.
    pub(crate) fn is_bad(&self) -> bool {
        matches!(self.status.as_str(), "starting" | "unhealthy")
    }
}

impl Listed {
    /// Whether it has a HEALTHCHECK that does not say that it is healthy.
    pub(crate) fn is_unhealthy(&self) -> bool {
        self.status.ends_with("(unhealthy)") || self.status.ends_with("(health: starting)")
    }

    /// Its own name, without the slash.
    pub(crate) fn name(&self) -> &str {
        self.names
            .iter()
            .filter_map(|name| name.strip_prefix('/'))
            .find(|name| !name.contains('/'))
            .unwrap_or_default()
    }
}

/// The first twelve digits, as people know them.
pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
