//! The few fields that we read of the engine's answers. Every field may be missing, none is an enum: next
//! year's engine may say more, and must not break us.

use std::collections::HashMap;

use serde::Deserialize;

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
}

/// `State` of an inspect.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct State {
    pub(crate) running: bool,
    pub(crate) restarting: bool,
    /// In the engine's pid namespace; 0 when it does not run.
    pub(crate) pid: u32,
    /// RFC 3339; the year 1 for never.
    pub(crate) started_at: String,
    /// RFC 3339; the year 1 for never.
    pub(crate) finished_at: String,
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
    pub(crate) labels: Option<HashMap<String, String>>,
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

impl Listed {
    /// Its own name, without the slash.
    pub(crate) fn name(&self) -> &str {
        self.names
            .iter()
            .filter_map(|name| name.strip_prefix('/'))
            .find(|name| !name.contains('/'))
            .unwrap_or_default()
    }
}
