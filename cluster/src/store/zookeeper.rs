//! Apache ZooKeeper, 3.6 or later: one recursive watch on our folder brings all news.
//!
//! The client crate keeps the session: it survives the loss of a connection, and is detached, so that it also outlives
//! its process until its timeout: replacing or killing a worker is not a departure. After each loss of the connection
//! everything is read again, because the server does not say what a recursive watch has missed.

use std::collections::VecDeque;

use futures_util::future::LocalBoxFuture;
use zookeeper_client::{
    Acls, AddWatchMode, Client, Connector, CreateMode, CreateOptions, Error, EventType, PersistentWatcher,
    SessionState, TlsCa, TlsCerts, TlsIdentity, TlsOptions,
};

use super::{Lifetime, News, Reader, Servers, Store, StoreError, Writer, in_time};
use crate::key::{FOLDERS, Key};

/// An ensemble.
#[derive(Debug)]
pub struct Zookeeper {
    servers: Servers,
}

impl Zookeeper {
    /// The ensemble; nothing is connected yet.
    #[must_use]
    pub fn new(servers: Servers) -> Self {
        Self { servers }
    }

    fn connector(&self) -> Result<Connector, StoreError> {
        let mut connector = Client::connector().with_session_timeout(self.servers.session).with_detached();
        if let Some((user, password)) = &self.servers.user {
            connector = connector.with_auth("digest", format!("{user}:{password}").as_bytes());
        }
        Ok(match &self.servers.ca {
            Some(ca) => connector.with_tls(self.tls(ca)?),
            None => connector,
        })
    }

    fn tls(&self, ca: &str) -> Result<TlsOptions, StoreError> {
        let mut certs = TlsCerts::builder().with_ca(TlsCa::from_pem(ca).map_err(lost)?);
        if let Some((certificate, key)) = &self.servers.identity {
            certs = certs.with_identity(TlsIdentity::from_pem(certificate, key).map_err(lost)?);
        }
        Ok(TlsOptions::new().with_certs(certs.build().map_err(lost)?))
    }

    fn options(&self, mode: CreateMode) -> CreateOptions<'static> {
        // With credentials, only their owner has access to the entries.
        mode.with_acls(match self.servers.user {
            Some(_) => Acls::creator_all(),
            None => Acls::anyone_all(),
        })
    }

    async fn connect(&self) -> Result<Client, StoreError> {
        let cluster = self.servers.endpoints.join(",");
        let connector = self.connector()?;
        let connected = match self.servers.ca {
            Some(_) => connector.secure_connect(&cluster).await,
            None => connector.connect(&cluster).await,
        };
        connected.map_err(lost)
    }
}

impl Store for Zookeeper {
    type Writer = ZookeeperWriter;
    type Reader = ZookeeperReader;

    async fn open(&mut self) -> Result<(ZookeeperWriter, ZookeeperReader), StoreError> {
        in_time("a connection", async {
            let client = self.connect().await?;
            let folder = self.options(CreateMode::Persistent);
            if !self.servers.prefix.is_empty() {
                client.mkdir(&self.servers.prefix, &folder).await.map_err(lost)?;
            }
            let prefix = if self.servers.prefix.is_empty() { "/" } else { self.servers.prefix.as_str() };
            let client = client
                .chroot(prefix.to_owned())
                .map_err(|_| StoreError::Refused(format!("{prefix} is not a valid ZooKeeper path")))?;
            for name in FOLDERS {
                client.mkdir(&format!("/{name}"), &folder).await.map_err(lost)?;
            }
            let watch = client.watch("/", AddWatchMode::PersistentRecursive).await.map_err(lost)?;
            let writer = ZookeeperWriter {
                client: client.clone(),
                forever: folder,
                session: self.options(CreateMode::Ephemeral),
            };
            let reading: LocalBoxFuture<'static, _> = Box::pin(read_all(client.clone()));
            Ok((writer, ZookeeperReader { client, watch, queue: VecDeque::new(), reading: Some(reading) }))
        })
        .await
    }
}

fn lost(error: Error) -> StoreError {
    match error {
        Error::NoAuth | Error::AuthFailed | Error::InvalidAcl => {
            StoreError::Refused(format!("ZooKeeper: {error}"))
        }
        Error::Unimplemented => StoreError::Refused("ZooKeeper is older than 3.6".to_owned()),
        _ => StoreError::Lost(format!("ZooKeeper: {error}")),
    }
}

