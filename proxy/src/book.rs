//! What this worker knows of its containers: a copy of the engine's labels, read anew whenever in doubt.
//!
//! Pure memory. It must never be the only place where something is known: a worker may die at any moment.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::Ipv4Net;
use selvedge_cluster::handle::Reserve;
use selvedge_registry::pool::{AddressBook, AddressError};
use tokio::time::Instant;

use crate::docker::model;
use crate::docker::wording::Failure;
use crate::note::Note;

mod entry;

pub(crate) use entry::{Entry, Phase};

/// Who holds the host's own address.
const HOST: &str = "(none: it is this host's own address)";
/// Who holds an address of ours that a container of another host has: this and the host's name.
const ELSEWHERE: &str = "on host ";

/// Which address a container shall have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Whichever is free.
    Any,
    /// One of a subnet of its own.
    Subnet(Ipv4Net),
    /// This one.
    Address(Ipv4Addr),
}

/// The containers of this Selvedge and the addresses they hold.
#[derive(Debug)]
pub(crate) struct Book {
    runtime: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    entries: HashMap<String, Entry>,
    addresses: AddressBook,
}

/// While it lives, the events of a container's start are left to who waits for it.
#[derive(Debug)]
pub(crate) struct Expected<'a> {
    book: &'a Book,
    id: String,
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.book.with(&self.id, |entry| entry.expected -= 1);
    }
}

impl Book {
    /// An empty book.
    pub(crate) fn new(runtime: PathBuf, pool: Ipv4Net, block_size: u8) -> Self {
        let addresses = AddressBook::new(pool, block_size);
        Self { runtime, inner: Mutex::new(Inner { entries: HashMap::new(), addresses }) }
    }

