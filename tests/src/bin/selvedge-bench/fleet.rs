//! One real host among many made-up ones: what it costs to join a registry of 10, 100 and 1,000 hosts with 100
//! containers each, and what one change costs then.
//!
//! The registry is a real ZooKeeper of three, the host a real one with its engine; the others exist only as keys,
//! written as hosts write them.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use selvedge_cluster::key::{HostInfo, Key, write_record};
use selvedge_cluster::store::zookeeper::Zookeeper;
use selvedge_cluster::store::{Lifetime, Reader, Servers, Store as _, StoreError, Writer};
use selvedge_registry::name::Name;
use selvedge_registry::record::Record;
use selvedge_tests::engine::Engine;
use selvedge_tests::fleet::StoreKind;
use selvedge_tests::fleet::store::Store;
use selvedge_tests::fleet::switch::Switch;
use selvedge_tests::host::Host;
use selvedge_tests::selvedge::Selvedge;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::Effort;
use crate::dns_load;
use crate::process::{cpu, pss};
use crate::report::{Aim, Report, SELVEDGE, Scale};

/// Containers of each host.
const CONTAINERS: u32 = 100;
/// Requests that are under way at once.
const AT_ONCE: usize = 256;
/// Changes whose cost is measured in one round.
const CHANGES: u32 = 500;
const LIMIT: Duration = Duration::from_secs(60);

/// Measures with 10, 100 and 1,000 hosts.
///
/// # Errors
/// Something does not start, or does not become right.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> anyhow::Result<()> {
    for hosts in [10, 100, 1000] {
        let switch = Switch::new(1);
        let store = Store::start(StoreKind::Zookeeper, &switch);
        let host = Host::new();
        let _address = switch.plug(&host, 0, 1, false);
        let engine = Engine::debian(&host, &[]);
        let shape = Shape { base: Ipv4Addr::new(10, 32, 0, 0), tenant: None };
        let others = Others::write(&host, &store, hosts, shape)?;
        for round in 1..=effort.rounds.min(3) {
            eprintln!("{hosts} hosts: round {round} of {}", effort.rounds.min(3));
            one_round(&host, &engine, &store, &others, (hosts, report))?;
        }
    }
    Ok(())
}

fn scale(hosts: u32, name: &str, unit: &'static str, aim: Option<f64>) -> Scale {
    Scale {
        name: format!("{hosts} hosts: {name}"),
        unit,
        bases: &[],
        yardstick: "",
        aim: aim.map(Aim::Below),
    }
}

fn one_round(
    host: &Host,
    engine: &Engine,
    store: &Store,
    others: &Others,
    (hosts, report): (u32, &mut Report),
) -> anyhow::Result<()> {
    let began = Instant::now();
    let url = store.url("selvedge");
    let selvedge = Selvedge::start(host, engine, &["--registry", &url, "--host-name", "real"]);
    report.note(&scale(hosts, "ready", "ms", Some(5000.0)), SELVEDGE, began.elapsed().as_secs_f64() * 1e3);
    let routes = || host.sh("ip route show proto 83 | grep -c via").stdout.trim().parse().unwrap_or(0_u32);
    let end = Instant::now() + LIMIT;
    while routes() < hosts {
        ensure!(Instant::now() < end, "{} of {hosts} routes after {LIMIT:?}", routes());
        std::thread::sleep(Duration::from_millis(5));
    }
    let woven = began.elapsed().as_secs_f64() * 1e3;
    report.note(&scale(hosts, "all routes in the kernel", "ms", None), SELVEDGE, woven);
    let worker = [selvedge.worker()];
    // The table of names has been filled; what a start needs for a moment has been given back.
    std::thread::sleep(Duration::from_secs(2));
    let idle = cpu(&worker)?;
    std::thread::sleep(Duration::from_secs(3));
    let idle = (cpu(&worker)? - idle) / 3.0;
    report.note(&scale(hosts, "worker's CPU when nothing happens", "ms/s", None), SELVEDGE, idle * 1e3);
    report.note(&scale(hosts, "worker's memory (PSS)", "MiB", Some(150.0)), SELVEDGE, pss(&worker)? / 1024.0);
    let (before, began) = (cpu(&worker)?, Instant::now());
    others.change()?;
    let spent = cpu(&worker)? - before - idle * began.elapsed().as_secs_f64();
    let each = spent * 1e3 / f64::from(CHANGES * 2);
    report.note(&scale(hosts, "worker's CPU for one change elsewhere", "ms", Some(1.0)), SELVEDGE, each);
    let (pid, queries) = (worker[0], dns_load::queries(hosts * CONTAINERS));
    let turn = inside(host, move || dns_load::turn(resolver(), pid, &queries, 0.6))?;
    report.note(&scale(hosts, "names: CPU per answer", "us", None), SELVEDGE, turn.cpu);
    report.note(&scale(hosts, "names: rate", "answers/s", None), SELVEDGE, turn.rate);
    selvedge.stop();
    Ok(())
}

fn resolver() -> SocketAddr {
    SocketAddr::from(([169, 254, 1, 1], 53))
}

/// Runs something in a thread of the host's network namespace.
fn inside<T: Send>(host: &Host, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    let namespace = File::open(format!("/run/netns/{}", host.netns))?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            #[expect(clippy::disallowed_methods, reason = "a thread that does only this and ends")]
            nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNET)?;
            work()
        });
        thread.join().unwrap_or_else(|_| bail!("a thread has panicked"))
    })
}

