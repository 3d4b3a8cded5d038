//! The worker: everything that thinks, wired together once. It may die at any moment; all that it knows is
//! read back by the next one.

use std::collections::HashMap;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use selvedge_containers::agent::Agent;
use selvedge_containers::host::ThisHost;
use selvedge_containers::shared::Containers;
use selvedge_containers::store::Book;
use selvedge_containers::{agent, events, names, upkeep};
use selvedge_custody::{Closer, Ledger as Records};
use selvedge_datapath::addresses::{Addresses, Ledger};
use selvedge_datapath::follow::Datapath;
use selvedge_datapath::vip::{Draining, L4LB};
use selvedge_engine::client::Engine;
use selvedge_engine::http::pool::Upstream;
use selvedge_keeper::link::{Link, Order};
use selvedge_netsetup::Network;
use selvedge_proxy::api::Api;
use selvedge_proxy::front::inherit::{self, Arrival, Inheritance};
use selvedge_proxy::handover::Keeper;
use selvedge_proxy::held::resume::{Parked, resume};
use selvedge_registry::name::Name;
use selvedge_registry::table::Table;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::config::Config;
use crate::health::{self, Health};
use crate::parts::Worker;
use crate::{admin, settings};

mod alive;
pub(crate) mod socket;
pub(crate) use socket::api_name;
use socket::{listeners, take};

// How long a first start waits for an engine before it serves without: requests then wait for the engine
// themselves.
const FIRST_SYNC: Duration = Duration::from_secs(5);
// How long a start waits for a Mesos agent that may be away.
const FIRST_WORD: Duration = Duration::from_secs(1);
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
    let keeper = Arc::new(keeper);
    let (ledger, memory) = Records::create().context("no memory for clients' requests")?;
    keeper.remember(memory.as_fd()).context("cannot talk to the keeper")?;
    drop(memory);
    let mut sockets: HashMap<String, OwnedFd> = sockets.into_iter().collect();
    install_wait(&config.wait_path)?;
    let admin = listeners(&mut config, &mut sockets)?;
    let udp = UdpSocket::from(take(&mut sockets, socket::DNS_UDP)?);
    let tcp = TcpListener::from(take(&mut sockets, socket::DNS_TCP)?);
    let peer = match config.cluster.is_local() {
        true => None,
        false => Some(TcpListener::from(take(&mut sockets, socket::PEER)?)),
    };
    let memories = (sockets.remove(socket::MEMORY), sockets.remove(socket::ADDRESSES));
    let worker = Arc::new(assemble(config, (keeper, ledger), memories).await?);
    // Before anything is looked at: the go of a container whose start a client waits for is that start's to give.
    let mut inheritance = Inheritance::default();
    let inherited = match inherit(&worker.api, &mut inheritance).await {
        Ok(inherited) => inherited,
        Err(order) => anyhow::bail!("told to leave: {order:?}"),
    };
    let keepers = keep(&worker.datapath);
    hear_agent(&worker).await;
    let (told, synced) = tokio::sync::oneshot::channel();
    let follower = tokio::spawn(events::follow(Arc::clone(&worker.containers), told));
    if tokio::time::timeout(FIRST_SYNC, synced).await.is_err() {
        warn!(engine = %worker.config.engine.display(), "the engine does not answer; serving without it until it does");
    }
    worker.datapath.first_look(FIRST_SYNC).await;
    worker.datapath.directory.catch_up(FIRST_SYNC).await;
    // Their names too must be there before any is denied; who has none pays nothing.
    if worker.datapath.vips.is_wanted() {
        worker.datapath.balance().await;
    }
    worker.start_dns(udp, tcp)?;
    let mut tasks = JoinSet::new();
    tasks.spawn(admin::serve(Arc::clone(&worker), admin));
    tasks.spawn(upkeep::keep_firewalls_open(Arc::clone(&worker.containers)));
    if let Some(peer) = peer {
        let worker = Arc::clone(&worker);
        tasks.spawn(async move { worker.datapath.answer_peers(peer).await });
    }
    for client in inherited {
        inherit::serve(&worker.api, client).await;
    }
    worker.api.keeper.ready().context("cannot tell the keeper that we are ready")?;
    info!(version = env!("CARGO_PKG_VERSION"), took = ?worker.since.elapsed(), containers = worker.containers.book.all().len(), "ready");
    tasks.spawn(clear_away(Arc::clone(&worker)));
    tasks.spawn(tell_health(Arc::clone(&worker)));
    tasks.spawn(follow_agent(Arc::clone(&worker)));
    tasks.spawn(watch_dns(Arc::clone(&worker)));
    let order = last_order(&worker.api, inheritance).await;
    tasks.shutdown().await;
    // The next worker looks after routes and blocks; two that give a block back and take from it would not agree.
    keepers.iter().for_each(tokio::task::JoinHandle::abort);
    leave(&worker, order).await;
    follower.abort();
    Ok(())
}

