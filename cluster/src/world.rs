//! What is known of the other hosts: the registry's content, and what is kept of it while the registry is away.
//!
//! Pure: news go in, the table of names and a [`View`] come out. The one rule: no host is forgotten for want of news. A
//! host that the registry no longer reports as alive is probed; only when it does not answer either are its names
//! removed. Its blocks stay its own until they are freed explicitly.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::key::{Claim, HostInfo, Key, Settings, read_record};
use crate::names::Others;
use crate::store::News;
use crate::view::{PeerView, View};

mod blocks;
mod peer;
mod vips;
pub(crate) use peer::Peer;
pub(crate) use vips::{Vips, Way};

/// The owner of a block that was given back: its key has this value for the moment until its deletion, so that other
/// hosts can tell giving back from a deletion by a third party.
pub(crate) const UNOWNED: &str = "";
/// The owner of a block that is handed out in smaller ones. No host can have this name.
pub(crate) const SPLIT: &str = "/";

/// What the registry holds of this host's own.
#[derive(Debug, Default)]
pub(crate) struct OwnInStore {
    pub(crate) records: HashSet<String>,
    pub(crate) instances: HashSet<String>,
    pub(crate) info: Option<String>,
}

/// Everything.
pub(crate) struct World {
    me: String,
    names: Box<dyn Others>,
    pub(crate) settings: Option<Settings>,
    pub(crate) own: OwnInStore,
    pub(crate) peers: BTreeMap<String, Peer>,
    /// The owner of each part of the pool; includes owners that an emptied registry does not know any more.
    pub(crate) blocks: BTreeMap<Ipv4Net, String>,
    pub(crate) claims: HashMap<Ipv4Addr, Claim>,
    pub(crate) vips: Vips,
    /// Since when hosts have been away, according to the registry.
    pub(crate) gone: BTreeMap<String, u64>,
    /// Whether the view has changed since it was last built.
    pub(crate) changed: bool,
    /// Whether the registry has been read at all.
    pub(crate) read: bool,
    /// Blocks missing from the registry whose hosts have not given them back.
    held_over: BTreeSet<Ipv4Net>,
    /// Blocks that are handed out in smaller ones.
    pub(crate) split: BTreeSet<Ipv4Net>,
    /// Blocks that their hosts have given back, and whose keys still exist.
    pub(crate) given_back: BTreeSet<Ipv4Net>,
    /// While everything is read, strays are sorted once at the end.
    in_bulk: bool,
}

impl World {
    pub(crate) fn new(me: &str, names: Box<dyn Others>) -> Self {
        Self {
            me: me.to_owned(),
            names,
            settings: None,
            own: OwnInStore::default(),
            peers: BTreeMap::new(),
            blocks: BTreeMap::new(),
            claims: HashMap::new(),
            vips: Vips::default(),
            gone: BTreeMap::new(),
            changed: true,
            read: false,
            held_over: BTreeSet::new(),
            split: BTreeSet::new(),
            given_back: BTreeSet::new(),
            in_bulk: false,
        }
    }

    /// Takes news in.
    pub(crate) fn take(&mut self, news: News) {
        match news {
            News::All(all) => self.all(all),
            News::Put(key, value) => {
                if let Some(key) = Key::parse(&key) {
                    self.put(&key, &value);
                }
            }
            News::Gone(key) => {
                if let Some(key) = Key::parse(&key) {
                    self.remove(&key);
                }
            }
        }
    }

    fn all(&mut self, all: Vec<(String, String)>) {
        let keys: Vec<(Key, String)> =
            all.into_iter().filter_map(|(key, value)| Some((Key::parse(&key)?, value))).collect();
        let settings = keys.iter().find(|(key, _)| *key == Key::Settings);
        let settings: Option<Settings> = settings.and_then(|(_, value)| serde_json::from_str(value).ok());
        let epoch = |settings: &Option<Settings>| settings.as_ref().map(|settings| settings.epoch.clone());
        // The registry has been emptied since: a host that is missing has only not registered again yet.
        let emptied = self.read && epoch(&settings) != epoch(&self.settings);
        self.settings = settings;
        self.own = OwnInStore::default();
        self.claims.clear();
        self.gone.clear();
        let blocks = std::mem::take(&mut self.blocks);
        let vips = std::mem::take(&mut self.vips);
        self.held_over.clear();
        self.given_back.clear();
        self.split.clear();
        self.in_bulk = true;
        for peer in self.peers.values_mut() {
            peer.begin_anew();
        }
        // Live hosts come last: this ends what was held over for them.
        let (live, others): (Vec<_>, Vec<_>) =
            keys.into_iter().partition(|(key, _)| matches!(key, Key::Live { .. }));
        for (key, value) in others.iter().chain(&live) {
            self.put(key, value);
        }
        if emptied {
            self.vips.hold_over(&vips);
            self.hold_over(blocks);
        }
        self.finish_anew();
        self.read = true;
        self.changed = true;
    }

