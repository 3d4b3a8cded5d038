//! What this worker knows of its containers: a copy of the engine's labels, read again whenever in doubt.
//!
//! Pure memory. It must never be the only place where something is known: a worker may die at any moment.

use std::collections::{BTreeMap, HashMap, HashSet, hash_map};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use selvedge_datapath::addresses::{Addresses, Claimant};
use selvedge_engine::model::{self, short};
use selvedge_engine::wording::Failure;
use selvedge_registry::pool::Holder;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::error;

use crate::entry::{Entry, Phase};
use crate::joined::Guest;
use crate::label::{LABEL, Note};

/// When a container was started that never was, as the engine writes it.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// The containers of this Selvedge.
#[derive(Debug)]
pub struct Book {
    runtime: PathBuf,
    inner: Mutex<Inner>,
    /// Told when a start's outcome is known.
    out_of_doubt: Notify,
    /// The addresses that they hold.
    pub(crate) addresses: Arc<Addresses>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<String, Entry>,
    /// Starts that an earlier worker began, of containers that may not be known yet.
    resumed: HashSet<String>,
    /// How many clients wait for a start of a container, which may not be known yet either.
    expected: HashMap<String, u32>,
    /// What a Mesos agent says last of its containers, by their id there: whether they are healthy.
    verdicts: HashMap<String, bool>,
    /// Of how many starts of a container the outcome is not known yet: what the engine says of its state meanwhile is not what
    /// it would say alone.
    doubts: HashMap<String, u32>,
}

fn one_more(counts: &mut HashMap<String, u32>, id: &str) {
    *counts.entry(id.to_owned()).or_default() += 1;
}

fn one_less(counts: &mut HashMap<String, u32>, id: &str) {
    if let hash_map::Entry::Occupied(mut count) = counts.entry(id.to_owned()) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

/// While it lives, the events of a container's start are left to who waits for it.
#[derive(Debug)]
pub struct Expected<'a> {
    book: &'a Book,
    id: String,
}

/// While it lives, the outcome of a container's start is not known.
#[derive(Debug)]
pub struct Doubt<'a> {
    book: &'a Book,
    id: String,
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        one_less(&mut self.book.lock().doubts, &self.id);
        self.book.out_of_doubt.notify_waiters();
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        one_less(&mut self.book.lock().expected, &self.id);
    }
}

impl Book {
    /// An empty book.
    pub fn new(runtime: PathBuf, addresses: Arc<Addresses>) -> Self {
        Self { runtime, inner: Mutex::default(), out_of_doubt: Notify::new(), addresses }
    }

