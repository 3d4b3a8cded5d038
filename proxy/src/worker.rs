//! The worker: everything that thinks, wired together once. It may die at any moment; all that it knows is
//! read back by the next one.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use selvedge_cluster::handle::Cluster;
use selvedge_keeper::link::{Link, Order};
use selvedge_netsetup::{Datapath, Network};
use selvedge_registry::name::{Name, fnv1a};
use selvedge_registry::record::Record;
use selvedge_registry::table::{SharedTable, Table};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::balancer::{self, Balancer};
use crate::book::Book;
use crate::config::{Config, GATEWAY};
use crate::counters::Counters;
use crate::docker::engine::Engine;
use crate::docker::life::Life;
use crate::docker::model::short;
use crate::docker::wording::Wordings;
use crate::front;
use crate::front::upstream::Upstream;
use crate::guard::{self, Guard};
use crate::handover::Keeper;
use crate::held::resume::{Parked, resume};
use crate::trouble::Trouble;
use crate::{admin, fabric, naming, watch};

pub(crate) mod socket;
pub(crate) use socket::api_name;
use socket::{listeners, take};

/// What all tasks of a worker share.
#[derive(Debug)]
pub(crate) struct Worker {
    /// The settings.
    pub(crate) config: Config,
    /// Clients' way to the engine.
    pub(crate) upstream: Upstream,
    /// Our own calls to the engine.
    pub(crate) engine: Engine,
    /// What was seen of the engine's life.
    pub(crate) life: Life,
    /// Who takes streams.
    pub(crate) keeper: Keeper,
    /// The kernel's side.
    pub(crate) network: Network,
    /// Our containers.
    pub(crate) book: Arc<Book>,
    /// The other hosts.
    pub(crate) cluster: Cluster,
    /// Whether the kernel has the routes to them.
    pub(crate) routes: Trouble,
    /// Whether the host's firewalls let containers' packets pass.
    pub(crate) firewalls: Trouble,
    /// Who may talk to whom.
    pub(crate) guard: Guard,
    /// What leads connections to virtual addresses.
    pub(crate) balancer: Balancer,
    /// What is counted.
    pub(crate) counters: Counters,
    /// The engine's words for missing programs.
    pub(crate) wordings: Wordings,
    /// When this worker began.
    pub(crate) since: Instant,
    /// Who claims a block for this host; one at a time.
    pub(crate) claiming: tokio::sync::Mutex<()>,
    dns: Mutex<Option<selvedge_dns::Server>>,
    table: SharedTable,
    engine_up: AtomicBool,
    seen: AtomicBool,
    leaving: tokio::sync::watch::Sender<bool>,
}

impl Worker {
    /// Lets a container's names be answered, whose rules are told to the kernel meanwhile.
    pub(crate) fn put_name(&self, record: Record, aliases: &[IpAddr]) {
        self.guard.note(&record, aliases);
        for error in self.cluster.publish(record) {
            warn!(%error, "a name is left out");
        }
    }

    /// Lets a container's names be answered no longer.
    pub(crate) fn forget_name(&self, id: &str) {
        self.cluster.withdraw(id);
        self.guard.dismiss(id);
    }

    /// Whether all containers of this host and of the others have been seen: what else is there is old.
    pub(crate) fn all_is_seen(&self) -> bool {
        let others = self.config.cluster.is_local() || self.cluster.views().borrow().read;
        self.seen.load(Relaxed) && others
    }

    /// All containers of the engine have been seen.
    pub(crate) fn saw_all(&self) {
        self.seen.store(true, Relaxed);
    }

    /// Whether names of other hosts are known: before, what we do not know cannot be denied.
    pub(crate) fn names_are_known(&self, known: bool) {
        self.table.write().unwrap_or_else(PoisonError::into_inner).set_partial(!known);
    }

    /// At which addresses hosts are found, by their names.
    pub(crate) fn set_hosts(&self, hosts: HashMap<Box<str>, Ipv4Addr>) {
        self.table.write().unwrap_or_else(PoisonError::into_inner).set_hosts(hosts);
    }

