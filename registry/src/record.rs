//! One container's entry in the table. It must never hold what neither DNS nor the policy needs: everything else is in
//! labels and the kernel.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use crate::allow::{Grant, Protocol};
use crate::name::Name;
use crate::vip::Vip;

/// The tenant of a container whose tenant is not set.
pub const DEFAULT_TENANT: &str = "default";

/// What is known of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The container's id, as the engine reports it: the key of the record.
    pub id: String,
    /// The container's address on our network.
    pub address: Ipv4Addr,
    /// Its names, relative to the domain (or absolute, within one of the table's domains). The first is the primary
    /// one, with which PTR questions are answered.
    pub names: Vec<Name>,
    /// The name servers that the user gave it (`--dns`); empty = the host's.
    pub upstreams: Vec<SocketAddr>,
    /// Special properties, which most containers have none of.
    pub traits: Traits,
}

/// What sets a container apart. Boxed slices, as there may be a hundred thousand of these.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Traits {
    /// Its tenant; none means [`DEFAULT_TENANT`].
    pub tenant: Option<Box<str>>,
    /// The Marathon app that it is an instance of: `/shop/front/web`.
    pub app: Option<Box<str>>,
    /// The callers allowed besides its own tenant.
    pub allow: Box<[Grant]>,
    /// Its named ports, for SRV.
    pub ports: Box<[NamedPort]>,
    /// The virtual addresses that it stands behind.
    pub vips: Box<[Vip]>,
    /// Its Docker HEALTHCHECK does not report it as healthy (yet, or any more).
    pub unhealthy: bool,
    /// Of all containers with one of its names, answer with the newest healthy one only.
    pub exclusive: bool,
    /// When it was started, in milliseconds since 1970; 0 if not known.
    pub since: u64,
}

/// A port with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPort {
    /// The name: one DNS label without the underscore, in lower case.
    pub name: Box<str>,
    /// Its number.
    pub number: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

impl NamedPort {
    /// Parses a port such as `http:8080/tcp`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (name, port) = text.split_once(':')?;
        let (number, protocol) = port.split_once('/')?;
        Some(Self { name: name.into(), number: number.parse().ok()?, protocol: Protocol::parse(protocol)? })
    }
}

impl fmt::Display for NamedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.name, self.number, self.protocol)
    }
}

impl Record {
    /// A record without special properties.
    #[must_use]
    pub fn new(id: impl Into<String>, address: Ipv4Addr, names: Vec<Name>) -> Self {
        Self { id: id.into(), address, names, upstreams: Vec::new(), traits: Traits::default() }
    }

    /// Its tenant.
    #[must_use]
    pub fn tenant(&self) -> &str {
        self.traits.tenant.as_deref().unwrap_or(DEFAULT_TENANT)
    }
}
