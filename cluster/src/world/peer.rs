//! One other host.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::Ipv4Addr;

use crate::key::{HostInfo, read_record};
use crate::names::Others;

/// How many probes a host must leave unanswered before it counts as dead.
const MISSES: u8 = 2;

/// What is known of one host.
#[derive(Debug)]
pub(crate) struct Peer {
    name: String,
    pub(crate) info: Option<HostInfo>,
    pub(crate) info_deleted: bool,
    /// Its workers, by their sessions.
    instances: HashSet<String>,
    /// Whether its names are answered.
    alive: bool,
    /// Whether it has ever answered a probe: a host behind a firewall must not count as dead for not answering.
    pub(crate) proved: bool,
    misses: u8,
    /// Its records by the container's short id, the newest last. There are two for a moment when a name changes.
    records: HashMap<String, Vec<String>>,
    /// Records missing from the registry that are kept until their host publishes again.
    held_over: HashSet<String>,
    /// Records that were known before the registry was read again.
    before: HashSet<String>,
    strays: BTreeSet<Ipv4Addr>,
}

impl Peer {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            info: None,
            info_deleted: false,
            instances: HashSet::new(),
            alive: false,
            proved: false,
            misses: 0,
            records: HashMap::new(),
            held_over: HashSet::new(),
            before: HashSet::new(),
            strays: BTreeSet::new(),
        }
    }

    /// Whether the registry says that it is alive.
    pub(crate) fn is_live(&self) -> bool {
        !self.instances.is_empty()
    }

    /// Whether its names are answered.
    pub(crate) fn is_alive(&self) -> bool {
        self.alive
    }

    /// Whether the registry does not say that it is alive, and it has left our own probes unanswered.
    pub(crate) fn is_dead(&self) -> bool {
        !self.is_live() && !self.alive && self.misses >= MISSES
    }

    /// Whether nothing is known of it any more.
    pub(crate) fn is_nothing(&self) -> bool {
        !self.alive
            && self.instances.is_empty()
            && self.records.is_empty()
            && (self.info.is_none() || self.info_deleted)
    }

    pub(crate) fn containers(&self) -> usize {
        self.records.len()
    }

    /// All records of its containers.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &String> {
        self.records.values().flatten()
    }

    pub(crate) fn strays(&self) -> Vec<Ipv4Addr> {
        self.strays.iter().copied().collect()
    }

    /// The registry is about to be read again.
    pub(crate) fn begin_anew(&mut self) {
        self.instances.clear();
        self.info_deleted = true;
        self.before = self.records.values().flatten().cloned().collect();
    }

    /// The registry has been read: records missing from it are gone if the host is there to say so, and held over
    /// otherwise.
    pub(crate) fn finish_anew(&mut self, names: &mut dyn Others) {
        let missing = std::mem::take(&mut self.before);
        if self.is_live() || !self.alive {
            missing.iter().for_each(|text| _ = self.release(text, names));
        } else {
            self.held_over.extend(missing);
        }
    }

    /// A worker of the host has registered; returns whether it is the first.
    pub(crate) fn comes(&mut self, instance: &str, names: &mut dyn Others) -> bool {
        let first = self.instances.is_empty();
        self.instances.insert(instance.to_owned());
        self.misses = 0;
        self.revive(names);
        if first {
            let over = std::mem::take(&mut self.held_over);
            over.iter().for_each(|text| _ = self.release(text, names));
        }
        first
    }

    /// A worker of the host is gone. Its names stay until the host has been probed.
    pub(crate) fn goes(&mut self, instance: &str) {
        self.instances.remove(instance);
        self.misses = 0;
    }

    /// Records the result of a probe; returns whether that changed anything.
    pub(crate) fn asked(&mut self, answered: bool, names: &mut dyn Others) -> bool {
        if answered {
            self.proved = true;
            self.misses = 0;
            return self.revive(names);
        }
        self.misses = self.misses.saturating_add(1);
        if self.misses < MISSES || !self.alive {
            return false;
        }
        self.alive = false;
        let over = std::mem::take(&mut self.held_over);
        over.iter().for_each(|text| _ = self.release(text, names));
        for id in self.records.keys() {
            names.remove(&format!("{}/{id}", self.name));
        }
        true
    }

    /// Whether to probe it: the registry says nothing about it (`cut_off`: about any host).
    pub(crate) fn is_suspect(&self, cut_off: bool) -> bool {
        match cut_off {
            true => self.proved,
            false => !self.is_live(),
        }
    }

    fn revive(&mut self, names: &mut dyn Others) -> bool {
        if std::mem::replace(&mut self.alive, true) {
            return false;
        }
        for text in self.records.values().filter_map(|texts| texts.last()) {
            put(names, &self.name, text);
        }
        true
    }

    /// Adds a record.
    pub(crate) fn hold(&mut self, text: &str, names: &mut dyn Others) {
        self.before.remove(text);
        self.held_over.remove(text);
        let Some((id, _)) = text.split_once(';') else { return };
        let texts = self.records.entry(id.to_owned()).or_default();
        if texts.iter().any(|known| known == text) {
            return;
        }
        texts.push(text.to_owned());
        if self.alive {
            put(names, &self.name, text);
        }
    }

    /// Removes a record; returns whether a route went with it.
    pub(crate) fn release(&mut self, text: &str, names: &mut dyn Others) -> bool {
        self.held_over.remove(text);
        let Some((id, _)) = text.split_once(';') else { return false };
        let Some(texts) = self.records.get_mut(id) else { return false };
        texts.retain(|known| known != text);
        let gone = read_record(&self.name, text);
        match texts.last() {
            Some(newest) if self.alive => put(names, &self.name, newest),
            Some(_) => {}
            None => {
                self.records.remove(id);
                names.remove(&format!("{}/{id}", self.name));
            }
        }
        let others =
            self.records.get(id).into_iter().flatten().filter_map(|text| read_record(&self.name, text));
        let still =
            gone.as_ref().is_some_and(|gone| others.into_iter().any(|other| other.address == gone.address));
        gone.is_some_and(|gone| !still && self.strays.remove(&gone.address))
    }

    /// Sets whether an address needs a route of its own; returns whether that changed.
    pub(crate) fn set_stray(&mut self, address: Ipv4Addr, is_stray: bool) -> bool {
        match is_stray {
            true => self.strays.insert(address),
            false => self.strays.remove(&address),
        }
    }

    /// Whether any address needs a route of its own.
    pub(crate) fn has_strays(&self) -> bool {
        !self.strays.is_empty()
    }

    /// Finds the containers that need a route of their own.
    pub(crate) fn sort_strays(&mut self, is_stray: impl Fn(Ipv4Addr) -> bool) {
        let texts = self.records.values().flatten();
        let addresses = texts.filter_map(|text| read_record(&self.name, text)).map(|record| record.address);
        self.strays = addresses.filter(|address| is_stray(*address)).collect();
    }
}

fn put(names: &mut dyn Others, host: &str, text: &str) {
    if let Some(record) = read_record(host, text) {
        names.put(record);
    }
}
