//! Saves the registry's content, for a worker that starts while the registry is away.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::Member;
use crate::recall::{Recall, Remembered};
use crate::store::{News, Store};

impl<S: Store + 'static> Member<S> {
    /// Starts with what this host had and with what an earlier worker saved, and saves there what it learns.
    pub(crate) fn recalling(mut self, remembered: Remembered) -> Self {
        self.own.blocks.extend(remembered.blocks);
        let Some(recall) = remembered.memory.map(Recall::new) else { return self };
        if let Some(all) = recall.load() {
            info!(keys = all.len(), "loaded the last known state of the registry");
            self.world.take(News::All(all));
            self.own.yield_to(&self.world, &self.identity.host);
        }
        self.recall = Some(recall);
        self
    }

    /// Saves what is known, spending no more than a hundredth of the time on it.
    pub(super) fn save(&mut self) {
        let Some(recall) = self.recall.as_ref().filter(|_| self.unsaved && Instant::now() >= self.save_at)
        else {
            return;
        };
        let began = Instant::now();
        if let Err(error) = recall.save(self.world.dump().into_iter()) {
            warn!(%error, "cannot save the state of the registry");
        }
        self.unsaved = false;
        self.save_at = Instant::now() + (began.elapsed() * 100).max(Duration::from_millis(500));
    }
}
