//! The few fields that we read of the engine's answers. Every field may be missing, none is an enum: next
//! year's engine may say more, and must not break us.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

/// `GET /containers/{id}/json`, the part that we read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Container {
    /// 64 hex digits.
    pub id: String,
    /// With a leading slash.
    pub name: String,
    /// RFC 3339.
    pub created: String,
    /// Its image's id.
    pub image: String,
    /// Its first program, as the engine started it.
    pub path: String,
    /// Where the engine keeps its /etc/hosts, as the engine sees it.
    pub hosts_path: String,
    /// Whether it runs, and how it ended last.
    pub state: State,
    /// What it was made with.
    pub config: Config,
    /// What is mounted in it.
    #[serde(deserialize_with = "list_or_null")]
    pub mounts: Vec<Mount>,
    /// Its ends on the engine's networks.
    pub network_settings: NetworkSettings,
    /// What it was made with for this host.
    pub host_config: HostConfig,
}

/// `State` of an inspect.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct State {
    /// It has a process.
    pub running: bool,
    /// Its processes are frozen.
    pub paused: bool,
    /// A restart policy is about to start it again.
    pub restarting: bool,
    /// In the engine's pid namespace; 0 when it does not run.
    pub pid: u32,
    /// Only with a HEALTHCHECK.
    pub health: Option<Health>,
    /// RFC 3339; the year 1 for never.
    pub started_at: String,
    /// RFC 3339; the year 1 for never.
    pub finished_at: String,
    /// Of its last end.
    pub exit_code: i64,
}

/// `State.Health` of an inspect.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Health {
    /// `none`, `starting`, `healthy` or `unhealthy`.
    pub status: String,
}

/// `Config` of an inspect, of a container or of an image.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    /// What its programs see as their hostname.
    pub hostname: String,
    /// Mostly empty.
    pub domainname: String,
    /// Null when there are none.
    pub labels: Option<HashMap<String, String>>,
    /// Null and `[]` are different things.
    pub entrypoint: Option<Vec<String>>,
    /// Likewise.
    pub cmd: Option<Vec<String>>,
    /// It has a terminal, so its output is not framed.
    pub tty: bool,
    /// `8080/tcp`, each with an empty object.
    pub exposed_ports: Option<BTreeMap<String, IgnoredAny>>,
}

/// One of `Mounts` of an inspect or of a list.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Mount {
    /// `bind`, `volume`, `tmpfs`, ...
    #[serde(rename = "Type")]
    pub kind: String,
    /// Its path in the container.
    pub destination: String,
}

/// `GET /images/{name}/json`, the part that we read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Image {
    /// With the digest's algorithm in front.
    pub id: String,
    /// Null when it has none.
    pub config: Option<Config>,
}

/// One of `GET /containers/json`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Listed {
    /// 64 hex digits.
    pub id: String,
    /// Each with a leading slash; links of others too, so the one without a second slash is its own.
    pub names: Vec<String>,
    /// `running`, `exited`, ...
    pub state: String,
    /// For people: `Up 5 minutes (healthy)`.
    pub status: String,
    /// Null when there are none.
    pub labels: Option<HashMap<String, String>>,
    /// Seconds of the Unix epoch.
    pub created: i64,
    /// Some engines list none.
    #[serde(deserialize_with = "list_or_null")]
    pub mounts: Vec<Mount>,
    /// Its ends on the engine's networks.
    pub network_settings: NetworkSettings,
    /// What it was made with for this host.
    pub host_config: HostConfig,
}

/// `HostConfig` of an inspect or of a list.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HostConfig {
    /// `default`, `host`, `container:ID`, a network's name, ...
    pub network_mode: String,
}

/// Go writes null for a list that was never made.
fn list_or_null<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    Option::<Vec<T>>::deserialize(from).map(Option::unwrap_or_default)
}

/// `NetworkSettings` of an inspect and of a list.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkSettings {
    /// By the network's name; old engines write null.
    pub networks: Option<HashMap<String, Option<Endpoint>>>,
}

/// A container's end on one of the engine's networks.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    /// Empty when it has none.
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    /// Empty when it has none.
    #[serde(rename = "GlobalIPv6Address")]
    pub global_ipv6_address: String,
}

impl NetworkSettings {
    /// The addresses that the engine gave.
    pub fn addresses(&self) -> Vec<IpAddr> {
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
pub struct Event {
    /// `container`, `network`, ...
    #[serde(rename = "Type")]
    pub kind: String,
    /// `start`, `die`, `health_status: healthy`, ...
    pub action: String,
    /// Who it is about.
    pub actor: Actor,
}

/// Who an event is about.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Actor {
    /// Of a container: 64 hex digits.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its name and labels, and what else the action has to say.
    pub attributes: HashMap<String, String>,
}

impl Health {
    /// Whether a container with this HEALTHCHECK is not (yet) healthy.
    pub fn is_bad(&self) -> bool {
        matches!(self.status.as_str(), "starting" | "unhealthy")
    }
}

impl Listed {
    /// Whether it has a HEALTHCHECK that does not say that it is healthy.
    pub fn is_unhealthy(&self) -> bool {
        self.status.ends_with("(unhealthy)") || self.status.ends_with("(health: starting)")
    }

    /// Its own name, without the slash.
    pub fn name(&self) -> &str {
        self.names
            .iter()
            .filter_map(|name| name.strip_prefix('/'))
            .find(|name| !name.contains('/'))
            .unwrap_or_default()
    }
}

/// The first twelve digits, as people know them.
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
