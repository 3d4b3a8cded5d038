//! A registry in memory: for a single host, which needs no other, and for tests of what must hold with any registry.
//!
//! Must behave as the real servers do; the behaviour suite runs against all three.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{Lifetime, News, Reader, Store, StoreError, Writer};

/// The keys. Clones share the same registry.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    keys: BTreeMap<String, (String, Option<u64>)>,
    watchers: Vec<UnboundedSender<News>>,
    sessions: u64,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Plain data: a panic leaves nothing half done that matters.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn tell(&mut self, news: &News) {
        self.watchers.retain(|watcher| watcher.send(news.clone()).is_ok());
    }

    fn remove(&mut self, key: &str) {
        if self.keys.remove(key).is_some() {
            self.tell(&News::Gone(key.to_owned()));
        }
    }
}

/// The writing half; the session ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct MemoryWriter {
    memory: Memory,
    session: Arc<Session>,
}

#[derive(Debug)]
struct Session {
    memory: Memory,
    number: u64,
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut inner = self.memory.lock();
        let mine = |(key, (_, session)): (&String, &(String, Option<u64>))| {
            (*session == Some(self.number)).then(|| key.clone())
        };
        let keys: Vec<String> = inner.keys.iter().filter_map(mine).collect();
        keys.iter().for_each(|key| inner.remove(key));
    }
}

/// The reading half.
#[derive(Debug)]
pub struct MemoryReader {
    news: UnboundedReceiver<News>,
}

impl Store for Memory {
    type Writer = MemoryWriter;
    type Reader = MemoryReader;

    async fn open(&mut self) -> Result<(MemoryWriter, MemoryReader), StoreError> {
        let (sender, news) = unbounded_channel();
        let mut inner = self.lock();
        inner.sessions += 1;
        let number = inner.sessions;
        let all = inner.keys.iter().map(|(key, (value, _))| (key.clone(), value.clone())).collect();
        let _ = sender.send(News::All(all));
        inner.watchers.push(sender);
        drop(inner);
        let session = Arc::new(Session { memory: self.clone(), number });
        Ok((MemoryWriter { memory: self.clone(), session }, MemoryReader { news }))
    }
}

impl Writer for MemoryWriter {
    async fn create(&self, key: &str, value: &str, lifetime: Lifetime) -> Result<bool, StoreError> {
        let mut inner = self.memory.lock();
        if inner.keys.contains_key(key) {
            return Ok(false);
        }
        let session = (lifetime == Lifetime::Session).then_some(self.session.number);
        inner.keys.insert(key.to_owned(), (value.to_owned(), session));
        inner.tell(&News::Put(key.to_owned(), value.to_owned()));
        Ok(true)
    }

    async fn get(&self, key: &str) -> Result<Option<String>, StoreError> {
        Ok(self.memory.lock().keys.get(key).map(|(value, _)| value.clone()))
    }

    async fn replace(&self, key: &str, old: &str, new: &str) -> Result<bool, StoreError> {
        let mut inner = self.memory.lock();
        let Some((value, _)) = inner.keys.get_mut(key).filter(|(value, _)| value == old) else {
            return Ok(false);
        };
        new.clone_into(value);
        inner.tell(&News::Put(key.to_owned(), new.to_owned()));
        Ok(true)
    }

    async fn delete(&self, key: &str, value: Option<&str>) -> Result<bool, StoreError> {
        let mut inner = self.memory.lock();
        let is_it = |(found, _): &(String, Option<u64>)| value.is_none_or(|value| found == value);
        let matches = inner.keys.get(key).is_some_and(is_it);
        if matches {
            inner.remove(key);
        }
        Ok(matches)
    }
}

impl Reader for MemoryReader {
    async fn next(&mut self) -> Result<News, StoreError> {
        self.news.recv().await.ok_or_else(|| StoreError::Lost("the registry is gone".to_owned()))
    }
}