    // A panic of another task in here leaves plain data behind; nothing is half done that matters.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, id: &str, f: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.lock().entries.get_mut(id).map(f)
    }

    /// Takes the wished or the next free address.
    ///
    /// # Errors
    /// Any [`AddressError`].
    pub(crate) fn take(&self, wish: Wish, holder: &str) -> Result<Ipv4Addr, AddressError> {
        let mut inner = self.lock();
        match wish {
            Wish::Address(address) => inner.addresses.take(address, holder).map(|()| address),
            Wish::Subnet(subnet) => inner.addresses.take_in(subnet, holder),
            Wish::Any => inner.addresses.take_next(holder),
        }
    }

    /// Sets the blocks that this host hands out. `host` is its own address in the pool, which no container gets.
    pub(crate) fn set_blocks(&self, blocks: &[Ipv4Net], host: Option<Ipv4Addr>) {
        let mut inner = self.lock();
        inner.addresses.set_blocks(blocks);
        if let Some(host) = host {
            let _ = inner.addresses.note(host, HOST);
        }
    }

    /// Whether the address lies in a block that this host hands out.
    pub(crate) fn owns(&self, address: Ipv4Addr) -> bool {
        self.lock().addresses.owns(address)
    }

    /// Whether a container could get an address of this subnet now.
    pub(crate) fn has_room_in(&self, subnet: Ipv4Net) -> bool {
        let mut inner = self.lock();
        let taken = inner.addresses.take_in(subnet, HOST);
        taken.is_ok_and(|address| {
            inner.addresses.free(address, HOST);
            true
        })
    }

    /// How many addresses of each block are free.
    pub(crate) fn free_by_block(&self) -> Vec<(Ipv4Net, u32)> {
        self.lock().addresses.free_by_block()
    }

    /// Keeps an address of ours for another host, or lets it go again.
    ///
    /// # Errors
    /// Who has it.
    pub(crate) fn reserve(&self, address: Ipv4Addr, wish: Reserve<'_>) -> Result<(), String> {
        let mut inner = self.lock();
        let holder =
            inner.addresses.holder(address).filter(|holder| holder.starts_with(ELSEWHERE)).map(str::to_owned);
        if let Some(holder) = holder {
            inner.addresses.free(address, &holder);
        }
        match wish {
            Reserve::For(host) => inner.addresses.note(address, &format!("{ELSEWHERE}{host}")),
            Reserve::Free => Ok(()),
        }
    }

    /// After a first look at what there is: leaves room for what an earlier worker is still creating.
    pub(crate) fn leap(&self) {
        // More creates than that at once would queue in the engine.
        const IN_FLIGHT: u32 = 32;
        let mut inner = self.lock();
        if !inner.entries.is_empty() {
            inner.addresses.leap(IN_FLIGHT);
        }
    }

    /// Gives an address back.
    pub(crate) fn free(&self, address: Ipv4Addr, holder: &str) {
        self.lock().addresses.free(address, holder);
    }

    /// Writes down a container that we have just created; `holder` had its address meanwhile.
    pub(crate) fn created(&self, id: &str, holder: &str, name: String, note: Note) {
        let mut inner = self.lock();
        inner.addresses.rename(note.address, holder, id);
        inner.put(id, name, note);
    }

    /// Writes down what the engine says of a container; whether it is one of ours.
    pub(crate) fn learn(&self, container: &model::Container) -> bool {
        let labels = container.config.labels.clone().unwrap_or_default();
        self.learn_labels(&container.id, container.name.trim_start_matches('/'), &labels)
    }

    /// Writes down a container with these labels; whether it is one of ours.
    pub(crate) fn learn_labels(&self, id: &str, name: &str, labels: &HashMap<String, String>) -> bool {
        let Some(note) = Note::read(labels).filter(|note| note.runtime == self.runtime) else { return false };
        let mut inner = self.lock();
        if let Err(other) = inner.addresses.note(note.address, id) {
            // A create of ours whose answer is not yet read holds it under another name: no clash.
            if !other.starts_with("create ") {
                tracing::error!(address = %note.address, container = id, holder = other, "two containers claim one address");
            }
        }
        inner.put(id, name.to_owned(), note);
        true
    }

    /// Drops a container that is gone.
    pub(crate) fn forget(&self, id: &str) {
        let mut inner = self.lock();
        if let Some(entry) = inner.entries.remove(id) {
            inner.addresses.free(entry.note.address, id);
        }
    }

    /// The id of one of ours by id, name or unambiguous prefix of its id, as the engine would find it.
    pub(crate) fn find(&self, reference: &str) -> Option<String> {
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

    /// Renames a container.
    pub(crate) fn rename(&self, id: &str, name: &str) {
        self.with(id, |entry| name.clone_into(&mut entry.name));
    }

    /// A container runs, and this process of it has wire and names.
    pub(crate) fn wired(&self, id: &str, pid: u32) {
        self.with(id, |entry| entry.pid = Some(pid));
        self.set_phase(id, Phase::Wired);
    }

    /// Sets how a container fares.
    pub(crate) fn set_health(&self, id: &str, unhealthy: bool) {
        self.with(id, |entry| entry.unhealthy = unhealthy);
    }

    /// Sets whether a container is paused.
    pub(crate) fn set_paused(&self, id: &str, paused: bool) {
        self.with(id, |entry| entry.paused = paused);
    }

    /// Sets the virtual addresses that a container serves; whether that is news.
    pub(crate) fn set_serving(&self, id: &str, serving: &[String]) -> bool {
        self.with(id, |entry| {
            let is_news = entry.serving != serving;
            entry.serving = serving.to_vec();
            is_news
        })
        .unwrap_or(false)
    }

    /// Says until when a container is taken to be about to stop, or that it is not.
    pub(crate) fn set_draining(&self, id: &str, until: Option<Instant>) {
        self.with(id, |entry| entry.draining = until);
    }

    /// Whether any container stands behind a virtual address.
    pub(crate) fn has_vips(&self) -> bool {
        self.lock().entries.values().any(|entry| !entry.note.vips.is_empty())
    }

    /// The addresses of the containers that are about to be stopped.
    pub(crate) fn draining(&self) -> Vec<Ipv4Addr> {
        let inner = self.lock();
        let draining = inner.entries.values().filter(|entry| entry.draining.is_some());
        let mut addresses: Vec<Ipv4Addr> =
            draining.filter(|entry| entry.phase != Phase::Stopped).map(|entry| entry.note.address).collect();
        addresses.sort_unstable();
        addresses
    }

    /// Writes down what the engine says in a list.
    pub(crate) fn set_listed(&self, container: &model::Listed) {
        self.with(&container.id, |entry| {
            entry.unhealthy = container.is_unhealthy();
            entry.paused = container.state == "paused";
            entry.aliases = container.network_settings.addresses();
        });
    }

    /// Writes down what the engine says of a container's life.
    pub(crate) fn set_life(&self, id: &str, container: &model::Container) {
        self.with(id, |entry| entry.take(container));
    }

    /// Sets how far a container is.
    pub(crate) fn set_phase(&self, id: &str, phase: Phase) {
        self.with(id, |entry| {
            entry.phase = phase;
            if phase == Phase::Wired {
                entry.never_ran = None;
            }
        });
    }

    /// Says that a client waits for a start of this container.
    pub(crate) fn expect_start(&self, id: &str) -> Expected<'_> {
        self.with(id, |entry| entry.expected += 1);
        Expected { book: self, id: id.to_owned() }
    }

    /// A client waits for a start of this container.
    pub(crate) fn is_expected(&self, id: &str) -> bool {
        self.with(id, |entry| entry.expected > 0).unwrap_or(false)
    }

    /// Writes down that a start failed for want of a program.
    pub(crate) fn note_never_ran(&self, id: &str, failure: Failure) {
        self.with(id, |entry| entry.never_ran = Some(failure));
    }

    /// The failure of the last start, if it was for want of a program.
    pub(crate) fn never_ran(&self, id: &str) -> Option<Failure> {
        self.with(id, |entry| entry.never_ran.clone()).flatten()
    }

    /// What is written on a container.
    pub(crate) fn note(&self, id: &str) -> Option<Note> {
        self.with(id, |entry| entry.note.clone())
    }

    /// A copy of what is known of a container.
    pub(crate) fn entry(&self, id: &str) -> Option<Entry> {
        self.with(id, |entry| entry.clone())
    }

    /// All of ours.
    pub(crate) fn all(&self) -> Vec<(String, Entry)> {
        self.lock().entries.iter().map(|(id, entry)| (id.clone(), entry.clone())).collect()
    }

    /// Who holds the turn works on the container; one at a time.
    pub(crate) fn turn(&self, id: &str) -> Option<Arc<tokio::sync::Mutex<()>>> {
        self.with(id, |entry| Arc::clone(&entry.turn))
    }

    /// How many addresses are taken.
    pub(crate) fn addresses_taken(&self) -> usize {
        self.lock().addresses.taken()
    }
}

impl Inner {
    fn put(&mut self, id: &str, name: String, note: Note) {
        match self.entries.get_mut(id) {
            Some(entry) => {
                if !name.is_empty() {
                    entry.name = name;
                }
                entry.note = note;
            }
            None => {
                let entry = Entry::new(name, note);
                self.entries.insert(id.to_owned(), entry);
            }
        }
    }
}
