//! Writes down what the registry says, for a worker that begins when there is none.

use std::fs::File;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::Member;
use crate::recall::Recall;
use crate::store::{News, Store};

impl<S: Store + 'static> Member<S> {
    /// Begins with what an earlier worker wrote down there, and writes down there what it learns.
    pub(crate) fn recalling(mut self, memory: Option<File>) -> Self {
        let Some(recall) = memory.map(Recall::new) else { return self };
        if let Some(all) = recall.load() {
            info!(keys = all.len(), "what the registry said last is known");
            self.world.take(News::All(all));
            self.own.yield_to(&self.world, &self.identity.host);
        }
        self.recall = Some(recall);
        self
    }

    /// Writes down what is known, but spends no more than a hundredth of the time on it.
    pub(super) fn save(&mut self) {
        let Some(recall) = self.recall.as_ref().filter(|_| self.unsaved && Instant::now() >= self.save_at)
        else {
            return;
        };
        let began = Instant::now();
        if let Err(error) = recall.save(self.world.dump().into_iter()) {
            warn!(%error, "cannot write down what the registry said");
        }
        self.unsaved = false;
        self.save_at = Instant::now() + (began.elapsed() * 100).max(Duration::from_millis(500));
    }
}
