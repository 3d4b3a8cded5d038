//! The labels that users write: `selvedge.*`, checked at create. And ours, hidden from every answer.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use selvedge_registry::name::Name;

use crate::docker::error::Refusal;
use crate::docker::object::Object;
use crate::note::OWN_PREFIX;

/// What a user asked for by labels.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Wishes {
    /// `selvedge.network`.
    pub(crate) network: Option<Wanted>,
    /// `selvedge.ip`.
    pub(crate) address: Option<Ipv4Addr>,
    /// `selvedge.name`: one or more, by commas or blanks.
    pub(crate) names: Vec<String>,
    /// `selvedge.tenant`.
    pub(crate) tenant: Option<String>,
    /// Compose's service.
    pub(crate) compose_service: Option<String>,
}

/// Whether a container wants a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Also on a user-defined network.
    Default,
    /// Not at all.
    None,
}

const KNOWN: &str = "selvedge.network, .ip, .name, .tenant, .port.NAME";
const LATER: [&str; 3] = ["allow", "vip", "exclusive"];

/// Reads the labels of a create's body.
///
/// # Errors
/// A refusal with 400 that names the label.
pub(crate) fn read(labels: &BTreeMap<String, String>) -> Result<Wishes, Refusal> {
    let mut wishes = Wishes::default();
    for (key, value) in labels {
        if key == "com.docker.compose.service" {
            wishes.compose_service = Some(value.clone());
        }
        if let Some(key) = key.strip_prefix("selvedge.") {
            wishes.note(key, value)?;
        }
    }
    Ok(wishes)
}

impl Wishes {
    fn note(&mut self, key: &str, value: &str) -> Result<(), Refusal> {
        let refuse = |why: &str| Err(Refusal::new(400, format!("label selvedge.{key}={value:?}: {why}")));
        match key {
            "network" if value == "none" => self.network = Some(Wanted::None),
            "network" if value == "default" => self.network = Some(Wanted::Default),
            "network" => return refuse("must be \"default\" or \"none\""),
            "ip" => match value.parse() {
                Ok(address) => self.address = Some(address),
                Err(_) => return refuse("is not an IPv4 address"),
            },
            "name" => self.names = names(value).or_else(|why| refuse(&why).map(|()| Vec::new()))?,
            "tenant" if value.is_empty() => return refuse("is empty"),
            "tenant" => self.tenant = Some(value.to_owned()),
            _ if key.strip_prefix("port.").is_some_and(|name| !name.is_empty()) => port(key, value)?,
            _ if key.starts_with("internal.") => return refuse("is written by Selvedge alone"),
            _ if LATER.contains(&key) => return refuse("is not supported by this version"),
            _ => return refuse(&format!("is not a label of Selvedge ({KNOWN})")),
        }
        Ok(())
    }
}

fn names(value: &str) -> Result<Vec<String>, String> {
    let parts = value.split([',', ' ']).filter(|part| !part.is_empty());
    let names: Result<Vec<_>, _> = parts
        .map(|part| {
            Name::parse(part).map(|name| name.to_string()).map_err(|error| format!("{part:?}: {error}"))
        })
        .collect();
    names.and_then(|names| if names.is_empty() { Err("is empty".to_owned()) } else { Ok(names) })
}

fn port(key: &str, value: &str) -> Result<(), Refusal> {
    let (number, protocol) = value.split_once('/').unwrap_or((value, "tcp"));
    let valid = number.parse::<u16>().is_ok_and(|n| n > 0) && matches!(protocol, "tcp" | "udp");
    if valid {
        return Ok(());
    }
    Err(Refusal::new(400, format!("label selvedge.{key}={value:?}: must be like 8080/tcp or 53/udp")))
}

/// Takes our own labels out of a `Labels` object; whether there were any.
pub(crate) fn hide(labels: &mut Object) -> bool {
    let before = labels.iter().count();
    labels.retain(|key| !key.starts_with(OWN_PREFIX));
    labels.iter().count() != before
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes(pairs: &[(&str, &str)]) -> Result<Wishes, Refusal> {
        read(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn known_labels_are_read() {
        let read = wishes(&[
            ("selvedge.ip", "10.32.7.7"),
            ("selvedge.name", "a, B.c"),
            ("selvedge.network", "default"),
            ("x", "y"),
        ])
        .unwrap();
        assert_eq!(read.address, Some(Ipv4Addr::new(10, 32, 7, 7)));
        assert_eq!(read.names, ["a", "b.c"]);
        assert_eq!(read.network, Some(Wanted::Default));
    }

    #[test]
    fn wrong_ones_are_refused_by_name() {
        for (key, value) in [
            ("selvedge.ip", "10.32.7"),
            ("selvedge.nmae", "x"),
            ("selvedge.name", "a..b"),
            ("selvedge.name", ""),
            ("selvedge.network", "yes"),
            ("selvedge.port.http", "0"),
            ("selvedge.port.http", "80/sctp"),
            ("selvedge.allow", "any"),
            ("selvedge.internal.wire", ""),
        ] {
            let refusal = wishes(&[(key, value)]).unwrap_err();
            assert_eq!(refusal.status, 400);
            assert!(refusal.message.contains(key), "{}", refusal.message);
        }
    }
}