/// The writing half.
#[derive(Debug, Clone)]
pub struct ZookeeperWriter {
    client: Client,
    forever: CreateOptions<'static>,
    session: CreateOptions<'static>,
}

impl ZookeeperWriter {
    async fn make(&self, key: &str, value: &str, lifetime: Lifetime) -> Result<bool, StoreError> {
        let path = format!("/{key}");
        let options = match lifetime {
            Lifetime::Forever => &self.forever,
            Lifetime::Session => &self.session,
        };
        let mut missing = true;
        loop {
            match self.client.create(&path, value.as_bytes(), options).await {
                Ok(_) => return Ok(true),
                Err(Error::NodeExists) => return Ok(false),
                // Each host has a folder of its own for its records.
                Err(Error::NoNode) if missing => {
                    missing = false;
                    let parent = path.rsplit_once('/').map_or("/", |(parent, _)| parent);
                    self.client.mkdir(parent, &self.forever).await.map_err(lost)?;
                }
                Err(error) => return Err(lost(error)),
            }
        }
    }

    /// Value and version.
    async fn read(&self, path: &str) -> Result<Option<(String, i32)>, StoreError> {
        match self.client.get_data(path).await {
            Ok((data, stat)) => Ok(Some((String::from_utf8_lossy(&data).into_owned(), stat.version))),
            Err(Error::NoNode) => Ok(None),
            Err(error) => Err(lost(error)),
        }
    }
}

impl Writer for ZookeeperWriter {
    async fn create(&self, key: &str, value: &str, lifetime: Lifetime) -> Result<bool, StoreError> {
        in_time("a create", self.make(key, value, lifetime)).await
    }

    async fn get(&self, key: &str) -> Result<Option<String>, StoreError> {
        let path = format!("/{key}");
        Ok(in_time("a read", self.read(&path)).await?.map(|(value, _)| value))
    }

    async fn replace(&self, key: &str, old: &str, new: &str) -> Result<bool, StoreError> {
        let path = format!("/{key}");
        in_time("a change", async {
            let Some((_, version)) = self.read(&path).await?.filter(|(value, _)| value == old) else {
                return Ok(false);
            };
            match self.client.set_data(&path, new.as_bytes(), Some(version)).await {
                Ok(_) => Ok(true),
                Err(Error::NoNode | Error::BadVersion) => Ok(false),
                Err(error) => Err(lost(error)),
            }
        })
        .await
    }

    async fn delete(&self, key: &str, value: Option<&str>) -> Result<bool, StoreError> {
        let path = format!("/{key}");
        in_time("a delete", async {
            let version = match value {
                None => None,
                Some(value) => match self.read(&path).await?.filter(|(found, _)| found == value) {
                    Some((_, version)) => Some(version),
                    None => return Ok(false),
                },
            };
            match self.client.delete(&path, version).await {
                Ok(()) => Ok(true),
                Err(Error::NoNode | Error::BadVersion) => Ok(false),
                Err(error) => Err(lost(error)),
            }
        })
        .await
    }
}

/// The reading half.
pub struct ZookeeperReader {
    client: Client,
    watch: PersistentWatcher,
    /// Changed keys whose value has not been read yet.
    queue: VecDeque<Change>,
    /// The read in progress. It continues where it was if its caller stops waiting for it.
    reading: Option<LocalBoxFuture<'static, Result<Read, StoreError>>>,
}

impl std::fmt::Debug for ZookeeperReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ZookeeperReader").field("queue", &self.queue.len()).finish_non_exhaustive()
    }
}

/// News, and the watch that brings the next news, if it is a new one.
struct Read {
    news: News,
    watch: Option<PersistentWatcher>,
}

#[derive(Debug)]
enum Change {
    Put(Key),
    Gone(Key),
}

impl Reader for ZookeeperReader {
    async fn next(&mut self) -> Result<News, StoreError> {
        loop {
            if let Some(reading) = &mut self.reading {
                let read = reading.await;
                self.reading = None;
                return Ok(self.take(read?));
            }
            match self.queue.pop_front() {
                Some(Change::Put(key)) if key.has_value() => {
                    self.reading = Some(Box::pin(read(self.client.clone(), key)));
                }
                Some(Change::Put(key)) => return Ok(News::Put(key.to_string(), String::new())),
                Some(Change::Gone(key)) => return Ok(News::Gone(key.to_string())),
                None => self.listen().await?,
            }
        }
    }
}

impl ZookeeperReader {
    fn take(&mut self, Read { news, watch }: Read) -> News {
        if let Some(watch) = watch {
            self.watch = watch;
        }
        news
    }

