//! One asker's view of the table: everything, or, where tenants are kept apart, only the containers it may call.
//!
//! Unrestricted callers pay no cost.

use std::borrow::Cow;
use std::net::Ipv4Addr;
use std::ops::Deref;

use super::{Found, Table};
use crate::allow::Protocol;
use crate::caller::{Caller, may_call};
use crate::name::{MAX_LABEL, Name, parent};
use crate::record::{NamedPort, Record};

/// The table, as an asker sees it.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'t> {
    table: &'t Table,
    /// None for an unrestricted asker, who sees everything.
    caller: Option<Caller<'t>>,
}

/// One instance of a service (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The instance's own name, absolute: its address with dashes, below the name that it is an instance of.
    pub target: Name,
    /// Its address.
    pub address: Ipv4Addr,
    /// The port's number.
    pub port: u16,
}

/// The meaning of a derived name: computed from the names that containers have.
#[derive(Debug, PartialEq, Eq)]
pub enum Computed {
    /// The own name of an instance.
    Instance(Ipv4Addr),
    /// The hosts on which the instances run: at least one.
    Hosts(Vec<Ipv4Addr>),
    /// The instances of a service: at least one.
    Services(Vec<Service>),
    /// There are names below it.
    Empty,
}

impl<'t> From<&'t Table> for Sight<'t> {
    fn from(table: &'t Table) -> Self {
        Self { table, caller: None }
    }
}

impl Deref for Sight<'_> {
    type Target = Table;

    fn deref(&self) -> &Table {
        self.table
    }
}

impl<'t> Sight<'t> {
    /// The view of this caller, if tenants are kept apart at all.
    #[must_use]
    pub fn new(table: &'t Table, caller: Option<Caller<'t>>) -> Self {
        Self { table, caller: caller.filter(|_| table.is_isolated()) }
    }