/// Before any name is answered: what was said to be ill is not well for a moment because a worker begins.
async fn hear_agent(worker: &Worker) {
    if let Some(agent) = &worker.agent {
        let _ = tokio::time::timeout(FIRST_WORD, agent.ask(&worker.containers)).await;
    }
}

async fn follow_agent(worker: Arc<Worker>) {
    if let Some(agent) = &worker.agent {
        agent::follow(&worker.containers, agent).await;
    }
}

async fn tell_health(worker: Arc<Worker>) {
    health::tell(&worker.health, &worker.config, &worker.containers.engine).await;
}

async fn watch_dns(worker: Arc<Worker>) {
    alive::watch(worker.config.worker_timeout, || worker.ping_dns()).await;
}

/// Takes out what a worker of another configuration left in the kernel. Only when we serve: until then that one may have to
/// go on with it. And once more, since it may have put it right in its last moment.
async fn clear_away(worker: Arc<Worker>) {
    for pause in [Duration::ZERO, LAST_MOMENT] {
        tokio::time::sleep(pause).await;
        while let Err(error) = worker.datapath.clear_away().await {
            warn!(%error, "cannot take out rules of an earlier configuration; trying again");
            tokio::time::sleep(LAST_MOMENT).await;
        }
    }
}

/// Keeps routes, rules and virtual addresses in step, each in a task of its own.
fn keep(datapath: &Arc<Datapath>) -> [tokio::task::JoinHandle<()>; 3] {
    let [routes, policy, vips] = [(); 3].map(|()| Arc::clone(datapath));
    [
        tokio::spawn(async move { routes.keep().await }),
        tokio::spawn(async move { policy.keep_policy().await }),
        tokio::spawn(async move { vips.keep_vips().await }),
    ]
}

/// Takes what dead workers have left, with their clients. Nothing is done for those yet.
///
/// # Errors
/// It is our turn to leave.
async fn inherit(api: &Arc<Api>, inheritance: &mut Inheritance) -> Result<Vec<inherit::Client>, Order> {
    let mut clients = Vec::new();
    loop {
        match api.keeper.order().await {
            Order::Settled => return Ok(clients),
            order => clients.extend(take_in(api, inheritance, order).await?),
        }
    }
}

/// Takes what the keeper has for us: a client, or something that belongs to one.
///
/// # Errors
/// Another order.
async fn take_in(
    api: &Arc<Api>,
    inheritance: &mut Inheritance,
    order: Order,
) -> Result<Option<inherit::Client>, Order> {
    match order {
        Order::Held { worker, connections } => inheritance.held(worker, connections),
        Order::Estate { worker, memory } => inheritance.estate(worker, memory),
        Order::Client { id, listener, client: socket, read, estate } => {
            return Ok(inheritance.client(api, Arrival { id, listener, socket, read, estate }).await);
        }
        Order::NoRoom { id } => {
            warn!("too few descriptors for another client; it is let go");
            api.keeper.end(id, None);
        }
        order => return Err(order),
    }
    Ok(None)
}

