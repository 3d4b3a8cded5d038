//! Brings the registry up to date about this host: compares, writes the difference, and handles the results.

use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;

use super::{AT_ONCE, Done, Member};
use crate::change::Change;
use crate::key::Key;
use crate::store::{Store, StoreError, Writer};
use crate::view::Registry;

/// How long to wait before repeating a failed request.
const RETRY: Duration = Duration::from_millis(500);
/// How long to wait before looking for a free virtual address again.
const LATER: Duration = Duration::from_secs(2);

impl<S: Store + 'static> Member<S> {
    /// Writes what the registry does not have yet.
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
            // Last of all: a host that sees us alive may take what it reads of us as complete.
            changes.extend(self.own.presence(&self.world, &self.identity));
        }
        for change in changes {
            let key = change.key().to_string();
            // The rest follows when some of these are done, each of which compares again.
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
            // The news that explains the refusal is on its way, and may be late: look at the key, then try again.
            (Change::Create(..) | Change::Replace(..), Ok(false)) => self.look_again(change.key().clone()),
            (_, Err(error)) => self.failed(error),
        }
    }

    /// A request was refused, or got no answer. The reader decides whether the registry is lost: the request may belong
    /// to a connection that has been replaced since.
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

    /// Reads one key again: another host was there before us.
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
