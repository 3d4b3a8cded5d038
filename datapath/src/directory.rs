//! The table of names, and the only one that writes it: the containers of this host, those of the others, and virtual
//! addresses. Rules come first, then names; a name goes before its rules do.
//!
//! Must never make other hosts wait: with rules, their records queue up until the kernel has taken those.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use selvedge_cluster::handle::Cluster;
use selvedge_cluster::names::Others;
use selvedge_registry::error::Error;
use selvedge_registry::record::Record;
use selvedge_registry::shared::{SharedTable, TableWriter};
use selvedge_registry::table::Table;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::warn;

use crate::kernel::RuleTable;
use crate::policy::Policy;
use crate::policy::lock::lock;
use crate::settings::Settings;
use crate::synced::Synced;

/// How often to check for outside changes to our rules.
const LOOK: Duration = Duration::from_secs(1);
/// How often the log, and other hosts, are told who was refused.
const COUNT: Duration = Duration::from_secs(10);
/// How many records of other hosts are taken in by one change of the rules.
const BATCH: usize = 10_000;

/// The names.
#[derive(Debug)]
pub struct Directory {
    names: TableWriter,
    /// The rules between tenants.
    pub policy: Policy,
    /// Other hosts' records on their way; nothing where there are no rules to wait for.
    queue: Option<Queue>,
}

#[derive(Debug)]
struct Queue {
    sender: mpsc::UnboundedSender<News>,
    /// Until `keep` takes it.
    receiver: Mutex<Option<mpsc::UnboundedReceiver<News>>>,
}

/// News of other hosts' containers.
#[derive(Debug)]
enum News {
    Put(Record),
    Gone(String),
    /// All before this is in force and answered.
    Mark(oneshot::Sender<()>),
}

#[derive(Debug)]
struct Queued(mpsc::UnboundedSender<News>);

impl Others for Queued {
    fn put(&mut self, record: Record) {
        let _ = self.0.send(News::Put(record));
    }

    fn remove(&mut self, id: &str) {
        let _ = self.0.send(News::Gone(id.to_owned()));
    }
}

#[derive(Debug)]
struct AtOnce(Arc<Directory>);

impl Others for AtOnce {
    fn put(&mut self, record: Record) {
        // The host of the container has already reported invalid names.
        let _ = self.0.names.write().put(record);
    }

    fn remove(&mut self, id: &str) {
        self.0.names.write().remove(id);
    }
}

impl Directory {
    /// No names are known but those of the table. Changes nothing in the kernel.
    pub fn new(settings: &Settings, mut table: Table, kernel: Arc<dyn RuleTable>) -> Self {
        table.set_isolated(settings.rules.by_tenant);
        let names = TableWriter::new(table);
        let policy = Policy::new(settings, names.reader(), kernel);
        let queue = settings.rules.by_tenant.then(|| {
            let (sender, receiver) = mpsc::unbounded_channel();
            Queue { sender, receiver: Mutex::new(Some(receiver)) }
        });
        Self { names, policy, queue }
    }

    /// The names, to be looked up.
    pub fn names(&self) -> SharedTable {
        self.names.reader()
    }

    /// Where other hosts' records go.
    pub fn others(self: &Arc<Self>) -> Box<dyn Others> {
        match &self.queue {
            Some(queue) => Box::new(Queued(queue.sender.clone())),
            None => Box::new(AtOnce(Arc::clone(self))),
        }
    }

    /// A container of this host runs, or is called something else. The kernel will know its rules soon; where it must know them
    /// before, that was [`Policy::admit`]'s part. Gives back what is wrong with names that are left out.
    pub(crate) fn put(&self, record: Record, aliases: &[IpAddr]) -> Vec<Error> {
        self.policy.note(&record, aliases);
        self.names.write().put(record)
    }

    /// A container of this host has ended; whether it had names.
    pub(crate) fn remove(&self, id: &str) -> bool {
        let had = self.names.write().remove(id);
        self.policy.dismiss(id);
        had
    }