    /// Names of which there shall be one container, and there are more; for `selvedge status`.
    pub(crate) fn doubles(&self) -> serde_json::Value {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let told = |(name, ids): (Name, Vec<String>)| {
            let ids: Vec<&str> = ids
                .iter()
                .map(|id| id.get(..64).filter(|_| !id.contains('/')).map_or(id.as_str(), short))
                .collect();
            serde_json::json!({"name": name.to_string().trim_end_matches('.'), "containers": ids})
        };
        table.doubles().into_iter().map(told).collect()
    }

    /// What DNS has counted; `None` when it has been stopped.
    pub(crate) fn dns_counts(&self) -> Option<selvedge_dns::Counts> {
        self.dns.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(selvedge_dns::Server::stats)
    }

    /// Begins to answer names. Not before the table is filled: a name that is not there yet would be denied.
    fn start_dns(&self, udp: UdpSocket, tcp: TcpListener) -> anyhow::Result<()> {
        let listen = self.config.dns_listen.into();
        let settings = selvedge_dns::Settings::new(Arc::clone(&self.table), listen, self.config.pool);
        let server =
            selvedge_dns::Server::spawn(settings, vec![udp], vec![tcp]).context("cannot start DNS")?;
        *self.dns.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
        Ok(())
    }

    fn stop_dns(&self) {
        let server = self.dns.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(server) = server {
            server.stop();
        }
    }

    /// Becomes true when idle clients shall go to the next worker.
    pub(crate) fn leaving(&self) -> tokio::sync::watch::Receiver<bool> {
        self.leaving.subscribe()
    }

    /// Notes whether the engine is followed; gives back what was noted before.
    pub(crate) fn engine_seen(&self, up: bool) -> bool {
        self.engine_up.swap(up, Relaxed)
    }

    /// Whether the engine is followed.
    pub(crate) fn engine_is_up(&self) -> bool {
        self.engine_up.load(Relaxed)
    }
}

// How long a first start waits for an engine before it serves without: requests then wait for the engine
// themselves.
const FIRST_SYNC: Duration = Duration::from_secs(5);
// How long a worker that leaves waits for the registry to hear of it.
const LEAVE: Duration = Duration::from_secs(1);

// By then the last worker does not look after the kernel's rules any more.
const LAST_MOMENT: Duration = Duration::from_secs(2);

