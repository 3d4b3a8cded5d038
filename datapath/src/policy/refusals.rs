//! Which calls were refused, and by which rule: read from the kernel, with names, for `status` and the log. Includes what other
//! hosts refused between their containers and ours.
//!
//! Must never be on the path of a packet or of a start: it may be some seconds behind.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;

use selvedge_netsetup::policy::{Refusal, Rule};
use selvedge_registry::shared::SharedTable;
use selvedge_registry::table::Table;
use tracing::{debug, warn};

use super::lock::lock;
use super::people::{self, People};
use super::reports::Heard;
use crate::kernel::RuleTable;
use crate::status::Refused;

/// How many kinds of calls the log names at a time, and the status.
const TOLD: usize = 10;
const SHOWN: usize = 100;

/// All that is known of refusals.
#[derive(Debug)]
pub(super) struct Refusals {
    table: SharedTable,
    people: Mutex<People>,
    /// As the kernel said last.
    counted: Mutex<HashMap<Refusal, u64>>,
    /// As other hosts said last, by the hosts' names.
    heard: Mutex<HashMap<String, HashMap<Refusal, u64>>>,
    /// Addresses whose last owner is written down in the kernel.
    written: Mutex<HashSet<Ipv4Addr>>,
}

/// The setting that a rule comes from.
fn setting(rule: Rule) -> &'static str {
    match rule {
        Rule::Grants => "selvedge.allow",
        Rule::Host => "policy-host",
        Rule::Out => "policy-out",
        Rule::Names => "policy-dns",
        Rule::Unknown => "unknown address",
    }
}

impl Refusals {
    pub(super) fn new(table: SharedTable) -> Self {
        Self {
            table,
            people: Mutex::default(),
            counted: Mutex::default(),
            heard: Mutex::default(),
            written: Mutex::default(),
        }
    }

