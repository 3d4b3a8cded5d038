//! A host that does nothing, and remembers in which order it was told to.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use ipnet::Ipv4Net;
use selvedge_containers::host::{Host, Pending};
use selvedge_datapath::blocks::ClaimError;
use selvedge_netsetup::WireSpec;
pub use selvedge_netsetup::{Error, Wire};
use selvedge_registry::record::Record;

/// How long its peers take to say that they send a container no new connections.
pub const ELSEWHERE: Duration = Duration::from_millis(1500);

/// The host.
#[derive(Debug, Default)]
pub struct FakeHost {
    said: Mutex<Vec<String>>,
    records: Mutex<Vec<Record>>,
    /// What the next calls of these verbs fail with.
    fails: Mutex<Vec<(&'static str, Error)>>,
    /// Addresses that interfaces of the host have.
    pub foreign: Mutex<Vec<(Ipv4Addr, String)>>,
    /// Whose addresses stood aside.
    pub aside: Mutex<Vec<Ipv4Addr>>,
    /// The wires that it says it has.
    pub wires: Mutex<Vec<Wire>>,
    /// It makes no wire.
    pub refuses: AtomicBool,
}

impl FakeHost {
    /// What it was told so far, `VERB CONTAINER` each.
    pub fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }

    /// What was published last.
    pub fn last(&self) -> Record {
        self.records.lock().unwrap().last().unwrap().clone()
    }

    /// The next call of this verb fails.
    pub fn fail(&self, verb: &'static str, error: Error) {
        self.fails.lock().unwrap().push((verb, error));
    }

    fn say(&self, verb: &str, id: &str) {
        self.said.lock().unwrap().push(format!("{verb} {id}"));
    }

    fn made(&self, wire: &WireSpec) {
        let prefix = wire.container.get(..12).unwrap_or(&wire.container);
        let made = Wire {
            name: format!("sv{prefix}"),
            container_prefix: prefix.to_owned(),
            ifindex: 7,
            address: Some(wire.address),
            namespace: None,
            complete: true,
        };
        let mut wires = self.wires.lock().unwrap();
        wires.retain(|wire| wire.container_prefix != prefix);
        wires.push(made);
    }

    fn outcome(&self, verb: &str) -> Result<(), Error> {
        let mut fails = self.fails.lock().unwrap();
        match fails.iter().position(|(failing, _)| *failing == verb) {
            Some(at) => Err(fails.remove(at).1),
            None => Ok(()),
        }
    }
}

fn now<'a, T: Send + 'a>(value: T) -> Pending<'a, T> {
    Box::pin(std::future::ready(value))
}

impl Host for FakeHost {
    fn prepare(&self) -> Pending<'_, Result<(), Error>> {
        now(self.outcome("prepare"))
    }

    fn mind(&self) -> Pending<'_, Result<u64, Error>> {
        now(self.outcome("mind").map(|()| 0))
    }

    fn is_alone(&self) -> Pending<'_, Result<(), Error>> {
        now(Ok(()))
    }

    fn mind_firewalls(&self) -> Pending<'_, Result<(), Error>> {
        now(self.outcome("mind_firewalls"))
    }

    fn wires(&self) -> Pending<'_, Result<Vec<Wire>, Error>> {
        let wires = self.wires.lock().unwrap().clone();
        now(self.outcome("wires").map(|()| wires))
    }

    fn foreign_addresses(&self) -> Pending<'_, Result<Vec<(Ipv4Addr, String)>, Error>> {
        now(Ok(self.foreign.lock().unwrap().clone()))
    }

    fn connect<'a>(&'a self, wire: &'a WireSpec) -> Pending<'a, Result<(), Error>> {
        self.say("connect", &wire.container);
        let (container, milliseconds) = (wire.container.clone(), 1);
        let outcome = match self.refuses.load(Relaxed) {
            true => Err(Error::NotUp { container, milliseconds }),
            false => self.outcome("connect"),
        };
        if outcome.is_ok() {
            self.made(wire);
        }
        now(outcome)
    }

    fn release<'a>(&'a self, wire: &'a WireSpec) -> Pending<'a, Result<(), Error>> {
        self.say("release", &wire.container);
        now(self.outcome("release"))
    }

    fn disconnect<'a>(&'a self, wires: &'a [Wire]) -> Pending<'a, Result<(), Error>> {
        for wire in wires {
            self.say("disconnect", &wire.container_prefix);
        }
        self.wires.lock().unwrap().retain(|wire| !wires.contains(wire));
        now(Ok(()))
    }

    fn admit<'a>(&'a self, record: &'a Record, _: &'a [IpAddr]) -> Pending<'a, Result<(), Error>> {
        self.say("admit", &record.id);
        now(self.outcome("admit"))
    }

    fn publish(&self, record: Record, _: &[IpAddr]) -> Vec<selvedge_registry::error::Error> {
        self.say("publish", &record.id);
        self.records.lock().unwrap().push(record);
        Vec::new()
    }

    fn withdraw(&self, id: &str) {
        self.say("withdraw", id);
    }

    fn told<'a>(&'a self, id: &'a str) -> Pending<'a, ()> {
        self.say("told", id);
        now(())
    }

    fn lead_elsewhere<'a>(&'a self, id: &'a str, _: Duration) -> Pending<'a, ()> {
        self.say("elsewhere", id);
        Box::pin(tokio::time::sleep(ELSEWHERE))
    }

    fn claim_address<'a>(&'a self, _: Ipv4Addr, id: &'a str) -> Pending<'a, Result<(), ClaimError>> {
        self.say("claim", id);
        now(Ok(()))
    }

    fn has_address(&self, _: Ipv4Addr, _: &str) {}

    fn release_address(&self, _: Ipv4Addr, _: &str) {}

    fn remember_blocks(&self, _: &mut dyn Iterator<Item = (Ipv4Addr, bool)>) {}

    fn aside(&self) -> Pending<'_, Vec<Ipv4Addr>> {
        now(self.aside.lock().unwrap().clone())
    }

    fn another_block(&self, _: Option<Ipv4Net>) -> Pending<'_, Result<(), String>> {
        self.say("another", "block");
        now(Err("no free address is left".to_owned()))
    }

    fn all_seen(&self) {
        self.say("seen", "all");
    }
}
