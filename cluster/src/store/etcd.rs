//! etcd, API v3: one watch on our prefix from the revision of the first read, one lease for the keys that go with us.
//!
//! One server at a time, and the next one when it is lost: a balanced channel would hide which one does not answer.
//! Asks for a leader with every request, so that a server that was cut off from the others says so instead of staying
//! silent.

use std::collections::VecDeque;
use std::time::Duration;

use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, Error, EventType, GetOptions, Identity,
    LeaseKeepAliveStream, LeaseKeeper, PutOptions, TlsOptions, Txn, TxnOp, WatchOptions, WatchStream,
};
use tokio::time::Instant;

use super::{Lifetime, News, PATIENCE, Reader, Servers, Store, StoreError, Writer, in_time};

/// How many keys one answer may have.
const PAGE: i64 = 5_000;
/// A page of long records, and the news of a busy second, with room to spare (gRPC's own default is 4 MiB).
const MESSAGE: usize = 64 * 1024 * 1024;

/// A cluster.
#[derive(Debug)]
pub struct Etcd {
    servers: Servers,
    turn: usize,
}

impl Etcd {
    /// The cluster; nothing is connected yet.
    #[must_use]
    pub fn new(servers: Servers) -> Self {
        Self { servers, turn: 0 }
    }

    fn options(&self) -> ConnectOptions {
        let beat = self.servers.session / 3;
        let mut options = ConnectOptions::new()
            .with_connect_timeout(PATIENCE / 4)
            .with_keep_alive(beat, beat)
            .with_keep_alive_while_idle(true)
            .with_auto_token_refresh(true)
            .with_require_leader(true);
        if let Some((user, password)) = &self.servers.user {
            options = options.with_user(user, password);
        }
        match &self.servers.ca {
            Some(ca) => options.with_tls(self.tls(ca)),
            None => options,
        }
    }

    fn tls(&self, ca: &str) -> TlsOptions {
        let tls = TlsOptions::new().ca_certificate(Certificate::from_pem(ca));
        match &self.servers.identity {
            Some((certificate, key)) => tls.identity(Identity::from_pem(certificate, key)),
            None => tls,
        }
    }

    async fn begin(&mut self) -> Result<(EtcdWriter, EtcdReader), StoreError> {
        let count = self.servers.endpoints.len().max(1);
        let endpoint = self.servers.endpoints.get(self.turn % count).cloned().unwrap_or_default();
        // The next attempt goes to another server, whatever becomes of this one.
        self.turn += 1;
        let mut client = Client::connect([&endpoint], Some(self.options())).await.map_err(lost)?;
        // Rounded up: a lease counts whole seconds.
        let seconds = i64::try_from(self.servers.session.as_millis().div_ceil(1000)).unwrap_or(i64::MAX);
        let lease = client.lease_grant(seconds, None).await.map_err(lost)?.id();
        let (keeper, kept) = client.lease_keep_alive(lease).await.map_err(lost)?;
        let prefix = format!("{}/", self.servers.prefix);
        let (all, revision) = all(&client, &prefix).await?;
        let options = WatchOptions::new().with_prefix().with_start_revision(revision + 1);
        let mut watcher = client.watch_client().max_decoding_message_size(MESSAGE);
        let watch = watcher.watch(prefix.as_bytes(), Some(options)).await.map_err(lost)?;
        let beat = Beat { keeper, kept, every: self.servers.session / 3, last: Instant::now() };
        let queue = VecDeque::from([News::All(all)]);
        let writer = EtcdWriter { client, lease, prefix: prefix.clone() };
        Ok((writer, EtcdReader { watch, beat, prefix, queue }))
    }
}

impl Store for Etcd {
    type Writer = EtcdWriter;
    type Reader = EtcdReader;

    async fn open(&mut self) -> Result<(EtcdWriter, EtcdReader), StoreError> {
        in_time("a connection", self.begin()).await
    }
}

fn lost(error: Error) -> StoreError {
    // tonic's own text is `status: .., message: "..", details: [], ..` over many fields.
    let text = match &error {
        Error::GRpcStatus(status) => format!("etcd: {}", status.message()),
        error => format!("etcd: {error}"),
    };
    let refused = ["authentication failed", "permission denied", "invalid user", "user name is empty"];
    match refused.iter().any(|word| text.contains(word)) {
        true => StoreError::Refused(text),
        false => StoreError::Lost(text),
    }
}

/// All keys below the prefix, with the prefix removed, and their revision.
async fn all(client: &Client, prefix: &str) -> Result<(Vec<(String, String)>, i64), StoreError> {
    let mut kv = client.kv_client().max_decoding_message_size(MESSAGE);
    let end = end_of(prefix);
    let (mut found, mut from, mut revision) = (Vec::new(), prefix.as_bytes().to_vec(), 0);
    loop {
        let mut options = GetOptions::new().with_range(end.clone()).with_limit(PAGE);
        if revision > 0 {
            options = options.with_revision(revision);
        }
        let mut answer = kv.get(from, Some(options)).await.map_err(lost)?;
        if revision == 0 {
            revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
        }
        let more = answer.more();
        let page = answer.take_kvs();
        // The first key after the last one.
        from = page.last().map(|kv| [kv.key(), &[0]].concat()).unwrap_or_default();
        found.extend(page.iter().filter_map(|kv| Some((own(kv.key(), prefix)?, text(kv.value())))));
        if !more || from.is_empty() {
            return Ok((found, revision));
        }
    }
}

