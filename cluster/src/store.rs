//! What is asked of a registry's server: a few keys, news of their changes, and keys that go with a session.
//!
//! Knows nothing of what the keys mean but which need reading. Must never wait for ever: whoever implements this
//! gives up after [`PATIENCE`], and whoever calls it opens anew.

use std::future::Future;
use std::time::Duration;

pub mod etcd;
pub mod memory;
pub mod zookeeper;

/// How long any one request may take before the server is taken for lost.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Why a server could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No server answers, or not in time: what was asked may or may not have been done.
    #[error("{0}")]
    Lost(String),
    /// It answers, and refuses: credentials, certificates, rights, a server that is too old.
    #[error("{0}")]
    Refused(String),
}

/// What there is, or what changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// All keys with their values: comes first, and again whenever changes may have been missed.
    All(Vec<(String, String)>),
    /// A key is there, with this value.
    Put(String, String),
    /// A key is not there any more.
    Gone(String),
}

/// For how long a key stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// Until somebody deletes it.
    Forever,
    /// As long as the session that made it: some seconds longer than its process.
    Session,
}

/// A registry's servers.
pub trait Store {
    /// The way to write.
    type Writer: Writer;
    /// The way to read.
    type Reader: Reader;

    /// Begins a session with any server that answers.
    ///
    /// # Errors
    /// [`StoreError`]; to be tried again after a pause.
    fn open(&mut self) -> impl Future<Output = Result<(Self::Writer, Self::Reader), StoreError>>;
}

/// Changes keys. Whatever fails with [`StoreError::Lost`] may have been done all the same.
pub trait Writer: Clone {
    /// Makes a key that is not there; whether it was made.
    ///
    /// # Errors
    /// [`StoreError`].
    fn create(
        &self,
        key: &str,
        value: &str,
        lifetime: Lifetime,
    ) -> impl Future<Output = Result<bool, StoreError>>;

    /// The value of a key as all see it after our last change.
    ///
    /// # Errors
    /// [`StoreError`].
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<String>, StoreError>>;

    /// Gives a key that has the value `old` another one; whether it had.
    ///
    /// # Errors
    /// [`StoreError`].
    fn replace(&self, key: &str, old: &str, new: &str) -> impl Future<Output = Result<bool, StoreError>>;

    /// Deletes a key, if it has the value given; whether it was there and had.
    ///
    /// # Errors
    /// [`StoreError`].
    fn delete(&self, key: &str, value: Option<&str>) -> impl Future<Output = Result<bool, StoreError>>;
}

/// Brings news.
pub trait Reader {
    /// The next news; the first is [`News::All`]. Safe to be dropped while waiting.
    ///
    /// # Errors
    /// [`StoreError`]: the session is over, its keys will go.
    fn next(&mut self) -> impl Future<Output = Result<News, StoreError>>;
}

/// Gives up in time.
async fn in_time<T>(what: &str, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(result) => result,
        Err(_) => Err(StoreError::Lost(format!("no answer to {what} within {PATIENCE:?}"))),
    }
}

/// How a registry's servers are reached.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Servers {
    /// `HOST:PORT` of each.
    pub endpoints: Vec<String>,
    /// The folder in which all keys of ours are, with a slash at its beginning and none at its end.
    pub prefix: String,
    /// User and password.
    pub user: Option<(String, String)>,
    /// PEM: who may have signed the servers' certificates. TLS is spoken when this is there.
    pub ca: Option<String>,
    /// PEM: our own certificate and its key.
    pub identity: Option<(String, String)>,
    /// How long a session outlives its process.
    pub session: Duration,
}

impl std::fmt::Debug for Servers {
    /// Without password and key: this may get into a log.
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