    // A panic of another task in here leaves plain data behind; nothing is half done that matters.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, id: &str, f: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.lock().entries.get_mut(id).map(f)
    }

    /// Changes what is known of a container; gives back how it was, how it is, and what the change does.
    pub(crate) fn change<T>(
        &self,
        id: &str,
        change: impl FnOnce(&mut Entry) -> T,
    ) -> Option<(Entry, Entry, T)> {
        self.with(id, |entry| {
            let before = entry.clone();
            let done = change(entry);
            (before, entry.clone(), done)
        })
    }

    /// Writes down a container that we have just created.
    pub fn created(&self, id: &str, name: String, note: Note) {
        self.put(id, name, note);
        self.with(id, |entry| entry.started = Some(NEVER.to_owned()));
    }

    /// Writes down what the engine says of a container; whether it is one of ours.
    pub fn learn(&self, container: &model::Container) -> bool {
        let name = container.name.trim_start_matches('/').to_owned();
        let labels = container.config.labels.iter().flatten();
        let note = self.note_on(labels.collect(), &container.mounts);
        note.map(|note| self.put(&container.id, name, note)).is_some()
    }

    /// Writes down a container as the engine lists it; whether it is one of ours.
    pub fn learn_listed(&self, container: &model::Listed) -> bool {
        let labels = container.labels.iter().flatten();
        let Some(note) = self.note_on(labels.collect(), &container.mounts) else { return false };
        self.put(&container.id, container.name().to_owned(), note);
        if container.state == "created" {
            self.with(&container.id, |entry| {
                entry.started.get_or_insert_with(|| NEVER.to_owned());
            });
        }
        true
    }

    /// What this Selvedge has written on a container. A label alone proves nothing: an image brings labels along, and so
    /// does a build or a commit; the mount of `wait` can only come from a create, and each create that passes us is ours.
    fn note_on(&self, labels: HashMap<&String, &String>, mounts: &[model::Mount]) -> Option<Note> {
        let note = Note::parse(labels.get(&LABEL.to_owned())?)?;
        let is_wait = |mount: &model::Mount| mount.kind == "bind" && mount.destination == note.wait;
        (note.runtime == self.runtime && mounts.iter().any(is_wait)).then_some(note)
    }

    fn put(&self, id: &str, name: String, note: Note) {
        let refused = self.addresses.learn(claimant(id, &note)).err();
        let mut inner = self.lock();
        let entry = inner.put(id, name, note);
        if let Some(holder) = refused.as_ref().filter(|holder| entry.refused.as_ref() != Some(*holder)) {
            error!(container = short(id), address = %entry.note.address, %holder, "gets no wire: its address is taken");
        }
        entry.refused = refused;
    }

    /// Gives a container that is to run its address.
    ///
    /// # Errors
    /// Who else has it.
    pub fn hold(&self, id: &str) -> Result<(), Holder> {
        let Some(note) = self.note(id) else { return Ok(()) };
        let outcome = self.addresses.hold(claimant(id, &note));
        self.with(id, |entry| entry.refused = outcome.as_ref().err().cloned());
        outcome
    }

    /// A container has ended: an address that its user chose may be another's now.
    pub fn ended(&self, id: &str) {
        if let Some(note) = self.note(id) {
            self.addresses.ended(claimant(id, &note));
        }
    }

    /// Drops a container that is gone.
    pub fn forget(&self, id: &str) {
        let removed = self.lock().entries.remove(id);
        if let Some(entry) = removed {
            self.addresses.removed(claimant(id, &entry.note));
        }
    }

    /// The id of one of ours by id, name or unambiguous prefix of its id, as the engine would find it.
    pub fn find(&self, reference: &str) -> Option<String> {
        let reference = reference.trim_start_matches('/');
        let inner = self.lock();
        if inner.entries.contains_key(reference) {
            return Some(reference.to_owned());
        }
        if let Some((id, _)) =
            inner.entries.iter().find(|(_, entry)| !reference.is_empty() && entry.name == reference)
        {
            return Some(id.clone());
        }
        // A prefix may also be the name or prefix of one that is not ours: only the engine can tell.
        None
    }

    /// What is known of those that have joined a container's network, to be read or changed.
    pub fn guests<T>(&self, id: &str, f: impl FnOnce(&mut BTreeMap<String, Guest>) -> T) -> Option<T> {
        self.with(id, |entry| f(&mut entry.guests))
    }

    /// Whose network this container has joined, by their ids.
    pub fn joined_by(&self, id: &str) -> Option<String> {
        let inner = self.lock();
        inner.entries.iter().find(|(_, entry)| entry.guests.contains_key(id)).map(|(host, _)| host.clone())
    }

    /// Renames a container.
    pub fn rename(&self, id: &str, name: &str) {
        self.with(id, |entry| name.clone_into(&mut entry.name));
    }

    /// A container runs, and this process of it has wire and names.
    pub fn wired(&self, id: &str, pid: u32) {
        self.with(id, |entry| entry.pid = Some(pid));
        self.set_phase(id, Phase::Wired);
    }

    /// Takes in the verdicts of a Mesos agent, by the ids of its containers; those of ours that fare otherwise now, and
    /// whether they are ailing.
    pub fn told(&self, verdicts: HashMap<String, bool>) -> Vec<(String, bool)> {
        let mut inner = self.lock();
        inner.verdicts = verdicts;
        let news = inner.entries.iter().filter_map(|(id, entry)| {
            let ailing = is_ailing(&inner.verdicts, &entry.name);
            (entry.ailing != ailing).then(|| (id.clone(), ailing))
        });
        news.collect()
    }

    /// Sets the virtual addresses that a container serves.
    pub fn set_serving(&self, id: &str, serving: &[String]) {
        self.with(id, |entry| entry.serving = serving.to_vec());
    }

    /// Says until when a container is taken to be about to stop, or that it is not.
    pub fn set_draining(&self, id: &str, until: Option<Instant>) {
        self.with(id, |entry| entry.draining = until);
    }

    /// Whether any container stands behind a virtual address.
    pub fn has_vips(&self) -> bool {
        self.lock().entries.values().any(|entry| !entry.vips().is_empty())
    }

    /// The addresses of the containers that are about to be stopped.
    pub fn draining(&self) -> Vec<Ipv4Addr> {
        let inner = self.lock();
        let draining = inner.entries.values().filter(|entry| entry.draining.is_some());
        let mut addresses: Vec<Ipv4Addr> =
            draining.filter(|entry| entry.phase != Phase::Stopped).map(|entry| entry.note.address).collect();
        addresses.sort_unstable();
        addresses
    }

    /// Writes down what the engine says in a list.
    pub fn set_listed(&self, container: &model::Listed) {
        self.with(&container.id, |entry| {
            entry.unhealthy = container.is_unhealthy();
            entry.paused = container.state == "paused";
            entry.aliases = container.network_settings.addresses();
        });
    }

    /// Writes down what the engine says of a container's life.
    pub fn set_life(&self, id: &str, container: &model::Container) {
        self.with(id, |entry| entry.take(container));
    }

    /// Sets how far a container is.
    pub fn set_phase(&self, id: &str, phase: Phase) {
        self.with(id, |entry| {
            entry.phase = phase;
            if phase == Phase::Wired {
                entry.never_ran = None;
            }
        });
    }

    /// Says that a client waits for a start of this container.
    pub fn expect_start(&self, id: &str) -> Expected<'_> {
        one_more(&mut self.lock().expected, id);
        Expected { book: self, id: id.to_owned() }
    }

    /// Says that a client waits for a start which an earlier worker began, also of a container that is not known yet.
    pub fn expect_resumed(&self, id: &str) {
        self.lock().resumed.insert(id.to_owned());
    }

    /// That start is looked after now.
    pub fn start_resumed(&self, id: &str) {
        self.lock().resumed.remove(id);
    }

    /// Says that the engine starts a container, or has, and that it is not known yet whether there is a program to run.
    pub fn doubt(&self, id: &str) -> Doubt<'_> {
        one_more(&mut self.lock().doubts, id);
        Doubt { book: self, id: id.to_owned() }
    }

    /// Whether the outcome of a start of this container is not known yet.
    pub fn is_in_doubt(&self, id: &str) -> bool {
        self.lock().doubts.contains_key(id)
    }

    /// Waits until the outcome of a container's start is known. The engine makes an inspect wait for a start as well.
    pub async fn out_of_doubt(&self, id: &str) {
        loop {
            // Listening before looking: what is told in between is not missed.
            let told = self.out_of_doubt.notified();
            if !self.is_in_doubt(id) {
                return;
            }
            told.await;
        }
    }

    /// A client waits for a start of this container.
    pub fn is_expected(&self, id: &str) -> bool {
        let inner = self.lock();
        inner.resumed.contains(id) || inner.expected.contains_key(id)
    }

    /// Writes down that a start failed for want of a program.
    pub fn note_never_ran(&self, id: &str, failure: Failure) {
        self.with(id, |entry| entry.never_ran = Some(failure));
    }

    /// The failure of the last start, if it was for want of a program.
    pub fn never_ran(&self, id: &str) -> Option<Failure> {
        self.with(id, |entry| entry.never_ran.clone()).flatten()
    }

    /// What is written on a container.
    pub fn note(&self, id: &str) -> Option<Note> {
        self.with(id, |entry| entry.note.clone())
    }

    /// A copy of what is known of a container.
    pub fn entry(&self, id: &str) -> Option<Entry> {
        self.with(id, |entry| entry.clone())
    }

    /// All of ours.
    pub fn all(&self) -> Vec<(String, Entry)> {
        self.lock().entries.iter().map(|(id, entry)| (id.clone(), entry.clone())).collect()
    }

    /// Who holds the turn works on the container; one at a time.
    pub fn turn(&self, id: &str) -> Option<Arc<tokio::sync::Mutex<()>>> {
        self.with(id, |entry| Arc::clone(&entry.turn))
    }
}

fn claimant<'a>(id: &'a str, note: &Note) -> Claimant<'a> {
    Claimant { id, address: note.address, create: note.create_number(id), fixed: note.fixed }
}

/// What Mesos' Docker containerizer calls a container: `mesos-ID`, and before 1.0 `mesos-AGENT.ID`.
const OF_MESOS: &str = "mesos-";

/// Whether a container's agent says that it is not healthy, or not yet.
fn is_ailing(verdicts: &HashMap<String, bool>, name: &str) -> bool {
    let id = name.strip_prefix(OF_MESOS).and_then(|rest| rest.rsplit('.').next());
    id.and_then(|id| verdicts.get(id)).is_some_and(|healthy| !healthy)
}

impl Inner {
    fn put(&mut self, id: &str, name: String, note: Note) -> &mut Entry {
        match self.entries.entry(id.to_owned()) {
            hash_map::Entry::Occupied(entry) => {
                let entry = entry.into_mut();
                if !name.is_empty() {
                    entry.name = name;
                }
                entry.note = note;
                entry
            }
            hash_map::Entry::Vacant(entry) => {
                let ailing = is_ailing(&self.verdicts, &name);
                entry.insert(Entry { ailing, ..Entry::new(name, note) })
            }
        }
    }
}