    /// Waits until all that has been heard of other hosts is in force and answered, if that does not take long. All
    /// containers of this host have been seen.
    pub async fn catch_up(&self, limit: Duration) {
        let Some(queue) = &self.queue else { return };
        self.policy.all_seen();
        let (done, reached) = oneshot::channel();
        let _ = queue.sender.send(News::Mark(done));
        if tokio::time::timeout(limit, reached).await.is_err() {
            warn!("the rules of other hosts' containers are not in force yet");
        }
    }

    /// Keeps rules, and the names that wait for them, in step for ever.
    pub(crate) async fn keep(&self, cluster: &Cluster, synced: &Synced) {
        let Some(queue) = &self.queue else { return };
        let Some(mut received) = lock(&queue.receiver).take() else { return };
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut batch, mut counted) = (Vec::new(), Instant::now());
        self.policy.seen().await;
        // What was heard of all hosts until now is put in force together.
        while let Ok(news) = received.try_recv() {
            batch.push(news);
        }
        self.hear(&batch);
        self.policy.begin_to_apply().await;
        self.take(std::mem::take(&mut batch)).await;
        self.policy.begin_to_count().await;
        loop {
            tokio::select! {
                some = received.recv_many(&mut batch, BATCH) => match some {
                    0 => return,
                    _ => self.take(std::mem::take(&mut batch)).await,
                },
                () = self.policy.noted() => self.policy.apply().await,
                _ = look.tick() => {
                    let is_due = counted.elapsed() >= COUNT;
                    self.policy.look(synced.all(), is_due.then_some(cluster)).await;
                    if is_due {
                        counted = Instant::now();
                    }
                }
            }
        }
    }

    /// What the rules are to say of others; and one that is gone is not answered for a moment longer.
    fn hear(&self, batch: &[News]) {
        for news in batch {
            match news {
                News::Put(record) => self.policy.came(record),
                News::Gone(id) => {
                    let mut names = self.names.write();
                    let had = names.get(id).cloned();
                    names.remove(id);
                    drop(names);
                    self.policy.gone(id, had.as_ref());
                }
                News::Mark(_) => {}
            }
        }
    }

    /// First the rules, then the names.
    async fn take(&self, batch: Vec<News>) {
        self.hear(&batch);
        self.policy.in_force().await;
        let mut names = self.names.write();
        for news in batch {
            match news {
                News::Put(record) => _ = names.put(record),
                News::Gone(id) => _ = names.remove(&id),
                News::Mark(done) => _ = done.send(()),
            }
        }
    }

    /// The kernel leads connections to these virtual addresses: their names may be answered.
    pub(crate) fn answer(&self, vips: impl Iterator<Item = Record>) {
        let mut names = self.names.write();
        for error in vips.flat_map(|record| names.put(record)) {
            warn!(%error, "the name of a virtual address is left out");
        }
    }

    /// It will not much longer: their names, by the ids of their records, are no longer answered.
    pub(crate) fn deny(&self, vips: impl Iterator<Item = String>) {
        let mut names = self.names.write();
        vips.for_each(|id| _ = names.remove(&id));
    }

    /// Has a listener told of each change that concerns virtual addresses.
    pub(crate) fn on_vips(&self, listener: impl Fn() + Send + Sync + 'static) {
        self.names.write().on_vips(listener);
    }

    /// Another host's container takes no new connections, whatever its record says.
    pub(crate) fn stand_aside(&self, id: &str) {
        self.names.write().stand_aside(id);
    }

    /// It takes them as its record says.
    pub(crate) fn no_longer_aside(&self, id: &str) {
        self.names.write().no_longer_aside(id);
    }

    /// Whether names of other hosts are known: before, what we do not know cannot be denied.
    pub(crate) fn set_known(&self, known: bool) {
        self.names.write().set_partial(!known);
    }

    /// The hosts' own addresses by their names, for Mesos' names of them.
    pub(crate) fn set_hosts(&self, hosts: HashMap<Box<str>, Ipv4Addr>) {
        self.names.write().set_hosts(hosts);
    }
}
