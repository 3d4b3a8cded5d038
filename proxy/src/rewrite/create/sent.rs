//! A create's body, understood: what is in it that decides or is rewritten. A key that the engine reads must never be left
//! half understood.

use std::collections::BTreeMap;

use selvedge_engine::object::{BodyError, Object};
use selvedge_engine::refusal::Refusal;

use crate::rewrite::labels::{self, Wishes};

const TOP: &[&str] = &[
    "Image",
    "Entrypoint",
    "Cmd",
    "Env",
    "Labels",
    "Hostname",
    "Domainname",
    "ExposedPorts",
    "HostConfig",
    "NetworkingConfig",
];
pub(super) const HOST: &[&str] = &[
    "NetworkMode",
    "Dns",
    "DnsSearch",
    "DnsOptions",
    "Mounts",
    "Binds",
    "Tmpfs",
    "UTSMode",
    "VolumesFrom",
    "SecurityOpt",
];

/// A create's body, understood.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) top: Object,
    pub(super) host: Object,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) wishes: Wishes,
    pub(super) env: Vec<String>,
}

impl Body {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        let mut top = Object::parse(bytes)?;
        top.settle(TOP)?;
        let mut host = top.get::<Object>("HostConfig")?.unwrap_or_default();
        host.settle(HOST)?;
        let raw = top.get::<Object>("Labels")?.unwrap_or_default();
        let mut labels = BTreeMap::new();
        for (key, _) in raw.iter() {
            let value = raw.get::<String>(key)?.unwrap_or_default();
            if labels.insert(key.to_owned(), value).is_some() && key.starts_with("selvedge.") {
                return Err(BodyError::Twice(key.to_owned()).into());
            }
        }
        let env: Vec<String> = top.get("Env")?.unwrap_or_default();
        let wishes = labels::read(&labels, &env)?;
        Ok(Self { top, host, labels, wishes, env })
    }

    /// The value of an environment variable; the last one counts, as for the program.
    pub(super) fn env(&self, key: &str) -> Option<&str> {
        self.env
            .iter()
            .rev()
            .filter_map(|pair| pair.split_once('='))
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value)
    }
}
