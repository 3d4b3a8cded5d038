//! A registry of three members: Debian's ZooKeeper or etcd, each member in a namespace of its own.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::fleet::relay::Relay;
use crate::fleet::switch::Switch;
use crate::host::Host;
use crate::wait::until_true;

/// Which servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// Apache ZooKeeper, of the package zookeeperd.
    Zookeeper,
    /// etcd, of the package etcd-server.
    Etcd,
}

/// An ensemble.
#[derive(Debug)]
pub struct Store {
    kind: StoreKind,
    members: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    child: Mutex<Option<Child>>,
    host: Host,
    address: String,
    relay: Relay,
}

const MEMBERS: usize = 3;
/// A Java machine on a busy host takes its time.
const START: Duration = Duration::from_secs(90);
/// Where the servers listen themselves; clients come by way of the relays.
const BEHIND: u16 = 12_000;

impl StoreKind {
    fn port(self) -> u16 {
        match self {
            Self::Zookeeper => 2181,
            Self::Etcd => 2379,
        }
    }
}

impl Store {
    /// Starts the members, and waits until they serve.
    ///
    /// # Panics
    /// When they do not: are the packages installed?
    #[must_use]
    pub fn start(kind: StoreKind, switch: &Switch) -> Self {
        let members = (1..=MEMBERS)
            .map(|number| {
                let host = Host::new();
                let address = switch.plug_store(&host, number);
                let from = format!("{address}:{}", kind.port());
                let relay = Relay::start(&host.netns, &from, &format!("127.0.0.1:{BEHIND}"));
                Node { child: Mutex::new(None), host, address, relay }
            })
            .collect();
        let store = Self { kind, members };
        (0..MEMBERS).for_each(|number| store.spawn(number));
        store.until_serves();
        store
    }

    /// The URL for `--registry`, with this folder.
    #[must_use]
    pub fn url(&self, folder: &str) -> String {
        let scheme = match self.kind {
            StoreKind::Zookeeper => "zookeeper",
            StoreKind::Etcd => "etcd",
        };
        let hosts: Vec<String> =
            self.members.iter().map(|node| format!("{}:{}", node.address, self.kind.port())).collect();
        format!("{scheme}://{}/{folder}", hosts.join(","))
    }

    /// How many members there are.
    #[must_use]
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// Kills a member, by its number from 0.
    pub fn kill(&self, number: usize) {
        let child = self.members[number].child.lock().expect("no test panics in here").take();
        if let Some(mut child) = child {
            let _ = kill(Pid::from_raw(i32::try_from(child.id()).unwrap_or(0)), Signal::SIGKILL);
            let _ = child.wait();
        }
    }

    /// Starts a killed member again, with the data that it had.
    pub fn start_again(&self, number: usize) {
        self.spawn(number);
    }

    /// Kills all.
    pub fn kill_all(&self) {
        (0..MEMBERS).for_each(|number| self.kill(number));
    }

    /// Starts all that were killed, and waits until they serve.
    pub fn start_all_again(&self) {
        (0..MEMBERS).for_each(|number| self.spawn(number));
        self.until_serves();
    }

    /// Kills all, takes their data away, and starts them.
    ///
    /// # Panics
    /// When the data cannot be removed.
    pub fn empty(&self) {
        self.kill_all();
        for node in &self.members {
            std::fs::remove_dir_all(node.host.path("data")).expect("the data can be removed");
        }
        self.start_all_again();
    }

    /// From now on each packet between the hosts and the registry is this much later.
    pub fn delay(&self, by: Duration) {
        self.members.iter().for_each(|node| node.relay.delay(by));
    }

    /// Waits until a majority serves.
    ///
    /// # Panics
    /// When it does not.
    pub fn until_serves(&self) {
        until_true("the registry serves", START, || self.members.iter().any(|node| self.serves(node)));
    }

    /// Waits until every member serves: what a rolling restart waits for before the next one.
    ///
    /// # Panics
    /// When one does not.
    pub fn until_all_serve(&self) {
        until_true("all members of the registry serve", START, || {
            self.members.iter().all(|node| self.serves(node))
        });
    }

    fn serves(&self, node: &Node) -> bool {
        match self.kind {
            StoreKind::Zookeeper => {
                let said = node.host.sh(&format!("echo srvr | busybox nc -w 2 127.0.0.1 {BEHIND}")).stdout;
                said.contains("Mode: leader") || said.contains("Mode: follower")
            }
            StoreKind::Etcd => {
                let url = format!("http://127.0.0.1:{BEHIND}/health");
                node.host.sh(&format!("curl -s -m 2 {url}")).stdout.contains("\"true\"")
            }
        }
    }

    fn spawn(&self, number: usize) {
        let node = &self.members[number];
        let mut child = node.child.lock().expect("no test panics in here");
        if child.is_some() {
            return;
        }
        std::fs::create_dir_all(node.host.path("data")).expect("a directory can be made");
        let mut command = match self.kind {
            StoreKind::Zookeeper => self.zookeeper(number),
            StoreKind::Etcd => self.etcd(number),
        };
        let log = File::options().create(true).append(true).open(node.host.path("store.log"));
        let log = log.expect("a log can be made");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor")).stderr(log);
        *child = Some(command.process_group(0).spawn().expect("nsenter can be started"));
    }

    fn zookeeper(&self, number: usize) -> Command {
        let node = &self.members[number];
        let servers: String = self
            .members
            .iter()
            .enumerate()
            .map(|(index, node)| format!("server.{}={}:2888:3888\n", index + 1, node.address))
            .collect();
        let config = format!(
            "tickTime=1000\ninitLimit=10\nsyncLimit=5\nmaxClientCnxns=0\nadmin.enableServer=false\n\
             4lw.commands.whitelist=srvr\ndataDir={}\nclientPortAddress=127.0.0.1\nclientPort={BEHIND}\n{servers}",
            node.host.path("data").display()
        );
        std::fs::write(node.host.path("zoo.cfg"), config).expect("a file can be written");
        std::fs::write(node.host.path("data/myid"), (number + 1).to_string()).expect("a file can be written");
        let mut command = node.host.command("java");
        // The marker in the path of the configuration is how the reaper finds it.
        command.args(["-Xmx160m", "-XX:+UseSerialGC", "-Dzookeeper.forceSync=no"]);
        command.args(["-cp", "/usr/share/java/zookeeper.jar"]);
        command.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(node.host.path("zoo.cfg"));
        command
    }

    fn etcd(&self, number: usize) -> Command {
        let node = &self.members[number];
        let name = |index: usize| format!("m{}", index + 1);
        let peers: Vec<String> = self
            .members
            .iter()
            .enumerate()
            .map(|(index, node)| format!("{}=http://{}:2380", name(index), node.address))
            .collect();
        let (own, behind) = (format!("http://{}:2380", node.address), format!("http://127.0.0.1:{BEHIND}"));
        let mut command = node.host.command("etcd");
        command.args(["--name", &name(number), "--data-dir"]).arg(node.host.path("data"));
        command.args(["--listen-peer-urls", &own, "--initial-advertise-peer-urls", &own]);
        command.args(["--listen-client-urls", &behind, "--advertise-client-urls", &behind]);
        command.args(["--initial-cluster", &peers.join(","), "--initial-cluster-state", "new"]);
        command.args(["--unsafe-no-fsync", "--log-level", "warn"]);
        command
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.kill_all();
    }
}
