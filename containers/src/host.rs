//! What containers need of the host that they run on: wires, rules, names, and addresses that other hosts may have. One
//! door to the network's side, so that tests can stand behind it. Must never decide anything.

use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use selvedge_datapath::blocks::ClaimError;
use selvedge_datapath::follow::Datapath;
use selvedge_netsetup::{Error, Network, Wire, WireSpec};
use selvedge_registry::record::Record;

/// What is still to come of a question to the host.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The host, as its containers need it.
pub trait Host: Debug + Send + Sync {
    /// Gives the host the addresses and settings that containers need, where they are not there.
    fn prepare(&self) -> Pending<'_, Result<(), Error>>;
    /// The same, told how many of them were taken away since.
    fn mind(&self) -> Pending<'_, Result<u64, Error>>;
    /// Takes out what only a host among others has.
    fn is_alone(&self) -> Pending<'_, Result<(), Error>>;
    /// Opens the host's firewalls for containers where they are not.
    fn mind_firewalls(&self) -> Pending<'_, Result<(), Error>>;
    /// All wires of ours.
    fn wires(&self) -> Pending<'_, Result<Vec<Wire>, Error>>;
    /// Addresses of the pool that the kernel routes to interfaces that are none of our wires.
    fn foreign_addresses(&self) -> Pending<'_, Result<Vec<(Ipv4Addr, String)>, Error>>;
    /// Makes a container's wire.
    fn connect<'a>(&'a self, wire: &'a WireSpec) -> Pending<'a, Result<(), Error>>;
    /// Gives a container that has its wire the sign to run.
    fn release<'a>(&'a self, wire: &'a WireSpec) -> Pending<'a, Result<(), Error>>;
    /// Takes wires out.
    fn disconnect<'a>(&'a self, wires: &'a [Wire]) -> Pending<'a, Result<(), Error>>;
    /// Returns when the kernel knows the rules of a container that is about to run.
    fn admit<'a>(&'a self, record: &'a Record, aliases: &'a [IpAddr]) -> Pending<'a, Result<(), Error>>;
    /// Names are answered from now on, here at once and elsewhere soon, and the kernel will know the container's rules; gives
    /// back what was wrong with those left out.
    fn publish(&self, record: Record, aliases: &[IpAddr]) -> Vec<selvedge_registry::error::Error>;
    /// They are answered no longer, and its rules are not needed any more.
    fn withdraw(&self, id: &str);
    /// Returns when the other hosts are hearing of what was published of a container last.
    fn told<'a>(&'a self, id: &'a str) -> Pending<'a, ()>;
    /// Returns when no host sends new connections to a container that is about to be stopped and has published so, as far as
    /// that can be waited for. `for_long`: by then it has ended, or takes connections again.
    fn lead_elsewhere<'a>(&'a self, id: &'a str, for_long: Duration) -> Pending<'a, ()>;
    /// An address outside of our blocks, for a container that is about to start; it may have it already.
    fn claim_address<'a>(&'a self, address: Ipv4Addr, id: &'a str) -> Pending<'a, Result<(), ClaimError>>;
    /// A container that runs has this address, which is outside of our blocks.
    fn has_address(&self, address: Ipv4Addr, id: &str);
    /// Other hosts may have the address.
    fn release_address(&self, address: Ipv4Addr, id: &str);
    /// Our blocks can be told by these addresses that were given of them; true for one of a subnet of its own.
    fn remember_blocks(&self, given: &mut dyn Iterator<Item = (Ipv4Addr, bool)>);
    /// A block of addresses more, or a part of a subnet, for a create that found none with room; or why there is none, for
    /// the client.
    fn another_block(&self, subnet: Option<Ipv4Net>) -> Pending<'_, Result<(), String>>;
    /// Whose addresses got no new connections when the last worker ended.
    fn aside(&self) -> Pending<'_, Vec<Ipv4Addr>>;
    /// All containers of this host have been published: what else there is of it is old.
    fn all_seen(&self);
}

/// The host that this process runs on.
#[derive(Debug)]
pub struct ThisHost {
    /// Wires, and the addresses and settings that they need.
    pub network: Arc<Network>,
    /// Names, rules, routes to other hosts.
    pub datapath: Arc<Datapath>,
}

impl Host for ThisHost {
    fn prepare(&self) -> Pending<'_, Result<(), Error>> {
        Box::pin(self.network.prepare_host())
    }

    fn mind(&self) -> Pending<'_, Result<u64, Error>> {
        Box::pin(self.network.mind_host())
    }

    fn is_alone(&self) -> Pending<'_, Result<(), Error>> {
        Box::pin(self.network.is_alone())
    }

    fn mind_firewalls(&self) -> Pending<'_, Result<(), Error>> {
        Box::pin(self.network.mind_firewalls())
    }

    fn wires(&self) -> Pending<'_, Result<Vec<Wire>, Error>> {
        Box::pin(self.network.wires())
    }

    fn foreign_addresses(&self) -> Pending<'_, Result<Vec<(Ipv4Addr, String)>, Error>> {
        Box::pin(self.network.foreign_addresses())
    }

    fn connect<'a>(&'a self, wire: &'a WireSpec) -> Pending<'a, Result<(), Error>> {
        Box::pin(self.network.connect(wire))
    }

    fn release<'a>(&'a self, wire: &'a WireSpec) -> Pending<'a, Result<(), Error>> {
        Box::pin(self.network.release(wire))
    }

    fn disconnect<'a>(&'a self, wires: &'a [Wire]) -> Pending<'a, Result<(), Error>> {
        Box::pin(self.network.disconnect(wires))
    }

    fn admit<'a>(&'a self, record: &'a Record, aliases: &'a [IpAddr]) -> Pending<'a, Result<(), Error>> {
        Box::pin(self.datapath.directory.policy.admit(record, aliases))
    }

    fn publish(&self, record: Record, aliases: &[IpAddr]) -> Vec<selvedge_registry::error::Error> {
        self.datapath.publish(record, aliases)
    }

    fn withdraw(&self, id: &str) {
        self.datapath.withdraw(id);
    }

    fn told<'a>(&'a self, id: &'a str) -> Pending<'a, ()> {
        Box::pin(self.datapath.cluster.told(id))
    }

    fn lead_elsewhere<'a>(&'a self, id: &'a str, for_long: Duration) -> Pending<'a, ()> {
        Box::pin(self.datapath.lead_elsewhere(id, for_long))
    }

    fn claim_address<'a>(&'a self, address: Ipv4Addr, id: &'a str) -> Pending<'a, Result<(), ClaimError>> {
        Box::pin(self.datapath.cluster.claim_address(address, id))
    }

    fn has_address(&self, address: Ipv4Addr, id: &str) {
        self.datapath.cluster.has_address(address, id);
    }

    fn release_address(&self, address: Ipv4Addr, id: &str) {
        self.datapath.cluster.release_address(address, id);
    }

    fn remember_blocks(&self, given: &mut dyn Iterator<Item = (Ipv4Addr, bool)>) {
        self.datapath.blocks.remember(given);
    }

    fn another_block(&self, subnet: Option<Ipv4Net>) -> Pending<'_, Result<(), String>> {
        Box::pin(self.datapath.blocks.another(subnet))
    }

    fn aside(&self) -> Pending<'_, Vec<Ipv4Addr>> {
        Box::pin(self.datapath.vips.aside())
    }

    fn all_seen(&self) {
        self.datapath.cluster.settled();
        self.datapath.synced.set_own();
    }
}
