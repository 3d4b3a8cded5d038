//! One server of each kind, started when it is first wanted, on a free port of loopback.
//!
//! Must never outlive the tests: a server dies with the thread that started it, which ends with the process.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// ZooKeeper's own jar names the others that it needs, but for two that Debian's has forgotten and TLS needs.
const JARS: &str =
    "/usr/share/java/zookeeper.jar:/usr/share/java/netty-codec.jar:/usr/share/java/netty-resolver.jar";
/// How long a server may take to answer; a Java machine on a busy host takes its time.
const START: Duration = Duration::from_secs(60);

/// `HOST:PORT` of the ZooKeeper.
pub(crate) fn zookeeper() -> &'static str {
    static SERVER: OnceLock<String> = OnceLock::new();
    SERVER.get_or_init(|| start("ZooKeeper", |dir, port| zookeeper_at(dir, port, "")))
}

/// A ZooKeeper with a few lines more in its configuration.
pub(crate) fn zookeeper_at(dir: &Path, port: u16, more: &str) -> Command {
    // Short ticks: a session can then be as short as a second.
    let config = format!(
        "tickTime=500\ndataDir={0}\nclientPortAddress=127.0.0.1\nclientPort={port}\n\
         admin.enableServer=false\nmaxClientCnxns=0\n{more}",
        dir.display()
    );
    std::fs::write(dir.join("zoo.cfg"), config).expect("a file can be written");
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "java", "-Xmx128m", "-cp", JARS]);
    command.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(dir.join("zoo.cfg"));
    command
}

/// `HOST:PORT` of the etcd.
pub(crate) fn etcd() -> &'static str {
    static SERVER: OnceLock<String> = OnceLock::new();
    SERVER.get_or_init(|| start("etcd", |dir, port| etcd_at(dir, &format!("http://127.0.0.1:{port}"))))
}

/// An etcd whose clients come there.
pub(crate) fn etcd_at(dir: &Path, client: &str) -> Command {
    let peer = format!("http://127.0.0.1:{}", free_port());
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "etcd", "--name", "one", "--data-dir"]).arg(dir);
    command.args(["--listen-client-urls", client, "--advertise-client-urls", client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &format!("one={peer}"), "--unsafe-no-fsync"]);
    command
}

/// A port of loopback that nobody has.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

/// Starts a server that listens at a port of its own; `HOST:PORT` once it answers.
pub(crate) fn start(what: &str, command: impl FnOnce(&Path, u16) -> Command) -> String {
    let dir = tempfile::tempdir().expect("a directory").keep();
    let port = free_port();
    let mut command = command(&dir, port);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let name = what.to_owned();
    // The kernel ends the server with the thread that started it: this one never ends by itself.
    std::thread::spawn(move || {
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let _ = child.wait();
        panic!("{name} has ended");
    });
    let address = format!("127.0.0.1:{port}");
    let end = Instant::now() + START;
    while TcpStream::connect(&address).is_err() {
        assert!(
            Instant::now() < end,
            "{what} does not answer within {START:?}; are zookeeperd and etcd-server installed?"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    address
}
