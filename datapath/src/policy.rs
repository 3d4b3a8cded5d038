//! The rules between tenants: tells the kernel of every container of the cluster, before its program runs and before its
//! names are answered here, and sees to it that what it was told stays so.
//!
//! Other hosts' records come through here on their way into the table of names. Nothing of it waits for the registry.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use selvedge_cluster::handle::Cluster;
use selvedge_cluster::names::{Names, Others};
use selvedge_cluster::view::{PeerView, View};
use selvedge_registry::record::Record;
use selvedge_registry::table::SharedTable;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{debug, warn};

use crate::health::Fault;
use crate::host::first_address;
use crate::kernel::RuleTable;
use crate::settings::Settings;
use crate::status::PolicyStatus;
use crate::synced::Synced;

mod lock;
pub mod party;
mod people;
mod refusals;
mod reports;
use lock::{lock, write};
use party::party;
use refusals::Refusals;
use reports::{Report, Told};

/// How often to check for outside changes to our rules.
const LOOK: Duration = Duration::from_secs(1);
/// How often the log, and other hosts, are told who was refused.
const COUNT: Duration = Duration::from_secs(10);
/// How many records of other hosts are taken in by one change of the rules.
const BATCH: usize = 10_000;
/// After which time a change that the kernel refused is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// What keeps tenants apart on this host; nothing while everybody may talk to everybody.
#[derive(Debug)]
pub struct Guard {
    kernel: Arc<dyn RuleTable>,
    rules: Option<Arc<Rules>>,
}

#[derive(Debug)]
struct Rules {
    policy: Arc<dyn RuleTable>,
    table: SharedTable,
    block_size: u8,
    /// Something was noted that is not in the kernel yet.
    noted: Notify,
    /// Opened when all containers have been seen that can be at a start; at once, if there were rules already.
    seen: Semaphore,
    /// Opened when their rules are in force.
    in_force: Semaphore,
    changes: mpsc::UnboundedSender<Change>,
    /// The receiving end, until `keep` takes it.
    received: Mutex<Option<mpsc::UnboundedReceiver<Change>>>,
    refusals: Refusals,
    /// What was reported to other hosts.
    told: Arc<Mutex<Told>>,
    trouble: Fault,
}

/// News of other hosts' containers.
#[derive(Debug)]
enum Change {
    Put(Record),
    Gone(String),
    /// All before this is in force and answered.
    Mark(oneshot::Sender<()>),
}

#[derive(Debug)]
struct Feed(mpsc::UnboundedSender<Change>);

impl Others for Feed {
    fn put(&mut self, record: Record) {
        let _ = self.0.send(Change::Put(record));
    }

    fn remove(&mut self, id: &str) {
        let _ = self.0.send(Change::Gone(id.to_owned()));
    }
}

impl Guard {
    /// What the settings ask for, and the way that names take then. Changes nothing in the kernel.
    pub fn new(settings: &Settings, table: &SharedTable, kernel: Arc<dyn RuleTable>) -> (Self, Names) {
        if !settings.rules.by_tenant {
            return (Self { kernel, rules: None }, Names::at_once(Arc::clone(table)));
        }
        write(table).set_isolated(true);
        let (changes, received) = mpsc::unbounded_channel();
        let names = Names { table: Arc::clone(table), others: Box::new(Feed(changes.clone())) };
        let rules = Rules {
            policy: Arc::clone(&kernel),
            table: Arc::clone(table),
            block_size: settings.block_size,
            noted: Notify::new(),
            seen: Semaphore::new(0),
            in_force: Semaphore::new(0),
            changes,
            received: Mutex::new(Some(received)),
            refusals: Refusals::new(Arc::clone(table)),
            told: Arc::default(),
            trouble: Fault::with("the rules between tenants"),
        };
        (Self { kernel, rules: Some(Arc::new(rules)) }, names)
    }

    /// Goes on with the rules that an earlier worker left. Without such nothing is refused before all containers have been
    /// seen ([`Guard::catch_up`]): connections that there are must not be cut, nor any if this worker never gets so far.
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

    /// Waits until all that has been heard of other hosts is in force and answered, if that does not take long.
    pub async fn catch_up(&self, limit: Duration) {
        let Some(rules) = &self.rules else { return };
        rules.seen.add_permits(1);
        let (done, reached) = oneshot::channel();
        let _ = rules.changes.send(Change::Mark(done));
        if tokio::time::timeout(limit, reached).await.is_err() {
            warn!("the rules of other hosts' containers are not in force yet");
        }
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

/// Keeps the kernel in step, for ever.
pub async fn keep(guard: &Guard, cluster: &Cluster, synced: &Synced) {
    let Some(rules) = &guard.rules else { return };
    let Some(mut received) = lock(&rules.received).take() else { return };
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut batch, mut counted) = (Vec::new(), Instant::now());
    let _ = rules.seen.acquire().await;
    // What was heard of all hosts until now is put in force together.
    while let Ok(change) = received.try_recv() {
        batch.push(change);
    }
    rules.hear(&batch);
    // Also when it fails: a container that waits to be admitted is told the reason.
    rules.apply_once().await;
    rules.in_force.add_permits(1);
    rules.take(std::mem::take(&mut batch)).await;
    rules.refusals.begin(&*rules.policy).await;
    lock(&rules.told).begin(rules.refusals.counted());
    loop {
        tokio::select! {
            some = received.recv_many(&mut batch, BATCH) => match some {
                0 => return,
                _ => rules.take(std::mem::take(&mut batch)).await,
            },
            () = rules.noted.notified() => rules.apply().await,
            _ = look.tick() => {
                if synced.all() {
                    let _ = rules.policy.settled().await;
                }
                rules.look().await;
                rules.refusals.forget_reused(&*rules.policy).await;
                if counted.elapsed() >= COUNT {
                    rules.refusals.tell(&*rules.policy).await;
                    rules.report(cluster);
                    counted = Instant::now();
                }
                rules.refusals.write_down(&*rules.policy).await;
            }
        }
    }
}

impl Rules {
    /// A container of this host.
    fn put(&self, record: &Record, aliases: &[IpAddr]) {
        self.policy.put(&record.id, party(record, aliases));
        self.refusals.people().put(record, aliases);
    }

    /// What the rules are to say of others; and who is gone is not answered for a moment longer.
    fn hear(&self, batch: &[Change]) {
        for change in batch {
            match change {
                Change::Put(record) => {
                    self.policy.put(&record.id, party(record, &[]));
                    self.refusals.people().came(record);
                }
                Change::Gone(id) => {
                    let mut table = write(&self.table);
                    table.get(id).into_iter().for_each(|record| self.refusals.people().gone(record));
                    table.remove(id);
                    self.policy.remove(id);
                }
                Change::Mark(_) => {}
            }
        }
    }

    /// First the rules, then the names.
    async fn take(&self, batch: Vec<Change>) {
        self.hear(&batch);
        // A name whose rules are not in force must not be answered.
        while !self.apply_once().await {
            tokio::time::sleep(RETRY).await;
        }
        let mut table = write(&self.table);
        for change in batch {
            match change {
                Change::Put(record) => _ = table.put(record),
                Change::Gone(id) => _ = table.remove(&id),
                Change::Mark(done) => _ = done.send(()),
            }
        }
    }

    async fn apply(&self) {
        if !self.apply_once().await {
            tokio::time::sleep(RETRY).await;
            self.noted.notify_one();
        }
    }

    async fn apply_once(&self) -> bool {
        let outcome = self.policy.apply().await;
        self.trouble.found(outcome)
    }

    async fn look(&self) {
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
