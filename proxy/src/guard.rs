//! Who may talk to whom: tells the kernel of every container of the cluster, before its program runs and before its
//! names are answered here, and sees to it that what it was told stays so.
//!
//! Other hosts' records come through here on their way into the table of names. Nothing of it waits for the registry.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use selvedge_cluster::names::{Names, Others};
use selvedge_cluster::view::View;
use selvedge_netsetup::policy::{Policy, PolicySettings, Refused};
use selvedge_registry::record::Record;
use selvedge_registry::table::{SharedTable, Table};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::warn;

use crate::config::Config;
use crate::fabric::first_address;
use crate::trouble::Trouble;
use crate::worker::{Worker, group};

pub(crate) mod party;
use party::party;

/// How often it is looked whether somebody has changed the rules.
const LOOK: Duration = Duration::from_secs(1);
/// How often it is told who was refused, and of how many pairs at most.
const COUNT: Duration = Duration::from_secs(10);
const TOLD: usize = 10;
/// How many records of other hosts are taken in by one change of the rules.
const BATCH: usize = 10_000;
/// After which time a change that the kernel refused is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// What keeps tenants apart on this host; nothing while everybody may talk to everybody.
#[derive(Debug)]
pub(crate) struct Guard {
    rules: Option<Rules>,
}

#[derive(Debug)]
struct Rules {
    policy: Policy,
    table: SharedTable,
    block_size: u8,
    /// Something was noted that is not in the kernel yet.
    noted: Notify,
    /// Opened when all containers have been seen that can be at a start; at once, if there were rules already.
    seen: Semaphore,
    /// Opened when their rules are in force.
    in_force: Semaphore,
    changes: mpsc::UnboundedSender<Change>,
    /// The other end, until somebody follows it.
    received: Mutex<Option<mpsc::UnboundedReceiver<Change>>>,
    /// Whose addresses on the engine's networks are: the container's id, and its address on ours.
    aliases: Mutex<HashMap<IpAddr, (String, Ipv4Addr)>>,
    /// Who was refused, as the kernel said last.
    refused: Mutex<HashMap<(IpAddr, IpAddr), u64>>,
    trouble: Trouble,
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

/// Who was refused by whom, and how often in the last day.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub(crate) struct Pair {
    /// The caller's tenant, or its address if it is none of ours.
    pub(crate) from: String,
    /// The called container's tenant.
    pub(crate) to: String,
    /// Packets.
    pub(crate) packets: u64,
}

impl Guard {
    /// What the settings ask for, and the way that names take then. Changes nothing in the kernel.
    pub(crate) fn new(config: &Config, table: &SharedTable) -> (Self, Names) {
        if !config.policy.tenants {
            return (Self { rules: None }, Names::at_once(Arc::clone(table)));
        }
        write(table).set_isolated(true);
        let (changes, received) = mpsc::unbounded_channel();
        let names = Names { table: Arc::clone(table), others: Box::new(Feed(changes.clone())) };
        let rules = Rules {
            policy: Policy::new(settings(config)),
            table: Arc::clone(table),
            block_size: config.block_size,
            noted: Notify::new(),
            seen: Semaphore::new(0),
            in_force: Semaphore::new(0),
            changes,
            received: Mutex::new(Some(received)),
            aliases: Mutex::default(),
            refused: Mutex::default(),
            trouble: Trouble::with("the rules between tenants"),
        };
        (Self { rules: Some(rules) }, names)
    }

