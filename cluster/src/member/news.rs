//! Takes news in: updates the world, and checks whether the news concerns what is ours.

use std::net::Ipv4Addr;

use tracing::info;

use super::Member;
use crate::key::{HostInfo, Key, Settings};
use crate::store::{News, Store, StoreError};
use crate::view::Registry;

impl<S: Store + 'static> Member<S> {
    pub(super) fn news(&mut self, news: Result<News, StoreError>) {
        let news = match news {
            Ok(news) => news,
            Err(error) => return self.lost(error),
        };
        if let News::All(all) = &news
            && let Err(why) = self.agrees(all)
        {
            return self.lost(StoreError::Refused(why));
        }
        let all = matches!(news, News::All(_));
        if let News::Put(key, _) | News::Gone(key) = &news {
            self.dirty |= self.is_own(key);
        }
        let reserved = address_of(&news);
        self.world.take(news);
        self.unsaved = true;
        if all {
            self.read_all();
            // At once: a worker that is killed a moment later has a successor, and the registry may be gone by then.
            self.save();
        } else if let Some(address) = reserved {
            self.heed(address);
        }
    }

    /// Whether this key belongs to this host: a change by others is checked.
    pub(super) fn is_own(&self, key: &str) -> bool {
        let host = &self.identity.host;
        match Key::parse(key) {
            Some(
                Key::Host(name)
                | Key::Gone(name)
                | Key::Live { host: name, .. }
                | Key::Record { host: name, .. },
            ) => name == *host,
            // A part of it may be ours.
            Some(Key::Block(block)) => self.own.blocks.iter().any(|own| block.contains(own)),
            Some(Key::Address(address)) => self.own.addresses.contains_key(&address),
            Some(Key::Vip(_)) => self.own.has_vips(),
            Some(Key::Settings) => true,
            None => false,
        }
    }

    pub(super) fn read_all(&mut self) {
        if self.state != Registry::Connected {
            info!(hosts = self.world.peers.len() + 1, "connected to the registry");
        }
        self.state = Registry::Connected;
        self.own.yield_to(&self.world, &self.identity.host);
        self.dirty = true;
        self.heed_all();
    }

    /// Whether this host may take part in a registry with this content; checked before any of it is used.
    fn agrees(&self, all: &[(String, String)]) -> Result<(), String> {
        let value = |key: &Key| {
            let key = key.to_string();
            all.iter().find(|(found, _)| *found == key).map(|(_, value)| value.as_str())
        };
        let settings = value(&Key::Settings).and_then(|text| serde_json::from_str::<Settings>(text).ok());
        match settings {
            Some(settings) if settings.pool != self.identity.pool => Err(format!(
                "this registry is for the pool {}, and this host has --pool {}",
                settings.pool, self.identity.pool
            )),
            Some(settings) if settings.block_size != self.identity.block_size => Err(format!(
                "this registry is for blocks of /{}, and this host has --block-size {}",
                settings.block_size, self.identity.block_size
            )),
            Some(Settings { vips: Some(vips), .. }) if self.identity.vips.is_some_and(|own| own != vips) => {
                let own = self.identity.vips.map(|own| own.to_string()).unwrap_or_default();
                Err(format!(
                    "this registry has virtual addresses in {vips}, and this host has --vip-range {own}"
                ))
            }
            _ => self.is_alone_with_its_name(value(&Key::Host(self.identity.host.clone())), all),
        }
    }

    /// A host that was cloned together with its name would fight the original for every key.
    fn is_alone_with_its_name(&self, info: Option<&str>, all: &[(String, String)]) -> Result<(), String> {
        let told = info.and_then(|text| serde_json::from_str::<HostInfo>(text).ok());
        let elsewhere =
            told.map(|info| info.address).filter(|address| *address != self.identity.info.address);
        let Some(address) = elsewhere else { return Ok(()) };
        let is_another = |key: &str| match Key::parse(key) {
            Some(Key::Live { host, instance }) => {
                host == self.identity.host && instance != self.identity.instance
            }
            _ => false,
        };
        match all.iter().any(|(key, _)| key.starts_with("live/") && is_another(key)) {
            true => Err(format!(
                "another host, at {address}, is also called {}; give one of them another --host-name",
                self.identity.host
            )),
            false => Ok(()),
        }
    }
}

fn address_of(news: &News) -> Option<Ipv4Addr> {
    let (News::Put(key, _) | News::Gone(key)) = news else { return None };
    match Key::parse(key) {
        Some(Key::Address(address)) => Some(address),
        _ => None,
    }
}
