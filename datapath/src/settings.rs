//! What this host's side of the network is set to. Plain data: checked where it comes from.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};
use selvedge_cluster::handle::Kind;
use selvedge_netsetup::Datapath as Way;
use selvedge_netsetup::policy::{PolicySettings, Verdict};

/// The address of every host towards its containers.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// All of it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Tells the interfaces and tables of several Selvedges in one network namespace apart.
    pub group: u32,
    /// All container addresses.
    pub pool: Ipv4Net,
    /// The IPv6 network that container addresses are mapped into, if IPv6 is on.
    pub pool6: Option<Ipv6Net>,
    /// The addresses that this host hands out: the pool's first block on a single host, else only what the user said.
    pub block: Option<Ipv4Net>,
    /// Prefix length of a block.
    pub block_size: u8,
    /// MTU of wires, if not the host's.
    pub mtu: Option<u32>,
    /// Where DNS is answered.
    pub dns: SocketAddrV4,
    /// Whether hosts, apps and virtual addresses also have the names that Mesos-DNS and DC/OS give them.
    pub mesos: bool,
    /// The part of the pool that virtual addresses are taken from; nothing = there are none.
    pub vips: Option<Ipv4Net>,
    /// The rules between tenants.
    pub rules: Rules,
    /// The other hosts.
    pub cluster: Others,
}

/// The rules between tenants.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Whether tenants are kept apart; else all may talk to all.
    pub by_tenant: bool,
    /// Hosts and containers, both ways.
    pub host: Verdict,
    /// What comes in by a published port.
    pub published: Verdict,
    /// What leaves the pool.
    pub out: Verdict,
    /// Containers' questions to our DNS server.
    pub names: Verdict,
}

impl Rules {
    /// As the flag `--policy` has it.
    pub fn name(self) -> &'static str {
        if self.by_tenant { "tenant" } else { "open" }
    }
}

/// This host among the others.
#[derive(Debug, Clone)]
pub struct Others {
    /// Whether there are none.
    pub alone: bool,
    /// Where the registry is.
    pub registry: Kind,
    /// The registry without credentials, for people.
    pub registry_text: String,
    /// This host's name.
    pub host_name: String,
    /// This host's address, if it was told.
    pub host_address: Option<IpAddr>,
    /// How containers elsewhere are reached.
    pub way: Way,
    /// After which time dead hosts' blocks are free.
    pub free_after: Duration,
    /// Where hosts tell each other that they live.
    pub peer_port: u16,
    /// VXLAN's UDP port.
    pub vxlan_port: u16,
    /// VXLAN's network identifier.
    pub vxlan_id: u32,
}

impl Settings {
    /// Whether this host is alone.
    pub fn is_local(&self) -> bool {
        self.cluster.alone
    }

    /// What the kernel's side needs to know.
    pub fn network(&self) -> selvedge_netsetup::Settings {
        selvedge_netsetup::Settings {
            pool: self.pool,
            gateway: GATEWAY,
            dns: *self.dns.ip(),
            group: self.group,
            mtu: self.mtu,
            underlay: self.cluster.host_address,
            pool6: self.pool6,
            // IPv6 needs VXLAN wherever the underlay is IPv4.
            encapsulated: !self.is_local() && (self.cluster.way != Way::Direct || self.pool6.is_some()),
        }
    }

    /// What the rules between tenants need to know.
    pub fn policy(&self) -> PolicySettings {
        PolicySettings {
            group: self.group,
            pool: self.pool,
            pool6: self.pool6,
            dns: self.dns.into(),
            host: self.rules.host,
            published: self.rules.published,
            out: self.rules.out,
            names: self.rules.names,
        }
    }
}
