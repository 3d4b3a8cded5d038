//! The rules between tenants: tells the kernel of every container of the cluster, and sees to it that what it was told stays
//! so. Must never wait for the registry, nor write a name: the directory does, when the rules are in force.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use selvedge_cluster::handle::Cluster;
use selvedge_cluster::view::{PeerView, View};
use selvedge_registry::record::Record;
use selvedge_registry::shared::SharedTable;
use tokio::sync::{Notify, Semaphore};
use tracing::{debug, warn};

use crate::health::Fault;
use crate::host::first_address;
use crate::kernel::RuleTable;
use crate::settings::Settings;
use crate::status::PolicyStatus;

pub(crate) mod lock;
pub mod party;
mod people;
mod refusals;
mod reports;
use lock::lock;
use party::party;
use refusals::Refusals;
use reports::{Report, Told};

/// After which time a change that the kernel refused is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// What keeps tenants apart on this host; nothing while everybody may talk to everybody.
#[derive(Debug)]
pub struct Policy {
    kernel: Arc<dyn RuleTable>,
    rules: Option<Rules>,
}

#[derive(Debug)]
struct Rules {
    policy: Arc<dyn RuleTable>,
    block_size: u8,
    /// Something was noted that is not in the kernel yet.
    noted: Notify,
    /// Opened when all containers have been seen that can be at a start; at once, if there were rules already.
    seen: Semaphore,
    /// Opened when their rules are in force.
    in_force: Semaphore,
    refusals: Refusals,
    /// What was reported to other hosts.
    told: Arc<Mutex<Told>>,
    trouble: Fault,
}

impl Policy {
    /// What the settings ask for. Changes nothing in the kernel.
    pub fn new(settings: &Settings, names: SharedTable, kernel: Arc<dyn RuleTable>) -> Self {
        let rules = settings.rules.by_tenant.then(|| Rules {
            policy: Arc::clone(&kernel),
            block_size: settings.block_size,
            noted: Notify::new(),
            seen: Semaphore::new(0),
            in_force: Semaphore::new(0),
            refusals: Refusals::new(names),
            told: Arc::default(),
            trouble: Fault::with("the rules between tenants"),
        });
        Self { kernel, rules }
    }

    /// Goes on with the rules that an earlier worker left. Without such nothing is refused before all containers have been
    /// seen ([`Policy::all_seen`]): connections that there are must not be cut, nor any if this worker never gets so far.
    ///
    /// # Errors
    /// The kernel or nft refuses it.
    pub async fn begin(&self) -> Result<(), selvedge_netsetup::Error> {
        let Some(rules) = &self.rules else { return Ok(()) };
        if rules.policy.begin().await? {
            rules.seen.add_permits(1);
            rules.in_force.add_permits(1);
        }
        Ok(())
    }

    /// Takes out the rules of an earlier worker that kept tenants apart, where this one does not.
    ///
    /// # Errors
    /// The kernel or nft refuses it.
    pub async fn clear_away(&self) -> Result<(), selvedge_netsetup::Error> {
        match &self.rules {
            Some(_) => Ok(()),
            None => self.kernel.withdraw().await,
        }
    }

    /// A container is about to run: returns when the kernel knows it.
    ///
    /// # Errors
    /// The kernel or nft refuses it.
    pub async fn admit(&self, record: &Record, aliases: &[IpAddr]) -> Result<(), selvedge_netsetup::Error> {
        let Some(rules) = &self.rules else { return Ok(()) };
        rules.put(record, aliases);
        let _ = rules.in_force.acquire().await;
        rules.policy.apply().await
    }

    /// A container runs, or is called something else: the kernel will know soon.
    pub fn note(&self, record: &Record, aliases: &[IpAddr]) {
        if let Some(rules) = &self.rules {
            rules.put(record, aliases);
            rules.noted.notify_one();
        }
    }

    /// A container has ended.
    pub fn dismiss(&self, id: &str) {
        if let Some(rules) = &self.rules {
            rules.policy.remove(id);
            rules.refusals.people().ended(id);
            rules.noted.notify_one();
        }
    }

    /// Takes in which addresses are hosts' own.
    pub fn hosts(&self, own: Option<Ipv4Addr>, view: &View) {
        // Before the registry has been read, what an earlier worker knew is better.
        let Some(rules) = self.rules.as_ref().filter(|_| view.read) else { return };
        let others = view.peers.iter().filter_map(|peer| first_address(&peer.blocks, rules.block_size));
        rules.policy.set_hosts(&others.chain(own).collect::<BTreeSet<_>>());
        rules.noted.notify_one();
    }

    /// Another host's container runs: the kernel will know when what was noted is [in force](Self::in_force).
    pub(crate) fn came(&self, record: &Record) {
        if let Some(rules) = &self.rules {
            rules.policy.put(&record.id, party(record, &[]));
            rules.refusals.people().came(record);
        }
    }

