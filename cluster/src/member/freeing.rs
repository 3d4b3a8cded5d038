//! Frees what dead hosts hold: by itself after a long time, or when an operator asks for it.
//!
//! Must never free what a host may still use: a host that is alive, according to the registry or to its own answer, is
//! refused.

use futures_util::future::LocalBoxFuture;
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::key::{Claim, Key};
use crate::member::{Done, Member};
use crate::probe;
use crate::store::{Lifetime, Store, StoreError, Writer};
use crate::world::World;

impl<S: Store + 'static> Member<S> {
    /// Forgets a host at an operator's request, unless it is alive.
    pub(crate) fn forget(
        &self,
        writer: S::Writer,
        host: String,
        reply: oneshot::Sender<Result<(), String>>,
    ) -> LocalBoxFuture<'static, Done> {
        if let Some(why) = self.lives(&host) {
            let _ = reply.send(Err(why));
            return Box::pin(async { Done::Nothing });
        }
        let keys = keys_of(&self.world, &host);
        let peer = self.world.peers.get(&host);
        let address = peer.and_then(|peer| peer.info.as_ref()).map(|info| (info.address, info.port));
        Box::pin(async move {
            let answers = match address {
                Some(address) => probe::answers(address.into()).await,
                None => false,
            };
            let _ = reply.send(match answers {
                true => Err(format!("host {host} answers: it may still run containers")),
                false => delete_all(&writer, &host, keys).await.map_err(|error| error.to_string()),
            });
            Done::Nothing
        })
    }

    fn lives(&self, host: &str) -> Option<String> {
        if host == self.identity.host {
            return Some(format!("{host} is this host"));
        }
        match self.world.peers.get(host) {
            None if keys_of(&self.world, host).is_empty() => Some(format!("the registry has no host {host}")),
            Some(peer) if peer.is_live() => {
                Some(format!("host {host} is alive, according to the registry: it may still run containers"))
            }
            _ => None,
        }
    }

    /// Records since when hosts have been away, and frees what long-gone ones hold.
    pub(crate) fn look_for_the_gone(&mut self, now: u64) {
        for (host, peer) in &self.world.peers {
            let dead = peer.is_dead();
            let key = Key::Gone(host.clone());
            let text = key.to_string();
            let job: LocalBoxFuture<'static, Done> = match (dead, self.world.gone.get(host)) {
                _ if self.is_busy(&text) => continue,
                (true, None) => {
                    info!(host, "host is away");
                    self.note(key, Some(now.to_string()))
                }
                // Another host declared it dead, and it is not: its time starts over.
                (false, Some(_)) if peer.is_live() || peer.is_alive() => self.note(key, None),
                (true, Some(since)) if now.saturating_sub(*since) >= self.identity.free_after.as_secs() => {
                    warn!(host, "host has been away for too long: its blocks, addresses and names are free");
                    self.free(host.clone())
                }
                _ => continue,
            };
            self.begin(text, job);
            // One at a time is fast enough for a process that takes a day.
            return;
        }
    }

    fn note(&self, key: Key, value: Option<String>) -> LocalBoxFuture<'static, Done> {
        let Some(writer) = self.writer() else { return Box::pin(async { Done::Nothing }) };
        Box::pin(async move {
            let text = key.to_string();
            let result = match value {
                Some(value) => writer.create(&text, &value, Lifetime::Forever).await.map(|_| Some(value)),
                None => writer.delete(&text, None).await.map(|_| None),
            };
            Done::Saw { key, result }
        })
    }

    fn free(&self, host: String) -> LocalBoxFuture<'static, Done> {
        let keys = keys_of(&self.world, &host);
        let Some(writer) = self.writer() else { return Box::pin(async { Done::Nothing }) };
        Box::pin(async move {
            let result = delete_all(&writer, &host, keys).await.map(|()| None);
            Done::Saw { key: Key::Gone(host), result }
        })
    }
}

/// All keys of a host, each with the value that makes it the host's; its blocks come last, as they are what others
/// want.
fn keys_of(world: &World, host: &str) -> Vec<(Key, Option<String>)> {
    let mut keys = Vec::new();
    if let Some(peer) = world.peers.get(host) {
        let record = |text: &String| (Key::Record { host: host.to_owned(), text: text.clone() }, None);
        keys.extend(peer.texts().map(record));
    }
    let own = world.claims.iter().filter(|(_, claim): &(_, &Claim)| claim.host == host);
    keys.extend(own.map(|(address, claim)| (Key::Address(*address), Some(claim.text()))));
    let blocks = world.blocks.iter().filter(|(_, owner)| *owner == host);
    keys.extend(blocks.map(|(block, _)| (Key::Block(*block), Some(host.to_owned()))));
    keys
}

async fn delete_all<W: Writer>(
    writer: &W,
    host: &str,
    keys: Vec<(Key, Option<String>)>,
) -> Result<(), StoreError> {
    let last = [Key::Host(host.to_owned()), Key::Gone(host.to_owned())].map(|key| (key, None));
    for (key, value) in keys.into_iter().chain(last) {
        writer.delete(&key.to_string(), value.as_deref()).await?;
    }
    Ok(())
}
