//! The registry's content: the layout of the keys, and the meaning of their values.
//!
//! A container's record is in the key itself, so that one notification tells a peer everything and no host has to read
//! it back. Pure text; a key that we cannot parse is not ours, and never an error.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

mod record;
pub(crate) use record::record_id;
pub use record::{read_record, write_record};

/// The folders below the prefix.
pub const FOLDERS: [&str; 7] = ["hosts", "live", "blocks", "addresses", "names", "gone", "vips"];

/// One key, relative to the prefix.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// What all hosts must agree on; the value is a [`Settings`].
    Settings,
    /// A host; the value is a [`HostInfo`].
    Host(String),
    /// A host's worker is running; the key goes with its session or lease.
    Live {
        /// The host's name.
        host: String,
        /// Distinguishes the workers of one host.
        instance: String,
    },
    /// A part of the pool; the value is the name of the host that hands it out.
    Block(Ipv4Net),
    /// One address that a container asked for; the value is a [`Claim`].
    Address(Ipv4Addr),
    /// A virtual address; the value is its name ([`selvedge_registry::vip::Vip::key`]).
    Vip(Ipv4Addr),
    /// A running container of a host, see [`write_record`].
    Record {
        /// The host's name.
        host: String,
        /// The record.
        text: String,
    },
    /// Since when a host has been away; the value is a time in seconds since 1970.
    Gone(String),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings => f.write_str("settings"),
            Self::Host(host) => write!(f, "hosts/{host}"),
            Self::Live { host, instance } => write!(f, "live/{host},{instance}"),
            Self::Block(block) => write!(f, "blocks/{}-{}", block.network(), block.prefix_len()),
            Self::Address(address) => write!(f, "addresses/{address}"),
            Self::Vip(address) => write!(f, "vips/{address}"),
            Self::Record { host, text } => write!(f, "names/{host}/{text}"),
            Self::Gone(host) => write!(f, "gone/{host}"),
        }
    }
}

impl Key {
    /// Parses a key; none if it is not one of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "settings" {
            return Some(Self::Settings);
        }
        let (folder, rest) = text.split_once('/')?;
        match folder {
            "hosts" => is_host_name(rest).then(|| Self::Host(rest.to_owned())),
            "gone" => is_host_name(rest).then(|| Self::Gone(rest.to_owned())),
            "live" => {
                let (host, instance) = rest.split_once(',')?;
                is_host_name(host)
                    .then(|| Self::Live { host: host.to_owned(), instance: instance.to_owned() })
            }
            "blocks" => {
                let (network, length) = rest.split_once('-')?;
                let block = Ipv4Net::new(network.parse().ok()?, length.parse().ok()?).ok()?;
                (block.trunc() == block).then_some(Self::Block(block))
            }
            "addresses" => rest.parse().ok().map(Self::Address),
            "vips" => rest.parse().ok().map(Self::Vip),
            "names" => {
                let (host, text) = rest.split_once('/')?;
                (is_host_name(host) && read_record(host, text).is_some())
                    .then(|| Self::Record { host: host.to_owned(), text: text.to_owned() })
            }
            _ => None,
        }
    }

    /// Whether the key's value matters; if not, it need not be read.
    #[must_use]
    pub fn has_value(&self) -> bool {
        !matches!(self, Self::Live { .. } | Self::Record { .. })
    }
}

/// Whether this is a valid host name: letters, digits, `-`, `_` and `.`, at most 255, and neither `.` nor `..`.
#[must_use]
pub fn is_host_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=255).contains(&text.len()) && text.bytes().all(allowed) && !matches!(text, "." | "..")
}

/// What all hosts of one registry must have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// All container addresses.
    pub pool: Ipv4Net,
    /// Prefix length of a block.
    pub block_size: u8,
    /// The part of them that is virtual; a registry created by an early version does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vips: Option<Ipv4Net>,
    /// Distinguishes this content of the registry from what was there before it was emptied.
    pub epoch: String,
}

/// What a host says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostInfo {
    /// Its address on the underlay.
    pub address: IpAddr,
    /// The TCP port on which its keeper listens: a successful connection proves that the host is alive.
    pub port: u16,
    /// The version of its worker.
    pub version: String,
    /// `auto`, `direct` or `vxlan`.
    pub datapath: String,
    /// `open` or `tenant`; empty for an early version, which does not say.
    #[serde(default)]
    pub policy: String,
    /// Whether it can be told on that port that a container takes no new connections; an early version cannot.
    #[serde(default)]
    pub heeds_stops: bool,
}

/// The holder of an address that a container asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The host.
    pub host: String,
    /// The container's id.
    pub container: String,
    /// The verdict of the host that owns the address's block.
    #[serde(default)]
    pub answer: Verdict,
}

impl Claim {
    /// Its text in the registry.
    pub(crate) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The verdict of a block's owner on a claim within the block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing yet.
    #[default]
    Asked,
    /// The owner will not hand it out to others.
    Granted,
    /// One of the owner's containers already has it.
    Refused,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_back() {
        for text in [
            "settings",
            "hosts/a.b-c_1",
            "live/h,4f",
            "blocks/10.32.5.0-24",
            "addresses/10.40.0.7",
            "vips/10.47.0.7",
            "names/h/0123456789ab;a=10.32.5.7;n=web.shop;n=web1",
            "gone/h",
        ] {
            assert_eq!(Key::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn garbage_is_nothing_of_ours() {
        for text in [
            "",
            "hosts",
            "hosts/",
            "hosts/a/b",
            "hosts/a b",
            "hosts/..",
            "blocks/10.32.5.1-24",
            "blocks/x-24",
            "blocks/10.32.5.0-99",
            "addresses/10.40",
            "names/h/abc",
            "names/h/abc;a=x",
            "names/h/;a=1.2.3.4",
            "names/h/abc;a=1.2.3.4;n=..",
            "live/h",
            "other/h",
            "\u{0}/\u{fffd}",
        ] {
            assert_eq!(Key::parse(text), None, "{text:?}");
        }
    }
}
