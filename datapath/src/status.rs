//! What `selvedge status` says of rules and virtual addresses, for the worker that writes it and the command that reads it.
//! Must never lose a field between two versions without a default.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// The rules between tenants.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyStatus {
    /// `open` or `tenant`.
    pub mode: String,
    /// Why the rules are not in force, if so.
    pub trouble: Option<String>,
    /// The kinds of calls with the most refused packets.
    pub refused: Vec<Refused>,
    /// How many more kinds there are.
    pub refused_more: usize,
}

/// Calls of one kind between two containers, and how many packets of them were refused in the last day.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Refused {
    /// The caller's tenant, or its address if it is none of ours.
    pub from: String,
    /// The called container's tenant, or the address.
    pub to: String,
    /// The caller as `TENANT/NAME`, or its address.
    pub caller: String,
    /// The called one, likewise.
    pub called: String,
    /// `tcp`, `udp`, `icmp`; nothing where only the pair is known.
    pub protocol: Option<String>,
    /// The called port.
    pub port: Option<u16>,
    /// The setting that refuses.
    pub rule: Option<String>,
    /// Packets of the last day.
    pub packets: u64,
}

/// The virtual addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VipStatus {
    /// Each service with its address.
    pub services: Vec<ServiceStatus>,
    /// Keys that have no address yet.
    pub waiting: Vec<String>,
    /// Why the kernel's rules are not right, if so.
    pub trouble: Option<String>,
}

/// A service with a virtual address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceStatus {
    /// Its name in DNS.
    pub name: String,
    /// Its tenant, where tenants are kept apart.
    pub tenant: Option<String>,
    /// The virtual address.
    pub address: Option<Ipv4Addr>,
    /// What it serves.
    pub ports: Vec<PortStatus>,
}

/// A port of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortStatus {
    /// `80/tcp`.
    pub port: String,
    /// `ADDRESS:PORT` of each container behind it.
    pub backends: Vec<String>,
}
