//! The connection to the registry: opened when there is none, dropped when it is lost, retried after a pause.

use tokio::time::Instant;
use tracing::{debug, warn};

use super::{LONGEST_PAUSE, Member, Opened, SHORTEST_PAUSE};
use crate::store::{Store, StoreError};
use crate::view::Registry;

impl<S: Store + 'static> Member<S> {
    /// Tries to connect to the registry, if there is no connection and the time has come.
    pub(super) fn begin_to_open(&mut self) {
        if self.link.is_some() || Instant::now() < self.again {
            return;
        }
        if let Some(mut store) = self.store.take() {
            self.opening = Some(Box::pin(async move {
                let opened = store.open().await;
                (store, opened)
            }));
        }
    }

    pub(super) fn opened(&mut self, (store, opened): Opened<S>) {
        self.opening = None;
        self.store = Some(store);
        match opened {
            Ok(link) => {
                self.link = Some(link);
                self.pause = SHORTEST_PAUSE;
            }
            Err(error) => self.lost(error),
        }
    }

    pub(super) fn lost(&mut self, error: StoreError) {
        let state = match error {
            StoreError::Lost(why) => Registry::Away(why),
            StoreError::Refused(why) => Registry::Refused(why),
        };
        match &state {
            _ if self.state == state => {}
            Registry::Away(why) if self.state == Registry::Connected => {
                warn!(why, "lost the registry; the last known state stays in use");
            }
            Registry::Refused(why) => warn!(why, "the registry refuses this host"),
            _ => debug!(?state, "cannot reach the registry"),
        }
        self.state = state;
        self.link = None;
        self.busy.clear();
        self.world.changed = true;
        self.again = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}