/// The first key after all that begin with the prefix, which ends with a slash: `0` is the byte after it.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn own(key: &[u8], prefix: &str) -> Option<String> {
    std::str::from_utf8(key).ok()?.strip_prefix(prefix).map(str::to_owned)
}

/// The writing half.
#[derive(Clone)]
pub struct EtcdWriter {
    client: Client,
    lease: i64,
    prefix: String,
}

impl std::fmt::Debug for EtcdWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdWriter").field("lease", &self.lease).finish_non_exhaustive()
    }
}

impl EtcdWriter {
    fn whole(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    async fn when(&self, what: &str, condition: Compare, operation: TxnOp) -> Result<bool, StoreError> {
        let mut kv = self.client.kv_client();
        let txn = Txn::new().when([condition]).and_then([operation]);
        in_time(what, async { kv.txn(txn).await.map(|answer| answer.succeeded()).map_err(lost) }).await
    }
}

impl Writer for EtcdWriter {
    async fn create(&self, key: &str, value: &str, lifetime: Lifetime) -> Result<bool, StoreError> {
        let key = self.whole(key);
        let options = match lifetime {
            Lifetime::Forever => PutOptions::new(),
            Lifetime::Session => PutOptions::new().with_lease(self.lease),
        };
        let absent = Compare::create_revision(key.as_str(), CompareOp::Equal, 0);
        self.when("a create", absent, TxnOp::put(key, value, Some(options))).await
    }

    async fn get(&self, key: &str) -> Result<Option<String>, StoreError> {
        let mut kv = self.client.kv_client();
        let key = self.whole(key);
        let answer = in_time("a read", async { kv.get(key, None).await.map_err(lost) }).await?;
        Ok(answer.kvs().first().map(|kv| text(kv.value())))
    }

    async fn replace(&self, key: &str, old: &str, new: &str) -> Result<bool, StoreError> {
        let key = self.whole(key);
        let has = Compare::value(key.as_str(), CompareOp::Equal, old);
        self.when("a change", has, TxnOp::put(key, new, None)).await
    }

    async fn delete(&self, key: &str, value: Option<&str>) -> Result<bool, StoreError> {
        let key = self.whole(key);
        let condition = match value {
            Some(value) => Compare::value(key.as_str(), CompareOp::Equal, value),
            None => Compare::create_revision(key.as_str(), CompareOp::Greater, 0),
        };
        self.when("a delete", condition, TxnOp::delete(key, None)).await
    }
}

/// The reading half; also keeps the lease alive.
pub struct EtcdReader {
    watch: WatchStream,
    beat: Beat,
    prefix: String,
    queue: VecDeque<News>,
}

impl std::fmt::Debug for EtcdReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdReader").field("queue", &self.queue.len()).finish_non_exhaustive()
    }
}

struct Beat {
    keeper: LeaseKeeper,
    kept: LeaseKeepAliveStream,
    every: Duration,
    /// When the server last confirmed the lease.
    last: Instant,
}

impl Beat {
    /// Returns only when the lease is lost. May be dropped and called again: the time of the last keep-alive stays.
    async fn go_on(&mut self) -> StoreError {
        loop {
            let due = self.last + self.every;
            tokio::time::sleep_until(due).await;
            if let Err(error) = self.once().await {
                return error;
            }
            self.last = Instant::now();
        }
    }

    async fn once(&mut self) -> Result<(), StoreError> {
        in_time("a lease's beat", async {
            self.keeper.keep_alive().await.map_err(lost)?;
            match self.kept.message().await.map_err(lost)? {
                Some(answer) if answer.ttl() > 0 => Ok(()),
                _ => Err(StoreError::Lost("etcd: the lease has expired".to_owned())),
            }
        })
        .await
    }
}

impl Reader for EtcdReader {
    async fn next(&mut self) -> Result<News, StoreError> {
        loop {
            if let Some(news) = self.queue.pop_front() {
                return Ok(news);
            }
            let answer = tokio::select! {
                answer = self.watch.message() => answer.map_err(lost)?,
                lost = self.beat.go_on() => return Err(lost),
            };
            let answer = answer.ok_or_else(|| StoreError::Lost("etcd: the watch has ended".to_owned()))?;
            if answer.canceled() {
                let why = format!("etcd: the watch was cancelled: {}", answer.cancel_reason());
                return Err(StoreError::Lost(why));
            }
            let prefix = &self.prefix;
            self.queue.extend(answer.events().iter().filter_map(|event| {
                let kv = event.kv()?;
                let key = own(kv.key(), prefix)?;
                Some(match event.event_type() {
                    EventType::Put => News::Put(key, text(kv.value())),
                    EventType::Delete => News::Gone(key),
                })
            }));
        }
    }
}
