//! The interface to a registry's server: a few keys, news of their changes, and keys that go with a session.
//!
//! Knows nothing of the meaning of keys, except which have a value. Must never wait for ever: an implementation gives
//! up after [`PATIENCE`], and its caller opens a new session.

use std::future::Future;
use std::time::Duration;

#[cfg(feature = "etcd")]
pub mod etcd;
pub mod memory;
#[cfg(feature = "zookeeper")]
pub mod zookeeper;

/// How long a request may take before the server counts as lost.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No server answered in time: the request may or may not have been carried out.
    #[error("{0}")]
    Lost(String),
    /// The server answered and refused: credentials, certificates, permissions, a server that is too old.
    #[error("{0}")]
    Refused(String),
}

/// The current keys, or a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// All keys with their values: comes first, and again whenever changes may have been missed.
    All(Vec<(String, String)>),
    /// A key exists, with this value.
    Put(String, String),
    /// A key is gone.
    Gone(String),
}

/// How long a key stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// Until it is deleted.
    Forever,
    /// As long as the session that created it: some seconds longer than its process.
    Session,
}

/// A registry's servers.
pub trait Store {
    /// The writing half.
    type Writer: Writer;
    /// The reading half.
    type Reader: Reader;

    /// Opens a session with any server that answers.
    ///
    /// # Errors
    /// [`StoreError`]; try again after a pause.
    fn open(&mut self) -> impl Future<Output = Result<(Self::Writer, Self::Reader), StoreError>>;
}

/// Changes keys. A change that fails with [`StoreError::Lost`] may have been made all the same.
pub trait Writer: Clone {
    /// Creates a key that does not exist; returns whether it did.
    ///
    /// # Errors
    /// [`StoreError`].
    fn create(
        &self,
        key: &str,
        value: &str,
        lifetime: Lifetime,
    ) -> impl Future<Output = Result<bool, StoreError>>;

    /// The value of a key as all hosts see it after our last change.
    ///
    /// # Errors
    /// [`StoreError`].
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<String>, StoreError>>;

    /// Replaces a key's value if it is `old`; returns whether it did.
    ///
    /// # Errors
    /// [`StoreError`].
    fn replace(&self, key: &str, old: &str, new: &str) -> impl Future<Output = Result<bool, StoreError>>;

    /// Deletes a key, if it has the given value; returns whether it did.
    ///
    /// # Errors
    /// [`StoreError`].
    fn delete(&self, key: &str, value: Option<&str>) -> impl Future<Output = Result<bool, StoreError>>;
}

/// Reports changes.
pub trait Reader {
    /// The next news; the first is [`News::All`]. Cancel safe.
    ///
    /// # Errors
    /// [`StoreError`]: the session is over, its keys will go.
    fn next(&mut self) -> impl Future<Output = Result<News, StoreError>>;
}

/// Adds the time limit to a request.
#[cfg(any(feature = "etcd", feature = "zookeeper"))]
async fn in_time<T>(what: &str, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(result) => result,
        Err(_) => Err(StoreError::Lost(format!("no answer to {what} within {PATIENCE:?}"))),
    }
}

/// How to reach a registry's servers.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Servers {
    /// `HOST:PORT` of each.
    pub endpoints: Vec<String>,
    /// The folder of all our keys, with a slash at its beginning and none at its end.
    pub prefix: String,
    /// User and password.
    pub user: Option<(String, String)>,
    /// PEM: the authorities that may have signed the servers' certificates. Its presence turns TLS on.
    pub ca: Option<String>,
    /// PEM: our own certificate and its key.
    pub identity: Option<(String, String)>,
    /// How long a session outlives its process.
    pub session: Duration,
}

impl std::fmt::Debug for Servers {
    /// Without password and key: this may end up in a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Servers")
            .field("endpoints", &self.endpoints)
            .field("prefix", &self.prefix)
            .field("user", &self.user.as_ref().map(|(user, _)| user))
            .field("tls", &self.ca.is_some())
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}
