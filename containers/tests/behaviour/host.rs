//! A host that does nothing, and remembers in which order it was told to.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use selvedge_containers::host::{Host, Pending};
use selvedge_datapath::blocks::ClaimError;
use selvedge_netsetup::{Error, Wire, WireSpec};
use selvedge_registry::record::Record;

/// How long its peers take to say that they send a container no new connections.
pub(crate) const ELSEWHERE: Duration = Duration::from_millis(1500);

#[derive(Debug, Default)]
pub(crate) struct FakeHost {
    said: Mutex<Vec<String>>,
    records: Mutex<Vec<Record>>,
    /// The wires that it says it has.
    pub(crate) wires: Mutex<Vec<Wire>>,
    /// It makes no wire.
    pub(crate) refuses: AtomicBool,
}

impl FakeHost {
    /// What it was told so far, `VERB CONTAINER` each.
    pub(crate) fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }

    /// What was published last.
    pub(crate) fn last(&self) -> Record {
        self.records.lock().unwrap().last().unwrap().clone()
    }

    fn say(&self, verb: &str, id: &str) {
        self.said.lock().unwrap().push(format!("{verb} {id}"));
    }
}

fn now<'a, T: Send + 'a>(value: T) -> Pending<'a, T> {
    Box::pin(std::future::ready(value))
}

impl Host for FakeHost {
    fn prepare(&self) -> Pending<'_, Result<(), Error>> {
        now(Ok(()))
    }

    fn mind(&self) -> Pending<'_, Result<u64, Error>> {
        now(Ok(0))
    }

    fn is_alone(&self) -> Pending<'_, Result<(), Error>> {
        now(Ok(()))
    }

    fn mind_firewalls(&self) -> Pending<'_, Result<(), Error>> {
        now(Ok(()))
    }

    fn wires(&self) -> Pending<'_, Result<Vec<Wire>, Error>> {
        now(Ok(self.wires.lock().unwrap().clone()))
    }

    fn foreign_addresses(&self) -> Pending<'_, Result<Vec<(Ipv4Addr, String)>, Error>> {
        now(Ok(Vec::new()))
    }

    fn connect<'a>(&'a self, wire: &'a WireSpec) -> Pending<'a, Result<(), Error>> {
        self.say("connect", &wire.container);
        let (container, milliseconds) = (wire.container.clone(), 1);
        now(if self.refuses.load(Relaxed) { Err(Error::NotUp { container, milliseconds }) } else { Ok(()) })
    }

    fn release<'a>(&'a self, wire: &'a WireSpec) -> Pending<'a, Result<(), Error>> {
        self.say("release", &wire.container);
        now(Ok(()))
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
        now(Ok(()))
    }

    fn note(&self, record: &Record, _: &[IpAddr]) {
        self.say("note", &record.id);
    }

    fn dismiss(&self, id: &str) {
        self.say("dismiss", id);
    }

    fn publish(&self, record: Record) -> Vec<selvedge_registry::error::Error> {
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
        now(Vec::new())
    }

    fn all_seen(&self) {
        self.say("seen", "all");
    }
}
