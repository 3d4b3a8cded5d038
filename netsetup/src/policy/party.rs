//! The terms of the wanted rules: callers, called containers, ports, and what holds for all. Must never know how the kernel is told.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Whether something may pass that no container's rules speak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Allow,
    /// It may not, unless the called container's rules say so.
    Deny,
}

/// What is the same for all containers.
#[derive(Debug, Clone)]
pub struct PolicySettings {
    /// The link group of our wires' host ends; also names the table.
    pub group: u32,
    /// All container addresses of all hosts.
    pub pool: Ipv4Net,
    /// The network of their IPv6 addresses, if they have such.
    pub pool6: Option<Ipv6Net>,
    /// Where containers ask for names.
    pub dns: SocketAddr,
    /// Hosts and containers, both ways.
    pub host: Verdict,
    /// What comes in by a published port of the engine's.
    pub published: Verdict,
    /// What containers send out of the pool.
    pub out: Verdict,
    /// Containers' questions to `dns`.
    pub names: Verdict,
}

/// A container of any host, as rules see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Party {
    /// Its address; the IPv6 one follows.
    pub address: Ipv4Addr,
    /// What rules may call it when it is the caller. Any text.
    pub groups: BTreeSet<String>,
    /// Who may call it.
    pub grants: Vec<Grant>,
    /// Other addresses at which it is reached on this host: those of the engine's own networks.
    pub aliases: Vec<IpAddr>,
}

/// A permission to call, on some ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Who.
    pub who: Who,
    /// On which; none = on all, and by any protocol.
    pub ports: Vec<Ports>,
}

/// The callers that a rule speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// All parties of this group.
    Group(String),
    /// All callers with an address in here.
    Network(IpNet),
    /// Everybody.
    Anyone,
}

/// Ports from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Of which protocol.
    pub protocol: Protocol,
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// By address: in which group, or of which class.
pub(crate) type ByAddress<T> = HashMap<IpAddr, T>;