    /// The owners of addresses.
    pub(super) fn people(&self) -> std::sync::MutexGuard<'_, People> {
        lock(&self.people)
    }

    /// What the kernel said last.
    pub(super) fn counted(&self) -> HashMap<Refusal, u64> {
        lock(&self.counted).clone()
    }

    /// Reads what an earlier worker left; none of it is logged again.
    pub(super) async fn begin(&self, policy: &dyn RuleTable) {
        let names = policy.remembered().await.unwrap_or_default();
        for (address, who) in names {
            if let IpAddr::V4(address) = address {
                self.people().remember(address, who);
                lock(&self.written).insert(address);
            }
        }
        self.count(policy).await;
    }

    /// Reads the kernel's counts and logs what is new.
    pub(super) async fn tell(&self, policy: &dyn RuleTable) {
        let news = self.count(policy).await;
        self.log(news, None);
    }

    /// Reads the kernel's counts; returns the increase since the last time.
    async fn count(&self, policy: &dyn RuleTable) -> Vec<(Refusal, u64)> {
        let Ok(now) = policy.refused().await else { return Vec::new() };
        let before = std::mem::replace(&mut *lock(&self.counted), now.clone());
        more(now, &before)
    }

    /// Takes another host's report.
    pub(super) fn hear(&self, host: &str, heard: Vec<Heard>) {
        let now = heard.iter().map(|one| (one.refusal.clone(), one.packets)).collect();
        lock(&self.heard).insert(host.to_owned(), now);
        let news = heard.into_iter().filter(|one| one.new > 0).map(|one| (one.refusal, one.new));
        self.log(news.collect(), Some(host));
    }

    /// Drops the reports of hosts that are gone.
    pub(super) fn hear_only(&self, is_there: impl Fn(&str) -> bool) {
        lock(&self.heard).retain(|host, _| is_there(host));
    }

    fn log(&self, mut news: Vec<(Refusal, u64)>, host: Option<&str>) {
        news.sort_by_key(|(_, packets)| std::cmp::Reverse(*packets));
        for (Refusal { from, to, call }, packets) in news.iter().take(TOLD) {
            let who = |address| self.who(address).unwrap_or_else(|| "-".to_owned());
            let (caller, called) = (who(*from), who(*to));
            let (protocol, port) =
                (call.as_ref().map(|call| call.protocol.as_str()), call.as_ref().and_then(|call| call.port));
            let rule = call.as_ref().map(|call| setting(call.rule));
            warn!(%from, %to, caller, called, protocol, port, rule, packets, host, "refused");
        }
        if news.len() > TOLD {
            warn!(calls = news.len() - TOLD, host, "more kinds of calls were refused than are logged");
        }
    }

    /// `TENANT/NAME`.
    fn who(&self, address: IpAddr) -> Option<String> {
        let table = self.table.read();
        self.people().who(&table, address)
    }

    /// Writes the last owners of refused addresses that are free by now into the kernel.
    pub(super) async fn write_down(&self, policy: &dyn RuleTable) {
        let names = self.unwritten();
        let addresses: Vec<Ipv4Addr> = names.iter().map(|(address, _)| *address).collect();
        match policy.remember(names).await {
            Ok(()) => lock(&self.written).extend(addresses),
            Err(error) => debug!(%error, "cannot write down the names of ended containers"),
        }
    }

    fn unwritten(&self) -> Vec<(Ipv4Addr, String)> {
        let (table, people, written) = (self.table.read(), self.people(), lock(&self.written));
        let (counted, heard) = (lock(&self.counted), lock(&self.heard));
        let refusals = counted.keys().chain(heard.values().flat_map(HashMap::keys));
        let ends = refusals.flat_map(|refusal| [refusal.from, refusal.to]);
        let former: BTreeMap<Ipv4Addr, String> = ends.filter_map(|end| people.former(&table, end)).collect();
        former.into_iter().filter(|(address, _)| !written.contains(address)).collect()
    }

    /// Deletes the counts of addresses that have another owner now.
    pub(super) async fn forget_reused(&self, policy: &dyn RuleTable) {
        let reused = {
            let table = self.table.read();
            self.people().reused(&table)
        };
        if reused.is_empty() {
            return;
        }
        self.tell(policy).await;
        match policy.forget(&reused).await {
            Ok(()) => {
                let is_kept =
                    |refusal: &Refusal| !reused.contains(&refusal.from) && !reused.contains(&refusal.to);
                lock(&self.counted).retain(|refusal, _| is_kept(refusal));
                lock(&self.heard).values_mut().for_each(|heard| heard.retain(|refusal, _| is_kept(refusal)));
                self.people().forgotten(&reused);
                lock(&self.written).retain(|address| !reused.contains(&IpAddr::from(*address)));
            }
            Err(error) => {
                debug!(%error, "cannot delete the counts of an address that has another owner now")
            }
        }
    }

    /// The kinds of calls with the most packets, and how many more there are.
    pub(super) fn shown(&self) -> (Vec<Refused>, usize) {
        let mut all = self.counted();
        for (refusal, packets) in lock(&self.heard).values().flatten() {
            *all.entry(refusal.clone()).or_default() += packets;
        }
        let mut shown = self.named(&all);
        shown.sort_by_key(|one| std::cmp::Reverse(one.packets));
        let more = shown.len().saturating_sub(SHOWN);
        shown.truncate(SHOWN);
        (shown, more)
    }

    /// By name: a container's addresses count as one.
    fn named(&self, refused: &HashMap<Refusal, u64>) -> Vec<Refused> {
        let (table, people) = (self.table.read(), self.people());
        let mut shown: BTreeMap<Refused, u64> = BTreeMap::new();
        for (refusal, packets) in refused {
            *shown.entry(show(&table, &people, refusal)).or_default() += packets;
        }
        shown.into_iter().map(|(one, packets)| Refused { packets, ..one }).collect()
    }
}

fn show(table: &Table, people: &People, refusal: &Refusal) -> Refused {
    let who = |address: IpAddr| people.who(table, address).unwrap_or_else(|| address.to_string());
    let (caller, called) = (who(refusal.from), who(refusal.to));
    let call = refusal.call.as_ref();
    Refused {
        from: people::tenant(&caller).to_owned(),
        to: people::tenant(&called).to_owned(),
        protocol: call.map(|call| call.protocol.clone()),
        port: call.and_then(|call| call.port),
        rule: call.map(|call| setting(call.rule).to_owned()),
        packets: 0,
        caller,
        called,
    }
}

/// The increase.
fn more(now: HashMap<Refusal, u64>, before: &HashMap<Refusal, u64>) -> Vec<(Refusal, u64)> {
    let more = |(refusal, packets): (Refusal, u64)| {
        let packets = packets.saturating_sub(*before.get(&refusal).unwrap_or(&0));
        (packets > 0).then_some((refusal, packets))
    };
    now.into_iter().filter_map(more).collect()
}

#[cfg(test)]
mod tests;