    fn finish_anew(&mut self) {
        let names: Vec<String> = self.peers.keys().cloned().collect();
        for name in names {
            self.on_peer(&name, Peer::finish_anew);
        }
        self.peers.retain(|_, peer| !peer.is_nothing());
        self.in_bulk = false;
        self.sort_strays(|_, _| true);
    }

    /// Applies a key that exists.
    pub(crate) fn put(&mut self, key: &Key, value: &str) {
        match key {
            Key::Settings => self.settings = serde_json::from_str(value).ok(),
            Key::Host(host) if *host == self.me => self.own.info = Some(value.to_owned()),
            Key::Host(host) => {
                let info: Option<HostInfo> = serde_json::from_str(value).ok();
                self.on_peer(host, |peer, _| {
                    peer.info = info.or(peer.info.take());
                    peer.info_deleted = false;
                });
                self.changed = true;
            }
            Key::Live { host, instance } if *host == self.me => {
                self.own.instances.insert(instance.clone());
            }
            Key::Live { host, instance } => {
                let came = self.on_peer(host, |peer, names| peer.comes(instance, names));
                if came {
                    self.end_hold_over(host);
                }
                self.changed = true;
            }
            Key::Block(block) => self.put_block(*block, value),
            Key::Address(address) => {
                if let Ok(claim) = serde_json::from_str(value) {
                    self.claims.insert(*address, claim);
                }
            }
            Key::Vip(address) => {
                self.vips.put(*address, value);
                self.changed = true;
            }
            Key::Record { host, text } if *host == self.me => {
                self.own.records.insert(text.clone());
            }
            Key::Record { host, text } => {
                self.on_peer(host, |peer, names| peer.hold(text, names));
                self.stray(host, text);
            }
            Key::Gone(host) => {
                self.gone.insert(host.clone(), value.parse().unwrap_or(u64::MAX));
            }
        }
    }

    /// Applies the deletion of a key.
    pub(crate) fn remove(&mut self, key: &Key) {
        match key {
            Key::Settings => self.settings = None,
            Key::Host(host) if *host == self.me => self.own.info = None,
            Key::Host(host) => {
                // What the host said stays in use while it is alive.
                self.on_peer(host, |peer, _| peer.info_deleted = true);
                self.drop_nobody(host);
            }
            Key::Live { host, instance } if *host == self.me => _ = self.own.instances.remove(instance),
            Key::Live { host, instance } => {
                self.on_peer(host, |peer, _| peer.goes(instance));
                self.changed = true;
            }
            Key::Block(block) => self.remove_block(*block),
            Key::Address(address) => _ = self.claims.remove(address),
            Key::Vip(address) => {
                self.vips.remove(*address);
                self.changed = true;
            }
            Key::Record { host, text } if *host == self.me => _ = self.own.records.remove(text),
            Key::Record { host, text } => {
                let stray = self.on_peer(host, |peer, names| peer.release(text, names));
                self.changed |= stray;
                self.drop_nobody(host);
            }
            Key::Gone(host) => _ = self.gone.remove(host),
        }
    }

    /// Records whether a host answered a probe; returns whether that changed anything. `cut_off`: the registry
    /// currently says nothing about any host.
    pub(crate) fn asked(&mut self, host: &str, answered: bool, cut_off: bool) -> bool {
        let Some(peer) = self.peers.get(host) else { return false };
        // The registry takes precedence: a firewall may stand between us.
        if !answered && !peer.is_suspect(cut_off) {
            return false;
        }
        let changed = self.on_peer(host, |peer, names| peer.asked(answered, names));
        self.changed |= changed;
        changed
    }