    /// It has ended.
    pub(crate) fn gone(&self, id: &str, record: Option<&Record>) {
        if let Some(rules) = &self.rules {
            record.into_iter().for_each(|record| rules.refusals.people().gone(record));
            rules.policy.remove(id);
        }
    }

    /// All containers of this host have been seen: what is not known may be refused.
    pub(crate) fn all_seen(&self) {
        if let Some(rules) = &self.rules {
            rules.seen.add_permits(1);
        }
    }

    /// Waits until they have, or an earlier worker had.
    pub(crate) async fn seen(&self) {
        if let Some(rules) = &self.rules {
            let _ = rules.seen.acquire().await;
        }
    }

    /// Puts rules in force for the first time. Also when it fails: a container that waits to be admitted is told the reason.
    pub(crate) async fn begin_to_apply(&self) {
        if let Some(rules) = &self.rules {
            rules.apply_once().await;
            rules.in_force.add_permits(1);
        }
    }

    /// Reads what was counted before this worker.
    pub(crate) async fn begin_to_count(&self) {
        if let Some(rules) = &self.rules {
            rules.refusals.begin(&*rules.policy).await;
            lock(&rules.told).begin(rules.refusals.counted());
        }
    }

    /// Returns when all that was noted is in force, however long the kernel refuses it.
    pub(crate) async fn in_force(&self) {
        let Some(rules) = &self.rules else { return };
        while !rules.apply_once().await {
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Returns when something was noted that is not in the kernel yet.
    pub(crate) async fn noted(&self) {
        match &self.rules {
            Some(rules) => rules.noted.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Puts it in force; or it is noted again.
    pub(crate) async fn apply(&self) {
        let Some(rules) = &self.rules else { return };
        if !rules.apply_once().await {
            tokio::time::sleep(RETRY).await;
            rules.noted.notify_one();
        }
    }

    /// Checks for outside changes. `all`: all containers of all hosts are known. With a cluster, the log and the other hosts
    /// are told what was refused.
    pub(crate) async fn look(&self, all: bool, count: Option<&Cluster>) {
        let Some(rules) = &self.rules else { return };
        if all {
            let _ = rules.policy.settled().await;
        }
        rules.check().await;
        rules.refusals.forget_reused(&*rules.policy).await;
        if let Some(cluster) = count {
            rules.refusals.tell(&*rules.policy).await;
            rules.report(cluster);
        }
        rules.refusals.write_down(&*rules.policy).await;
    }

    /// What would be changed in the kernel to make it right, one line each.
    ///
    /// # Errors
    /// The kernel or nft does not say.
    pub async fn plan(&self) -> Result<Vec<String>, selvedge_netsetup::Error> {
        match &self.rules {
            Some(rules) => rules.policy.plan().await,
            None => Ok(Vec::new()),
        }
    }

    /// Takes another host's letter, if it is a report.
    pub(crate) async fn hear(&self, peer: &PeerView, letter: &str) {
        let (Some(rules), Some(mut refused)) = (&self.rules, reports::parse(letter)) else { return };
        refused.retain(|heard| reports::concerns(peer, &heard.refusal));
        rules.refusals.hear(&peer.name, refused);
        rules.refusals.write_down(&*rules.policy).await;
    }

    /// For `selvedge status`.
    pub fn status(&self) -> PolicyStatus {
        let Some(rules) = &self.rules else {
            return PolicyStatus { mode: "open".to_owned(), ..PolicyStatus::default() };
        };
        let (refused, refused_more) = rules.refusals.shown();
        let trouble = rules.trouble.reason();
        PolicyStatus { mode: "tenant".to_owned(), trouble, refused, refused_more }
    }
}

impl Rules {
    /// A container of this host.
    fn put(&self, record: &Record, aliases: &[IpAddr]) {
        self.policy.put(&record.id, party(record, aliases));
        self.refusals.people().put(record, aliases);
    }

    async fn apply_once(&self) -> bool {
        let outcome = self.policy.apply().await;
        self.trouble.found(outcome)
    }

    async fn check(&self) {
        let outcome = self.policy.check().await.map(|repaired| {
            if repaired > 0 {
                warn!(repaired, "our rules in the kernel were changed from outside; restored");
            }
        });
        self.trouble.found(outcome);
    }

    /// Reports to other hosts what was refused between their containers and ours.
    fn report(&self, cluster: &Cluster) {
        let view = Arc::clone(&cluster.views().borrow());
        self.refusals.hear_only(|host| view.peers.iter().any(|peer| peer.name == host));
        let due = lock(&self.told).due(&self.refusals.counted(), &view.peers);
        for report in due {
            tokio::spawn(send(report, cluster.address(), Arc::clone(&self.told)));
        }
    }
}

async fn send(report: Report, own: IpAddr, told: Arc<Mutex<Told>>) {
    if let Err(error) = report.send(own).await {
        debug!(host = report.host, %error, "cannot report to it what was refused to its containers");
        lock(&told).forget(&report.host);
    }
}
