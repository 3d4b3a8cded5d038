//! Opens firewalld as podman and libvirt do: the pool becomes a source of its zone `trusted`, until its next reload.
//!
//! firewalld refuses what no zone accepts, and an accept in another table does not count: so the change must go through
//! its own command. Whether a change is needed is read from its nftables table, which takes only milliseconds. What an
//! administrator has put into a zone must never be changed.

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;
use tracing::info;

use crate::error::Error;
use crate::{nft, program};

const COMMAND: &str = "firewall-cmd";
/// The chains that sort incoming packets into zones: until firewalld 0.9 sources had one of their own.
const CHAINS: [&str; 2] = ["filter_INPUT_ZONES", "filter_INPUT_ZONES_SOURCE"];
/// The prefix of our wires' host ends.
const WIRES: &str = "sv";

#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    rule: Option<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    #[serde(default)]
    expr: Vec<Value>,
}

/// What firewalld sorts into a zone.
#[derive(Debug, PartialEq, Eq)]
enum Sorted {
    Source(IpNet),
    /// `sv*`.
    Interface(String),
}

/// Lets these pools pass firewalld, if it runs; returns the number of pools added.
///
/// # Errors
/// It runs, but refuses.
pub(super) fn open_for(pools: &[IpNet]) -> Result<u64, Error> {
    let strange = strange(pools)?;
    if strange.is_empty() {
        return Ok(0);
    }
    tell(&strange)?;
    for pool in &strange {
        info!(%pool, "firewalld: the pool is a source of the zone trusted");
    }
    Ok(strange.len() as u64)
}

/// For `selvedge check`: the pools that firewalld does not let pass and that cannot be added.
pub(crate) fn lacking(pools: &[IpNet]) -> Option<String> {
    let strange = strange(pools).ok().filter(|strange| !strange.is_empty())?;
    let told =
        program::run(COMMAND, &["--state"]).map_err(|error| error.to_string()).and_then(
            |output| match output.status.success() {
                true => Ok(()),
                false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            },
        );
    let reason = told.err()?;
    let pools: Vec<String> = strange.iter().map(ToString::to_string).collect();
    Some(format!(
        "firewalld refuses what containers send each other, and cannot be told ({COMMAND}: {reason}): add {} as a source \
         to its zone trusted",
        pools.join(" and ")
    ))
}

/// The pools that are in no zone; none where there is no firewalld.
fn strange(pools: &[IpNet]) -> Result<Vec<IpNet>, Error> {
    let (mut is_there, mut sorted) = (false, Vec::new());
    for chain in CHAINS {
        let found: Option<Listing> = nft::list(&["list", "chain", "inet", "firewalld", chain])?;
        // Every firewalld has the first.
        let Some(listing) = found else { break };
        is_there = true;
        sorted.extend(listing.sorted());
    }
    let is_known = |pool: &IpNet| {
        sorted.iter().any(|sorted| match sorted {
            Sorted::Source(network) => network.contains(pool),
            Sorted::Interface(name) => name.strip_suffix('*').is_some_and(|start| WIRES.starts_with(start)),
        })
    };
    Ok(pools.iter().copied().filter(|pool| is_there && !is_known(pool)).collect())
}

impl Listing {
    fn sorted(self) -> impl Iterator<Item = Sorted> {
        let expressions = self.nftables.into_iter().filter_map(|item| item.rule).flat_map(|rule| rule.expr);
        expressions.filter_map(|expression| sorted(&expression["match"]))
    }
}

fn sorted(matched: &Value) -> Option<Sorted> {
    let (left, right) = (&matched["left"], &matched["right"]);
    if left["meta"]["key"] == "iifname" {
        return right.as_str().map(|name| Sorted::Interface(name.to_owned()));
    }
    if left["payload"]["field"] != "saddr" {
        return None;
    }
    let network = match right.as_str() {
        Some(address) => address.parse::<std::net::IpAddr>().ok()?.into(),
        None => {
            let (address, length) = (right["prefix"]["addr"].as_str()?, right["prefix"]["len"].as_u64()?);
            IpNet::new(address.parse().ok()?, u8::try_from(length).ok()?).ok()?
        }
    };
    Some(Sorted::Source(network))
}

/// Until firewalld's next reload: permanent configuration is up to the administrator. One command for all pools: it is
/// a Python program and asks D-Bus, which takes a third of a second on an idle host and several under load.
fn tell(pools: &[IpNet]) -> Result<(), Error> {
    let sources = pools.iter().map(|pool| format!("--add-source={pool}"));
    let arguments: Vec<String> = std::iter::once("--zone=trusted".to_owned()).chain(sources).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let told = |message: String| Error::Firewall {
        program: COMMAND.to_owned(),
        arguments: arguments.join(" "),
        message,
    };
    let output = program::run(COMMAND, &arguments).map_err(|error| told(error.to_string()))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(told(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_a_zone_is_read() {
        let json = br#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
            {"chain": {"family": "inet", "table": "firewalld", "name": "filter_INPUT_ZONES", "handle": 1}},
            {"rule": {"expr": [{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}},
                "right": {"prefix": {"addr": "10.32.0.0", "len": 12}}}}, {"goto": {"target": "filter_IN_trusted"}}]}},
            {"rule": {"expr": [{"match": {"op": "==", "left": {"payload": {"protocol": "ip6", "field": "saddr"}},
                "right": "fd00::1"}}, {"goto": {"target": "filter_IN_home"}}]}},
            {"rule": {"expr": [{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "docker0"}},
                {"goto": {"target": "filter_IN_docker"}}]}},
            {"rule": {"expr": [{"goto": {"target": "filter_IN_public"}}]}}]}"#;
        let listing: Listing = serde_json::from_slice(json).unwrap();
        assert_eq!(
            listing.sorted().collect::<Vec<_>>(),
            [
                Sorted::Source("10.32.0.0/12".parse().unwrap()),
                Sorted::Source("fd00::1/128".parse().unwrap()),
                Sorted::Interface("docker0".to_owned()),
            ]
        );
    }
}