    fn on_peer<T>(&mut self, host: &str, change: impl FnOnce(&mut Peer, &mut dyn Others) -> T) -> T {
        let peer = self.peers.entry(host.to_owned()).or_insert_with(|| Peer::new(host));
        change(peer, self.names.as_mut())
    }

    fn drop_nobody(&mut self, host: &str) {
        if self.peers.get(host).is_some_and(Peer::is_nothing) {
            self.peers.remove(host);
            self.changed = true;
        }
    }

    fn stray(&mut self, host: &str, text: &str) {
        if self.in_bulk {
            return;
        }
        let Some(record) = read_record(host, text) else { return };
        let is_stray = self.owner_of(record.address) != Some(host);
        if let Some(peer) = self.peers.get_mut(host) {
            self.changed |= peer.set_stray(record.address, is_stray);
        }
    }

    /// After a change of blocks: sorts out which containers of these peers are outside of them.
    fn sort_strays(&mut self, concerns: impl Fn(&str, &Peer) -> bool) {
        self.changed = true;
        if self.in_bulk {
            return;
        }
        let blocks = by_host(&self.blocks);
        for (name, peer) in self.peers.iter_mut().filter(|(name, peer)| concerns(name, peer)) {
            let own = blocks.get(name.as_str()).map_or(&[][..], Vec::as_slice);
            peer.sort_strays(|address| !own.iter().any(|block| block.contains(&address)));
        }
    }

    /// The names of virtual addresses that any container stands behind. Reads all records: for when no address is free.
    pub(crate) fn vips_in_use(&self, by_tenant: bool) -> HashSet<String> {
        let own = self.own.records.iter().map(|text| (self.me.as_str(), text));
        let others =
            self.peers.iter().flat_map(|(host, peer)| peer.texts().map(|text| (host.as_str(), text)));
        let names = |(host, text): (&str, &String)| {
            let record = read_record(host, text)?;
            let tenant = by_tenant.then(|| record.tenant());
            Some(record.traits.vips.iter().map(|vip| vip.key(tenant)).collect::<Vec<_>>())
        };
        own.chain(others).filter_map(names).flatten().collect()
    }

    /// Everything that a worker needs if it starts while the registry is away, as keys and values.
    pub(crate) fn dump(&self) -> Vec<(String, String)> {
        let mut all = Vec::new();
        let mut write = |key: Key, value: String| all.push((key.to_string(), value));
        if let Some(settings) = &self.settings {
            write(Key::Settings, serde_json::to_string(settings).unwrap_or_default());
        }
        for (block, host) in &self.blocks {
            write(Key::Block(*block), host.clone());
        }
        for block in &self.split {
            write(Key::Block(*block), SPLIT.to_owned());
        }
        for (address, claim) in &self.claims {
            write(Key::Address(*address), claim.text());
        }
        for (address, name) in self.vips.iter() {
            write(Key::Vip(address), name.to_owned());
        }
        for (name, peer) in &self.peers {
            if let Some(info) = &peer.info {
                write(Key::Host(name.clone()), serde_json::to_string(info).unwrap_or_default());
            }
            for text in peer.texts() {
                write(Key::Record { host: name.clone(), text: text.clone() }, String::new());
            }
            if peer.is_alive() {
                write(Key::Live { host: name.clone(), instance: "recalled".to_owned() }, String::new());
            }
        }
        all
    }

    /// The part of all this that others may see.
    pub(crate) fn view(&self) -> View {
        let blocks = by_host(&self.blocks);
        let peer = |(name, peer): (&String, &Peer)| PeerView {
            name: name.clone(),
            info: peer.info.clone(),
            registered: peer.is_live(),
            alive: peer.is_alive(),
            blocks: blocks.get(name.as_str()).cloned().unwrap_or_default(),
            strays: peer.strays(),
            containers: peer.containers(),
        };
        let peers = self.peers.iter().map(peer).collect();
        View { peers, vips: self.vips.by_name(), ..View::default() }
    }
}

fn by_host(blocks: &BTreeMap<Ipv4Net, String>) -> HashMap<&str, Vec<Ipv4Net>> {
    let mut sorted: HashMap<&str, Vec<Ipv4Net>> = HashMap::new();
    for (block, host) in blocks {
        sorted.entry(host).or_default().push(*block);
    }
    sorted
}

#[cfg(test)]
mod tests;