    /// Goes on with the rules that an earlier worker left. Without such nothing is refused before all containers have been
    /// seen ([`Guard::catch_up`]): connections that there are must not be cut, nor any if this worker never gets so far.
    ///
    /// # Errors
    /// The kernel or nft refuses it.
    pub(crate) async fn begin(&self) -> Result<(), selvedge_netsetup::Error> {
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
    pub(crate) async fn clear_away(&self, config: &Config) -> Result<(), selvedge_netsetup::Error> {
        match &self.rules {
            Some(_) => Ok(()),
            None => Policy::new(settings(config)).withdraw().await,
        }
    }

    /// A container is about to run: returns when the kernel knows it.
    ///
    /// # Errors
    /// The kernel or nft refuses it.
    pub(crate) async fn admit(
        &self,
        record: &Record,
        aliases: &[IpAddr],
    ) -> Result<(), selvedge_netsetup::Error> {
        let Some(rules) = &self.rules else { return Ok(()) };
        rules.put(record, aliases);
        let _ = rules.in_force.acquire().await;
        rules.policy.apply().await
    }

    /// A container runs, or is called something else: the kernel will know soon.
    pub(crate) fn note(&self, record: &Record, aliases: &[IpAddr]) {
        if let Some(rules) = &self.rules {
            rules.put(record, aliases);
            rules.noted.notify_one();
        }
    }

    /// A container has ended.
    pub(crate) fn dismiss(&self, id: &str) {
        if let Some(rules) = &self.rules {
            rules.policy.remove(id);
            lock(&rules.aliases).retain(|_, (owner, _)| owner != id);
            rules.noted.notify_one();
        }
    }

    /// Takes in which addresses are hosts' own.
    pub(crate) fn hosts(&self, own: Option<Ipv4Addr>, view: &View) {
        // Before the registry has been read, what an earlier worker knew is better.
        let Some(rules) = self.rules.as_ref().filter(|_| view.read) else { return };
        let others = view.peers.iter().filter_map(|peer| first_address(&peer.blocks, rules.block_size));
        rules.policy.set_hosts(&others.chain(own).collect::<BTreeSet<_>>());
        rules.noted.notify_one();
    }

    /// Waits until all that has been heard of other hosts is in force and answered, if that does not take long.
    pub(crate) async fn catch_up(&self, limit: Duration) {
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
    pub(crate) async fn plan(&self) -> Result<Vec<String>, selvedge_netsetup::Error> {
        match &self.rules {
            Some(rules) => rules.policy.plan().await,
            None => Ok(Vec::new()),
        }
    }

    /// For `selvedge status`.
    pub(crate) fn status(&self) -> serde_json::Value {
        let Some(rules) = &self.rules else { return serde_json::json!({"mode": "open"}) };
        serde_json::json!({
            "mode": "tenant",
            "trouble": rules.trouble.reason(),
            "refused": rules.pairs(&lock(&rules.refused)),
        })
    }
}

/// Keeps the kernel in step, for ever.
pub(crate) async fn keep(worker: Arc<Worker>) {
    let Some(rules) = &worker.guard.rules else { return };
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
    // Also if it does not work out: whoever is to be admitted is told then.
    rules.apply_once().await;
    rules.in_force.add_permits(1);
    rules.take(std::mem::take(&mut batch)).await;
    rules.count().await;
    loop {
        tokio::select! {
            some = received.recv_many(&mut batch, BATCH) => match some {
                0 => return,
                _ => rules.take(std::mem::take(&mut batch)).await,
            },
            () = rules.noted.notified() => rules.apply().await,
            _ = look.tick() => {
                if worker.all_is_seen() {
                    rules.policy.settled().await;
                }
                rules.look().await;
                if counted.elapsed() >= COUNT {
                    rules.tell().await;
                    counted = Instant::now();
                }
            }
        }
    }
}

impl Rules {
    /// A container of this host.
    fn put(&self, record: &Record, aliases: &[IpAddr]) {
        self.policy.put(&record.id, party(record, aliases));
        let whose = (record.id.clone(), record.address);
        lock(&self.aliases).extend(aliases.iter().map(|alias| (*alias, whose.clone())));
    }

    /// Who has the address: on our network, or on the engine's.
    fn owner<'t>(&self, table: &'t Table, address: IpAddr) -> Option<&'t Record> {
        if let Some((_, address)) = lock(&self.aliases).get(&address) {
            return table.owner(*address);
        }
        match address {
            IpAddr::V4(address) => table.owner(address),
            IpAddr::V6(address) => {
                let [.., a, b, c, d] = address.octets();
                table.pool6()?.contains(&address).then(|| table.owner(Ipv4Addr::new(a, b, c, d)))?
            }
        }
    }

    /// What the rules are to say of others; and who is gone is not answered for a moment longer.
    fn hear(&self, batch: &[Change]) {
        for change in batch {
            match change {
                Change::Put(record) => self.policy.put(&record.id, party(record, &[])),
                Change::Gone(id) => {
                    write(&self.table).remove(id);
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
                warn!(repaired, "somebody had changed our rules in the kernel; they are right again");
            }
        });
        self.trouble.found(outcome);
    }

    /// Asks the kernel who was refused; gives back how many packets more than the last time, by pairs of addresses.
    async fn count(&self) -> Vec<Refused> {
        let Ok(refused) = self.policy.refused().await else { return Vec::new() };
        let now = refused.iter().map(|one| ((one.from, one.to), one.packets)).collect();
        let before = std::mem::replace(&mut *lock(&self.refused), now);
        let more = |one: &Refused| {
            let packets = one.packets.saturating_sub(*before.get(&(one.from, one.to)).unwrap_or(&0));
            (packets > 0).then_some(Refused { packets, ..*one })
        };
        refused.iter().filter_map(more).collect()
    }

    async fn tell(&self) {
        let mut more = self.count().await;
        more.sort_by_key(|one| std::cmp::Reverse(one.packets));
        for Refused { from, to, packets } in more.iter().take(TOLD) {
            let (caller, called) = (self.who(*from), self.who(*to));
            warn!(%from, %to, caller, called, packets, "refused");
        }
        if more.len() > TOLD {
            warn!(pairs = more.len() - TOLD, "refused between more pairs of containers than are told");
        }
    }

    /// `TENANT/NAME`.
    fn who(&self, address: IpAddr) -> String {
        let table = read(&self.table);
        let record = self.owner(&table, address);
        let name = |record: &Record| record.names.first().map(ToString::to_string).unwrap_or_default();
        record.map_or_else(|| "-".to_owned(), |record| format!("{}/{}", record.tenant(), name(record)))
    }

    fn pairs(&self, refused: &HashMap<(IpAddr, IpAddr), u64>) -> Vec<Pair> {
        let table = read(&self.table);
        let tenant = |address: IpAddr| {
            let record = self.owner(&table, address);
            record.map_or_else(|| address.to_string(), |record| record.tenant().to_owned())
        };
        let mut pairs: BTreeMap<(String, String), u64> = BTreeMap::new();
        for ((from, to), packets) in refused {
            *pairs.entry((tenant(*from), tenant(*to))).or_default() += packets;
        }
        pairs.into_iter().map(|((from, to), packets)| Pair { from, to, packets }).collect()
    }
}

fn settings(config: &Config) -> PolicySettings {
    PolicySettings {
        group: group(&config.runtime_dir),
        pool: config.pool,
        pool6: config.pool6,
        dns: config.dns_listen.into(),
        host: config.policy.host,
        published: config.policy.published,
        out: config.policy.out,
        names: config.policy.dns,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write(table: &SharedTable) -> std::sync::RwLockWriteGuard<'_, Table> {
    table.write().unwrap_or_else(PoisonError::into_inner)
}

fn read(table: &SharedTable) -> std::sync::RwLockReadGuard<'_, Table> {
    table.read().unwrap_or_else(PoisonError::into_inner)
}