    /// What is known of an absolute name, given as wire bytes in lower case.
    #[must_use]
    pub fn lookup(self, wire: &[u8]) -> Found<'t> {
        let found = self.table.lookup(wire);
        match (&found, self.caller) {
            (Found::Addresses(answered), Some(_)) => self.visible(wire, answered),
            _ => found,
        }
    }

    /// Of a name's answered addresses the visible ones; or of all its addresses, if none of the answered ones is
    /// visible.
    fn visible(self, wire: &[u8], answered: &[Ipv4Addr]) -> Found<'t> {
        let seen = |addresses: &[Ipv4Addr]| -> Vec<Ipv4Addr> {
            addresses.iter().copied().filter(|address| self.sees(*address)).collect()
        };
        let mut addresses = seen(answered);
        let node = self.table.nodes.get(wire);
        // All healthy ones may belong to others; but an exclusive name has one answer for all askers.
        if addresses.is_empty() && !self.is_exclusive(wire) {
            addresses = seen(node.map_or(&[], |node| node.addresses.all()));
        }
        // Another tenant must not be able to join a name of the asker's own.
        let own: Vec<Ipv4Addr> = addresses.iter().copied().filter(|address| self.is_own(*address)).collect();
        if !own.is_empty() {
            addresses = own;
        }
        match node {
            _ if !addresses.is_empty() => Found::Addresses(Cow::Owned(addresses)),
            Some(node) if node.children > 0 => Found::Empty,
            _ => Found::Missing,
        }
    }

    fn is_exclusive(self, wire: &[u8]) -> bool {
        self.records_at(self.table.nodes.get(wire).map_or(&[], |node| node.addresses.all()))
            .any(|record| record.traits.exclusive)
    }

    fn records_at(self, addresses: &'t [Ipv4Addr]) -> impl Iterator<Item = &'t Record> {
        let ids = addresses.iter().filter_map(move |address| self.table.by_address.get(address)).flatten();
        ids.filter_map(move |id| self.table.records.get(id))
    }

    /// Whether the asker may call the container with the address.
    fn sees(self, address: Ipv4Addr) -> bool {
        let Some(caller) = self.caller else { return true };
        self.table.owner(address).is_some_and(|record| may_call(caller, record))
    }

    /// Whether the container with the address is of the asker's tenant.
    fn is_own(self, address: Ipv4Addr) -> bool {
        let Some(Caller::Container(caller)) = self.caller else { return false };
        self.table.owner(address).is_some_and(|record| record.tenant() == caller.tenant())
    }

    /// The absolute primary name of the container with the address, if the asker may call it.
    #[must_use]
    pub fn reverse(self, address: Ipv4Addr) -> Option<Name> {
        self.table.reverse(address).filter(|_| self.sees(address))
    }

    /// Whether the name has a meaning that this asker must not learn.
    #[must_use]
    pub fn hides(self, wire: &[u8]) -> bool {
        self.caller.is_some()
            && self.compute(wire).is_none()
            && Sight::from(self.table).compute(wire).is_some()
    }

    /// The meaning of a name that [`Sight::lookup`] does not find.
    #[must_use]
    pub fn compute(self, wire: &[u8]) -> Option<Computed> {
        if let Some(task) = self.task_of_slave(wire) {
            let hosts = self.hosts(&task);
            return (!hosts.is_empty()).then_some(Computed::Hosts(hosts));
        }
        let (label, rest) = split(wire)?;
        if let Some(address) = address_of(label) {
            let node = self.table.nodes.get(rest).filter(|node| node.addresses.all().contains(&address));
            return node.filter(|_| self.sees(address)).map(|_| Computed::Instance(address));
        }
        if let Some(protocol) = protocol_of(label) {
            let any = !self.services(rest, |port| port.protocol == protocol).is_empty();
            return any.then_some(Computed::Empty);
        }
        let (second, below) = split(rest)?;
        let name = label.strip_prefix(b"_")?;
        let services = match protocol_of(second) {
            Some(protocol) => {
                let is_it = |port: &NamedPort| port.protocol == protocol && port.name.as_bytes() == name;
                match self.services(below, is_it) {
                    found if found.is_empty() => {
                        self.services_of_task(name, below, |port| port.protocol == protocol)
                    }
                    found => found,
                }
            }
            None => {
                let (third, below) = split(below)?;
                let (protocol, task) = (protocol_of(third)?, second.strip_prefix(b"_")?);
                let is_it = |port: &NamedPort| port.protocol == protocol && port.name.as_bytes() == name;
                self.services_of_task(task, below, is_it)
            }
        };
        (!services.is_empty()).then_some(Computed::Services(services))
    }

    /// In the style of Mesos-DNS: `task.marathon.slave.mesos` gives the hosts of `task.marathon.mesos`.
    fn task_of_slave(self, wire: &[u8]) -> Option<Vec<u8>> {
        // Such questions are rare, but every name that does not exist gets here.
        if self.table.hosts.is_empty() {
            return None;
        }
        let domain = self.table.domain_of(wire).filter(|domain| *domain != self.table.domain())?.wire();
        let is_slave = |suffix: &&[u8]| split(suffix) == Some((b"slave", domain));
        let slave = std::iter::successors(Some(wire), |wire| parent(wire)).find(is_slave)?;
        (slave.len() < wire.len()).then(|| [&wire[..wire.len() - slave.len()], domain].concat())
    }

    /// The addresses of the hosts, each once, of the instances that the name is answered with.
    fn hosts(self, wire: &[u8]) -> Vec<Ipv4Addr> {
        let Found::Addresses(addresses) = self.lookup(wire) else { return Vec::new() };
        let of = |address: &Ipv4Addr| self.table.host_of(self.table.owner(*address)?);
        let mut hosts: Vec<Ipv4Addr> = addresses.iter().filter_map(of).collect();
        hosts.sort_unstable();
        hosts.dedup();
        hosts
    }

    /// In the style of Mesos-DNS: `_task._tcp.marathon.mesos` gives the services of `task.marathon.mesos`. Not in our
    /// own domain.
    fn services_of_task(self, task: &[u8], below: &[u8], is_it: impl Fn(&NamedPort) -> bool) -> Vec<Service> {
        if self.table.domain_of(below).is_none_or(|domain| domain == self.table.domain()) {
            return Vec::new();
        }
        Name::below(task, below).map(|name| self.services(name.wire(), is_it)).unwrap_or_default()
    }

    /// The ports of the instances that the name is answered with.
    fn services(self, wire: &[u8], is_it: impl Fn(&NamedPort) -> bool) -> Vec<Service> {
        let Found::Addresses(addresses) = self.lookup(wire) else { return Vec::new() };
        let of = |address: &Ipv4Addr| {
            let (address, record) = (*address, self.table.owner(*address)?);
            let target = Name::below(label_of(address).as_bytes(), wire)?;
            let ports = record.traits.ports.iter().filter(|port| is_it(port));
            Some(
                ports
                    .map(move |port| Service { target: target.clone(), address, port: port.number })
                    .collect::<Vec<_>>(),
            )
        };
        addresses.iter().filter_map(of).flatten().collect()
    }
}

/// The first label and the rest of the name.
fn split(wire: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = parent(wire)?;
    Some((wire.get(1..wire.len() - rest.len())?, rest))
}

fn protocol_of(label: &[u8]) -> Option<Protocol> {
    match label {
        b"_tcp" => Some(Protocol::Tcp),
        b"_udp" => Some(Protocol::Udp),
        _ => None,
    }
}

/// `10-32-0-7`.
fn label_of(address: Ipv4Addr) -> String {
    address.to_string().replace('.', "-")
}

fn address_of(label: &[u8]) -> Option<Ipv4Addr> {
    let text =
        std::str::from_utf8(label).ok().filter(|text| text.len() <= MAX_LABEL && !text.contains('.'))?;
    let address = text.replace('-', ".").parse().ok()?;
    // One spelling only for each address.
    (label_of(address) == text).then_some(address)
}

#[cfg(test)]
mod tests;
