//! Work that no news triggers: probing suspect hosts, and failing claims that waited too long.

use tokio::time::Instant;

use super::claims::refuse;
use super::{Done, Member, unix_time};
use crate::probe;
use crate::store::Store;

impl<S: Store + 'static> Member<S> {
    /// Does the work that no news triggers: probes suspect hosts, and fails claims that waited too long.
    pub(super) fn look_around(&mut self) {
        let now = Instant::now();
        let connected = self.is_connected();
        for pending in std::mem::take(&mut self.waiting) {
            match connected {
                true => self.claim(pending),
                false if now >= pending.until => refuse(pending.command, &self.state),
                false => self.waiting.push(pending),
            }
        }
        if self.retry_at.take_if(|at| now >= *at).is_some() || self.own.has_orphans() {
            self.dirty = true;
        }
        self.probe_suspects(now, !connected);
        self.save();
        if connected {
            self.look_for_the_gone(unix_time());
        }
    }

    pub(super) fn probe_suspects(&mut self, now: Instant, cut_off: bool) {
        let mut due = Vec::new();
        for (name, peer) in &self.world.peers {
            let Some(info) = peer.info.as_ref().filter(|_| peer.is_suspect(cut_off) || !peer.proved) else {
                continue;
            };
            if self.ask_at.get(name).is_none_or(|at| now >= *at) {
                due.push((name.clone(), std::net::SocketAddr::new(info.address, info.port), peer.is_alive()));
            }
        }
        self.ask_at.retain(|name, _| self.world.peers.contains_key(name));
        for (host, address, alive) in due.into_iter().take(probe::AT_ONCE) {
            self.ask_at.insert(host.clone(), now + probe::pause(alive, cut_off));
            self.jobs.push(Box::pin(async move {
                Done::Probed { answered: probe::answers(address).await, host }
            }));
        }
    }
}
