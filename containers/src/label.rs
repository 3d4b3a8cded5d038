//! What Selvedge writes on a container: one label, in which all that a later worker needs to know stands.
//!
//! Nothing of this is kept anywhere else. A container whose label is empty is none of ours: a create writes
//! the label afresh where an image could bring one along.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// The label.
pub const LABEL: &str = "selvedge.internal.wire";
/// All labels that only Selvedge itself writes begin so.
pub const OWN_PREFIX: &str = "selvedge.internal.";

/// The label's content, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The wire's address.
    pub address: Ipv4Addr,
    /// Whether the user chose the address; else it is of a block of this host's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fixed: bool,
    /// The subnet of its own that the address is of, if it is of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<Ipv4Net>,
    /// Which Selvedge this container belongs to: its runtime directory. Several may run on one machine.
    pub runtime: PathBuf,
    /// Names relative to the domain, besides the container's own name, which may change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Whether its hostname is the user's own word; else it is ours, or the engine's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub named: bool,
    /// The container's own DNS servers; none: the host's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstreams: Vec<IpAddr>,
    /// Who the container belongs to; none on containers that an early version made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The Marathon app it is an instance of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// Who else may call it, as the label `selvedge.allow` is written.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub allow: String,
    /// Its named ports, as `http:8080/tcp`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
    /// The virtual addresses that it stands behind, as the label `selvedge.vip` is written, one each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vips: Vec<String>,
    /// Only the newest healthy one of its name is answered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exclusive: bool,
    /// Its wire is beside a network of its user's, which stays as it is: its address there, and its own line in /etc/hosts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub beside: bool,
    /// Where `wait` is mounted.
    pub wait: String,
    /// The create's own number (`rewrite::Asked`): one that is asked again finds by it what it has made.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub asked: u64,
    /// What stood in the places that were rewritten, for inspect and commit.
    pub original: Original,
}

/// The values that a client would see without us.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Original {
    /// `Config.Entrypoint` after the image's has been merged in; null and `[]` are different things.
    pub entrypoint: Option<Vec<String>>,
    /// `Config.Cmd`, likewise.
    pub cmd: Option<Vec<String>>,
    /// `HostConfig.Dns` as the client sent it.
    #[serde(default, skip_serializing_if = "Kept::is_same")]
    pub dns: Kept,
    /// `HostConfig.DnsSearch` as the client sent it.
    #[serde(default, skip_serializing_if = "Kept::is_same")]
    pub dns_search: Kept,
    /// There was no hostname, and the one there now is ours.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unnamed: bool,
    /// There was no `HostConfig`: old engines fill it in less then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bare: bool,
}

/// A list that we replaced, or left as it was.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kept {
    /// Not touched.
    #[default]
    Same,
    /// Replaced; this (or null) is what the client sent.
    Was(Option<Vec<String>>),
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Kept {
    fn is_same(&self) -> bool {
        *self == Self::Same
    }
}

impl Note {
    /// The note on a container with these labels, if it is one of this Selvedge's.
    pub fn read(labels: &HashMap<String, String>) -> Option<Self> {
        Self::parse(labels.get(LABEL)?)
    }

    /// The label's text as a note; an empty one is none.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() { None } else { serde_json::from_str(text).ok() }
    }

    /// What tells the create of this container from all others. Early versions did not number them.
    pub fn create_number(&self, id: &str) -> u64 {
        let digits = id.get(..15).and_then(|digits| u64::from_str_radix(digits, 16).ok());
        if self.asked == 0 { digits.unwrap_or(1).max(1) } else { self.asked }
    }

    /// As the label's text.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The command as the engine would start it without us: entrypoint and arguments in one.
    pub fn command(&self) -> Vec<String> {
        let parts = [&self.original.entrypoint, &self.original.cmd];
        parts.into_iter().flatten().flatten().cloned().collect()
    }
}