/// What made-up containers look like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// The first address of the first host.
    pub(crate) base: Ipv4Addr,
    /// Whose they are.
    pub(crate) tenant: Option<&'static str>,
}

/// The hosts that exist only in the registry: alive as long as this is.
pub(crate) struct Others {
    changes: UnboundedSender<Reply>,
}

/// Told when the changes have been made.
type Reply = std::sync::mpsc::Sender<anyhow::Result<()>>;

impl Others {
    /// Writes all of them into a ZooKeeper that is reached from this host.
    ///
    /// # Errors
    /// It does not take them.
    pub(crate) fn write(host: &Host, store: &Store, hosts: u32, shape: Shape) -> anyhow::Result<Self> {
        let url = store.url("selvedge");
        let endpoints = url.trim_start_matches("zookeeper://").trim_end_matches("/selvedge").split(',');
        let servers = Servers {
            endpoints: endpoints.map(str::to_owned).collect(),
            prefix: "/selvedge".to_owned(),
            session: Duration::from_secs(10),
            ..Servers::default()
        };
        let namespace = File::open(format!("/run/netns/{}", host.netns))?;
        let (written, done) = std::sync::mpsc::channel();
        let (changes, wanted) = unbounded_channel();
        std::thread::spawn(move || {
            #[expect(clippy::disallowed_methods, reason = "a thread that stays in the namespace to its end")]
            let entered = nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNET);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let (Ok(()), Ok(runtime)) = (entered, runtime) else { return };
            runtime.block_on(write_and_change(servers, (hosts, shape), &written, wanted));
        });
        done.recv().context("the writer has ended")??;
        Ok(Self { changes })
    }

    /// A container that comes and goes, again and again.
    fn change(&self) -> anyhow::Result<()> {
        let (reply, done) = std::sync::mpsc::channel();
        self.changes.send(reply).ok().context("the writer has ended")?;
        done.recv()?
    }
}

/// Writes all, says so, and makes changes when it is asked; the session lives as long as this.
async fn write_and_change(
    servers: Servers,
    (hosts, shape): (u32, Shape),
    written: &std::sync::mpsc::Sender<anyhow::Result<()>>,
    mut wanted: UnboundedReceiver<Reply>,
) {
    let (writer, mut reader) = match Zookeeper::new(servers).open().await {
        Ok(opened) => opened,
        Err(error) => return drop(written.send(Err(error.into()))),
    };
    let _ = written.send(write_all(&writer, hosts, shape).await);
    loop {
        tokio::select! {
            // Nobody wants these news; unread they would fill the memory.
            news = reader.next() => if news.is_err() { return },
            reply = wanted.recv() => match reply {
                Some(reply) => drop(reply.send(change(&writer, shape).await)),
                None => return,
            },
        }
    }
}

fn name_of(host: u32) -> String {
    format!("made-up-{host}")
}

impl Shape {
    /// Where the real host looks first is its own choice.
    fn address_of(self, host: u32, container: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base.to_bits() + host * 256 + container + 1)
    }

    fn record(self, host: u32, container: u32) -> Option<Record> {
        let number = host * CONTAINERS + container;
        let names = vec![Name::parse(&format!("h{number}.bench")).ok()?];
        let mut record = Record::new(format!("{number:012x}"), self.address_of(host, container), names);
        record.traits.tenant = self.tenant.map(Into::into);
        Some(record)
    }
}

async fn write_all<W: Writer>(writer: &W, hosts: u32, shape: Shape) -> anyhow::Result<()> {
    let settings = r#"{"pool":"10.32.0.0/12","block_size":24,"epoch":"bench"}"#.to_owned();
    let mut keys = vec![(Key::Settings, settings, Lifetime::Forever)];
    for host in 0..hosts {
        // On a link of its own: reached by VXLAN through the router.
        let address = Ipv4Addr::from_bits(Ipv4Addr::new(192, 168, 128, 0).to_bits() + host).into();
        let info = HostInfo {
            address,
            port: 6785,
            version: "0.1.0".into(),
            datapath: "auto".into(),
            policy: String::new(),
            heeds_stops: false,
        };
        keys.push((Key::Host(name_of(host)), serde_json::to_string(&info)?, Lifetime::Forever));
        let block = ipnet::Ipv4Net::new(shape.address_of(host, 0), 24)?.trunc();
        keys.push((Key::Block(block), name_of(host), Lifetime::Forever));
        for container in 0..CONTAINERS {
            let text = write_record(&shape.record(host, container).context("a name")?);
            keys.push((Key::Record { host: name_of(host), text }, String::new(), Lifetime::Forever));
        }
        let live = Key::Live { host: name_of(host), instance: "1".into() };
        keys.push((live, String::new(), Lifetime::Session));
    }
    let write = |(key, value, lifetime): (Key, String, Lifetime)| async move {
        writer.create(&key.to_string(), &value, lifetime).await.map(drop)
    };
    let done: Result<(), StoreError> =
        stream::iter(keys.into_iter().map(write)).buffer_unordered(AT_ONCE).try_collect().await;
    Ok(done?)
}

async fn change<W: Writer>(writer: &W, shape: Shape) -> anyhow::Result<()> {
    let mut record = shape.record(0, 0).context("a name")?;
    for number in 0..CHANGES {
        record.id = format!("{number:012x}").replace('0', "c");
        record.names = vec![Name::parse(&format!("new{number}"))?];
        let key = Key::Record { host: name_of(0), text: write_record(&record) }.to_string();
        writer.create(&key, "", Lifetime::Forever).await?;
        writer.delete(&key, None).await?;
    }
    Ok(())
}