    async fn listen(&mut self) -> Result<(), StoreError> {
        let event = self.watch.changed().await;
        match event.event_type {
            EventType::Session if event.session_state.is_terminated() => {
                return Err(StoreError::Lost(format!("ZooKeeper: session {}", event.session_state)));
            }
            EventType::Session if event.session_state == SessionState::SyncConnected => {
                self.queue.clear();
                self.reading = Some(Box::pin(read_all(self.client.clone())));
            }
            EventType::Session => {}
            kind => self.queue.extend(change(kind, &event.path)),
        }
        Ok(())
    }
}

/// Reads everything, with a watch of its own that begins before the read: a change meanwhile is seen twice rather than
/// not at all. The client (0.11.2) does not renew a recursive watch after its connection was lost.
async fn read_all(client: Client) -> Result<Read, StoreError> {
    in_time("a look at all", async {
        let watch = client.watch("/", AddWatchMode::PersistentRecursive).await.map_err(lost)?;
        let news = News::All(all(&client).await?);
        Ok(Read { news, watch: Some(watch) })
    })
    .await
}

fn change(kind: EventType, path: &str) -> Option<Change> {
    let key = Key::parse(path.strip_prefix('/')?)?;
    match kind {
        EventType::NodeDeleted => Some(Change::Gone(key)),
        EventType::NodeCreated | EventType::NodeDataChanged => Some(Change::Put(key)),
        _ => None,
    }
}

async fn read(client: Client, key: Key) -> Result<Read, StoreError> {
    in_time("a read", async {
        let news = match client.get_data(&format!("/{key}")).await {
            Ok((data, _)) => News::Put(key.to_string(), String::from_utf8_lossy(&data).into_owned()),
            // Deleted meanwhile.
            Err(Error::NoNode) => News::Gone(key.to_string()),
            Err(error) => return Err(lost(error)),
        };
        Ok(Read { news, watch: None })
    })
    .await
}

/// All keys: the folders, the hosts' folders of records, and the values of those that have one, each of the three in
/// one batch (the client sends each request when it is made, and the answers come in order).
async fn all(client: &Client) -> Result<Vec<(String, String)>, StoreError> {
    let mut keys: Vec<Key> = Vec::new();
    let mut folders: Vec<String> = Vec::new();
    let roots: Vec<_> = FOLDERS.map(|name| (name, client.list_children_of(name))).into();
    for (name, children) in roots {
        let children = children.await.map_err(lost)?;
        if name == "names" {
            folders = children;
        } else {
            keys.extend(children.iter().filter_map(|child| Key::parse(&format!("{name}/{child}"))));
        }
    }
    let records: Vec<_> =
        folders.iter().map(|host| (host, client.list_children_of(&format!("names/{host}")))).collect();
    for (host, texts) in records {
        match texts.await {
            Ok(texts) => {
                keys.extend(texts.iter().filter_map(|text| Key::parse(&format!("names/{host}/{text}"))));
            }
            Err(Error::NoNode) => {}
            Err(error) => return Err(lost(error)),
        }
    }
    keys.push(Key::Settings);
    values(client, keys).await
}

async fn values(client: &Client, keys: Vec<Key>) -> Result<Vec<(String, String)>, StoreError> {
    let mut found = Vec::with_capacity(keys.len());
    let (read, plain): (Vec<Key>, Vec<Key>) = keys.into_iter().partition(Key::has_value);
    let answers: Vec<_> = read.iter().map(|key| (key, client.get_data(&format!("/{key}")))).collect();
    for (key, answer) in answers {
        match answer.await {
            Ok((data, _)) => found.push((key.to_string(), String::from_utf8_lossy(&data).into_owned())),
            Err(Error::NoNode) => {}
            Err(error) => return Err(lost(error)),
        }
    }
    found.extend(plain.into_iter().map(|key| (key.to_string(), String::new())));
    Ok(found)
}

/// The client's own call borrows the path for as long as the answer takes.
trait Children {
    fn list_children_of(
        &self,
        folder: &str,
    ) -> std::pin::Pin<Box<dyn std::future::Future<Output = Result<Vec<String>, Error>> + Send + 'static>>;
}

impl Children for Client {
    fn list_children_of(
        &self,
        folder: &str,
    ) -> std::pin::Pin<Box<dyn std::future::Future<Output = Result<Vec<String>, Error>> + Send + 'static>>
    {
        let answer = self.get_children(&format!("/{folder}"));
        Box::pin(async move { answer.await.map(|(children, _)| children) })
    }
}