/// Takes clients, and what earlier workers leave us, until it is our turn to leave.
async fn last_order(api: &Arc<Api>, mut inheritance: Inheritance) -> Order {
    loop {
        let order = match take_in(api, &mut inheritance, api.keeper.order().await).await {
            Ok(client) => {
                if let Some(client) = client {
                    inherit::serve(api, client).await;
                }
                continue;
            }
            Err(order) => order,
        };
        match order {
            Order::Crowded => api.crowded(),
            Order::Parked { id, client, note, ended: Some(ended) } => {
                tokio::spawn(resume(Arc::clone(api), Parked { id, client, note, ended }));
            }
            Order::Status { .. } | Order::Settled => {}
            Order::Conn { .. } | Order::Parked { .. } => {
                warn!("a client of an earlier release cannot be served")
            }
            order => return order,
        }
    }
}

async fn assemble(
    config: Config,
    keeper: (Arc<Keeper>, Arc<Records>),
    (memory, ledger): (Option<OwnedFd>, Option<OwnedFd>),
) -> anyhow::Result<Worker> {
    let since = Instant::now();
    let mut table = Table::new(config.domain.clone());
    if let Some(pool6) = config.pool6 {
        table = table.with_pool6(pool6);
    }
    if config.dns_style_mesos {
        table = table.with_shared_domain(Name::parse(names::MESOS).context("the domain of Mesos-DNS")?);
        table = table.with_shared_domain(Name::parse(L4LB).context("the domain of DC/OS's addresses")?);
    }
    let ledger = ledger.map(Ledger::open).transpose().context("cannot use the ledger of addresses")?;
    let addresses = Arc::new(Addresses::new(config.pool, config.block_size, ledger));
    let book = Arc::new(Book::new(config.runtime_dir.clone(), Arc::clone(&addresses)));
    let stopping = Arc::clone(&book);
    let draining = Draining::new(move || stopping.draining());
    let of_datapath = settings::datapath(&config);
    let network = network(of_datapath.network()).await?;
    let datapath = Datapath::start(of_datapath, (table, &network), addresses, memory, draining).await?;
    let datapath = Arc::new(datapath);
    let host = ThisHost { network: Arc::clone(&network), datapath: Arc::clone(&datapath) };
    let (engine, host) = (Engine::new(&config.engine), Arc::new(host));
    let containers = Arc::new(Containers::new(settings::containers(&config), book, engine, host));
    let upstream = Upstream::new(config.engine.clone(), config.engine_wait);
    let api = Api::new(settings::api(&config), upstream, keeper, Arc::clone(&containers));
    Ok(Worker {
        api: Arc::new(api),
        containers,
        network,
        agent: config.health_from.clone().map(|address| Arc::new(Agent::new(address))),
        health: Health::default(),
        dns: Mutex::new(None),
        names: datapath.directory.names(),
        datapath,
        since,
        config,
    })
}

/// The kernel's network, with the addresses and settings that containers need.
async fn network(settings: selvedge_netsetup::Settings) -> anyhow::Result<Arc<Network>> {
    let network = Network::open(settings).await.context("cannot reach the kernel's network")?;
    network.prepare_host().await.context("cannot prepare the host's network")?;
    Ok(Arc::new(network))
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

/// Takes what the keeper answers to questions of ours, as long as it is there.
async fn take_answers(worker: &Worker) {
    while !matches!(worker.api.keeper.order().await, Order::KeeperGone) {}
}

/// Lets requests that are under way come to their end, and gives idle clients to the next worker.
async fn leave(worker: &Worker, order: Order) {
    info!(?order, "leaving");
    let limit = match order {
        Order::Drain { limit } => {
            worker.api.leave();
            // Those that wait for an engine stop at once; then the next worker may have their clients.
            tokio::task::yield_now().await;
            worker.api.keeper.release().await;
            // The next worker is there: until then this one's presence in the registry was the host's. A slow registry
            // forgets this one by itself.
            let _ = tokio::time::timeout(LEAVE, worker.datapath.cluster.leave()).await;
            // What is under way then is the next worker's to go on with, as after a death.
            limit.saturating_sub(LEAVE)
        }
        Order::Stop { grace } => grace.min(Duration::from_secs(1)),
        _ => Duration::ZERO,
    };
    tokio::select! {
        _ = tokio::time::timeout(limit, worker.api.counters.all_ended()) => {}
        () = take_answers(worker) => {}
    }
    worker.stop_dns();
    worker.api.keeper.done();
}