/// Runs the worker until the keeper ends it.
///
/// # Errors
/// What kept it from getting ready; the keeper tells it to who asked for the upgrade.
pub(crate) fn run(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let link = Link::from_env()?;
    let result = runtime.block_on(serve(config, link));
    // Blocking DNS of the runtime's own, none of ours, could hold the end up.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

async fn serve(mut config: Config, link: Link) -> anyhow::Result<()> {
    let (keeper, sockets) =
        Keeper::join(link, env!("CARGO_PKG_VERSION")).context("cannot talk to the keeper")?;
    let mut sockets: HashMap<String, OwnedFd> = sockets.into_iter().collect();
    install_wait(&config.wait_path)?;
    let (api, admin) = listeners(&mut config, &mut sockets)?;
    let udp = UdpSocket::from(take(&mut sockets, socket::DNS_UDP)?);
    let tcp = TcpListener::from(take(&mut sockets, socket::DNS_TCP)?);
    let peer = match config.cluster.is_local() {
        true => None,
        false => Some(TcpListener::from(take(&mut sockets, socket::PEER)?)),
    };
    let worker = Arc::new(assemble(config, keeper, sockets.remove(socket::MEMORY)).await?);
    let fabric = tokio::spawn(fabric::keep(Arc::clone(&worker)));
    let guard = tokio::spawn(guard::keep(Arc::clone(&worker)));
    let balancer = tokio::spawn(balancer::keep(Arc::clone(&worker)));
    let (told, synced) = tokio::sync::oneshot::channel();
    let follower = tokio::spawn(watch::follow(Arc::clone(&worker), told));
    if tokio::time::timeout(FIRST_SYNC, synced).await.is_err() {
        warn!(engine = %worker.config.engine.display(), "the engine does not answer; serving without it until it does");
    }
    fabric::first_look(&worker, FIRST_SYNC).await;
    worker.guard.catch_up(FIRST_SYNC).await;
    // Their names too must be there before any is denied; who has none pays nothing.
    if worker.balancer.is_wanted() {
        balancer::balance(&worker).await;
    }
    worker.start_dns(udp, tcp)?;
    let mut tasks = JoinSet::new();
    for (name, listener) in api {
        tasks.spawn(front::accept::accept(Arc::clone(&worker), listener, name));
    }
    tasks.spawn(admin::serve(Arc::clone(&worker), admin));
    tasks.spawn(watch::keep_firewalls_open(Arc::clone(&worker)));
    if let Some(peer) = peer {
        tasks.spawn(fabric::answer_peers(peer));
    }
    worker.keeper.ready().context("cannot tell the keeper that we are ready")?;
    info!(version = env!("CARGO_PKG_VERSION"), took = ?worker.since.elapsed(), containers = worker.book.all().len(), "ready");
    tasks.spawn(clear_away(Arc::clone(&worker)));
    let order = last_order(&worker).await;
    tasks.shutdown().await;
    // The next worker looks after routes and blocks; two that give a block back and take from it would not agree.
    fabric.abort();
    guard.abort();
    balancer.abort();
    leave(&worker, order).await;
    follower.abort();
    Ok(())
}

/// Takes out what a worker of another configuration left in the kernel. Only when we serve: until then that one may have to
/// go on with it. And once more, since it may have put it right in its last moment.
async fn clear_away(worker: Arc<Worker>) {
    for pause in [Duration::ZERO, LAST_MOMENT] {
        tokio::time::sleep(pause).await;
        while let Err(error) = clear(&worker).await {
            warn!(%error, "cannot take out rules of an earlier configuration; trying again");
            tokio::time::sleep(LAST_MOMENT).await;
        }
    }
}

async fn clear(worker: &Worker) -> Result<(), selvedge_netsetup::Error> {
    worker.guard.clear_away(&worker.config).await?;
    worker.balancer.clear_away(&worker.config, &worker.network).await
}

/// Takes what earlier workers leave us, until it is our turn to leave.
async fn last_order(worker: &Arc<Worker>) -> Order {
    loop {
        match worker.keeper.order().await {
            Order::Conn { listener, client, read } => match tokio::net::UnixStream::from_std(client.into()) {
                Ok(client) => front::accept::take(worker, client, read, listener.into()),
                Err(error) => warn!(%error, "an idle client of the last worker is lost"),
            },
            Order::Parked { id, client, note, ended: None } => {
                let (guard, worker) = (worker.counters.connection(), Arc::clone(worker));
                tokio::spawn(async move {
                    front::promise::keep(worker, id, client, note).await;
                    drop(guard);
                });
            }
            Order::Parked { id, client, note, ended: Some(ended) } => {
                tokio::spawn(resume(Arc::clone(worker), Parked { id, client, note, ended }));
            }
            Order::Status { .. } => {}
            order => return order,
        }
    }
}

async fn assemble(config: Config, keeper: Keeper, memory: Option<OwnedFd>) -> anyhow::Result<Worker> {
    let since = Instant::now();
    let settings = network_settings(&config);
    let network = Network::open(settings).await.context("cannot reach the kernel's network")?;
    network.prepare_host().await.context("cannot prepare the host's network")?;
    let mut table = Table::new(config.domain.clone());
    if let Some(pool6) = config.pool6 {
        table = table.with_pool6(pool6);
    }
    if config.dns_style_mesos {
        table = table.with_shared_domain(Name::parse(naming::MESOS).context("the domain of Mesos-DNS")?);
        table =
            table.with_shared_domain(Name::parse(naming::L4LB).context("the domain of DC/OS's addresses")?);
    }
    let table: SharedTable = Arc::new(std::sync::RwLock::new(table));
    let book = Arc::new(Book::new(config.runtime_dir.clone(), config.pool, config.block_size));
    let (guard, names) = Guard::new(&config, &table);
    guard.begin().await.context("cannot put --policy tenant in force")?;
    let balancer = Balancer::new(&config, &table);
    let cluster = fabric::join(&config, &network, names, &book, memory).await?;
    Ok(Worker {
        upstream: Upstream::new(config.engine.clone(), config.engine_wait),
        engine: Engine::new(&config.engine),
        life: Life::default(),
        keeper,
        network,
        book,
        cluster,
        counters: Counters::default(),
        wordings: Wordings::default(),
        claiming: tokio::sync::Mutex::new(()),
        dns: Mutex::new(None),
        table,
        since,
        engine_up: AtomicBool::new(false),
        seen: AtomicBool::new(false),
        routes: Trouble::with("the routes to other hosts"),
        firewalls: Trouble::with("the host's firewalls"),
        guard,
        balancer,
        leaving: tokio::sync::watch::Sender::new(false),
        config,
    })
}

/// What the kernel's side needs to know.
pub(crate) fn network_settings(config: &Config) -> selvedge_netsetup::Settings {
    selvedge_netsetup::Settings {
        pool: config.pool,
        gateway: GATEWAY,
        dns: *config.dns_listen.ip(),
        group: group(&config.runtime_dir),
        mtu: config.mtu,
        underlay: config.cluster.host_address,
        pool6: config.pool6,
        // IPv6 needs VXLAN wherever the underlay is IPv4.
        encapsulated: !config.cluster.is_local()
            && (config.cluster.datapath != Datapath::Direct || config.pool6.is_some()),
    }
}

// Tells the interfaces of several Selvedges in one network namespace apart. Not 0, which is every interface's group,
// and below 2^30.
pub(crate) fn group(runtime_dir: &Path) -> u32 {
    (fnv1a(runtime_dir.as_os_str().as_encoded_bytes()) >> 2) | 1
}

/// What containers begin with; built along with us.
const WAIT: &[u8] = include_bytes!(env!("SELVEDGE_WAIT"));

/// Puts `wait` where the engine mounts it from. By rename: containers that begin meanwhile see the old one or
/// the new one.
fn install_wait(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if std::fs::read(path).is_ok_and(|old| old == WAIT) {
        return Ok(());
    }
    let told = || format!("cannot install {}", path.display());
    let dir: PathBuf = path.parent().map_or_else(|| "/".into(), Path::to_owned);
    std::fs::create_dir_all(&dir).with_context(told)?;
    let new = dir.join(format!(".wait-{}", std::process::id()));
    std::fs::write(&new, WAIT).with_context(told)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).with_context(told)?;
    std::fs::rename(&new, path).with_context(told)?;
    info!(path = %path.display(), "installed the program that containers begin with");
    Ok(())
}

/// Lets requests that are under way come to their end, and gives idle clients to the next worker.
async fn leave(worker: &Worker, order: Order) {
    info!(?order, "leaving");
    let limit = match order {
        Order::Drain { limit } => {
            worker.leaving.send_replace(true);
            // Those that wait for an engine stop at once; then the next worker may have their clients.
            tokio::task::yield_now().await;
            worker.keeper.release().await;
            // The next worker is there: until then this one's presence in the registry was the host's. A slow registry
            // forgets this one by itself.
            let _ = tokio::time::timeout(LEAVE, worker.cluster.leave()).await;
            limit
        }
        Order::Stop { grace } => grace.min(Duration::from_secs(1)),
        _ => Duration::ZERO,
    };
    let end = Instant::now() + limit;
    while worker.counters.open_connections() > 0 && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    worker.stop_dns();
    worker.keeper.done();
}
