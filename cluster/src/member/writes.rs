//! Makes the registry true of this host: compares, writes the difference, and looks at what became of it.

use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;

use super::{AT_ONCE, Change, Done, Member};
use crate::key::Key;
use crate::store::{Store, StoreError, Writer};
use crate::view::Registry;

/// After which time a request that failed is made again.
const RETRY: Duration = Duration::from_millis(500);
/// After which time it is looked again whether an address is left for a virtual one.
const LATER: Duration = Duration::from_secs(2);

impl<S: Store + 'static> Member<S> {
    /// Writes what is not yet so in the registry.
    pub(super) fn assert(&mut self) {
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        let Some((writer, _)) = self.link.as_ref().filter(|_| self.state == Registry::Connected) else {
            return;
        };
        self.own.yield_to(&self.world, &self.identity.host);
        let mut changes = self.own.difference(&self.world, &self.identity, Instant::now());
        if self.own.lacks_vips {
            self.retry_at.get_or_insert_with(|| Instant::now() + LATER);
        }
        if changes.is_empty() && self.busy.is_empty() {
            // Last of all: who sees us alive may believe that what he reads of us is all.
            changes.extend(self.own.presence(&self.world, &self.identity));
        }
        for change in changes {
            let key = change.key().to_string();
            // The others come when some of these are done, each of which looks anew.
            if self.busy.len() >= AT_ONCE {
                break;
            }
            if self.busy.insert(key) {
                self.jobs.push(Box::pin(write(writer.clone(), change)));
            }
        }
    }

    pub(super) fn wrote(&mut self, change: &Change, result: Result<bool, StoreError>) {
        self.busy.remove(&change.key().to_string());
        self.dirty = true;
        match (change, result) {
            (Change::Create(key, value, _), Ok(true)) | (Change::Replace(key, _, value), Ok(true)) => {
                self.world.put(key, value);
            }
            (Change::Delete(key, _), Ok(_)) => self.world.remove(key),
            // The news of why it could not be is on its way, and may be late: then it is tried again.
            (Change::Create(..) | Change::Replace(..), Ok(false)) => self.look_again(change.key().clone()),
            (_, Err(error)) => self.failed(error),
        }
    }

    /// A request was not answered, or refused. Whether the registry is lost, the reader finds out: a request may belong to
    /// a connection that has been replaced since.
    fn failed(&mut self, error: StoreError) {
        self.dirty = false;
        match error {
            StoreError::Lost(why) => {
                debug!(why, "a request failed; trying again");
                self.retry_at = Some(Instant::now() + RETRY);
            }
            refused @ StoreError::Refused(_) => self.lost(refused),
        }
    }

    /// Reads one key anew: somebody was there before us.
    pub(super) fn look_again(&mut self, key: Key) {
        let Some((writer, _)) = &self.link else { return };
        let writer = writer.clone();
        self.busy.insert(key.to_string());
        self.jobs.push(Box::pin(async move {
            let result = writer.get(&key.to_string()).await;
            Done::Saw { key, result }
        }));
    }

    pub(super) fn saw(&mut self, key: &Key, result: Result<Option<String>, StoreError>) {
        self.busy.remove(&key.to_string());
        self.dirty = true;
        match result {
            Ok(Some(value)) => self.world.put(key, &value),
            Ok(None) => self.world.remove(key),
            Err(error) => self.failed(error),
        }
    }
}

async fn write<W: Writer>(writer: W, change: Change) -> Done {
    let key = change.key().to_string();
    let result = match &change {
        Change::Create(_, value, lifetime) => writer.create(&key, value, *lifetime).await,
        Change::Replace(_, old, new) => writer.replace(&key, old, new).await,
        Change::Delete(_, value) => writer.delete(&key, value.as_deref()).await,
    };
    Done::Wrote { change, result }
}
