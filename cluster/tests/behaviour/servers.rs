//! One server of each kind, started when it is first wanted, on a free port of loopback.
//!
//! Must never outlive the tests: a server dies with the thread that started it, which ends with the process.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long a server may take to answer; a Java machine on a busy host takes its time.
const START: Duration = Duration::from_secs(60);

/// `HOST:PORT` of the ZooKeeper.
pub(crate) fn zookeeper() -> &'static str {
    static SERVER: OnceLock<String> = OnceLock::new();
    SERVER.get_or_init(|| {
        start("java of zookeeperd", |dir, port| {
            // Short ticks: a session can then be as short as a second.
            let config = format!(
                "tickTime=500\ndataDir={0}\nclientPortAddress=127.0.0.1\nclientPort={port}\n\
                 admin.enableServer=false\nmaxClientCnxns=0\n",
                dir.display()
            );
            std::fs::write(dir.join("zoo.cfg"), config).expect("a file can be written");
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "java", "-Xmx128m", "-cp", "/usr/share/java/zookeeper.jar"]);
            command.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(dir.join("zoo.cfg"));
            command
        })
    })
}

/// `HOST:PORT` of the etcd.
pub(crate) fn etcd() -> &'static str {
    static SERVER: OnceLock<String> = OnceLock::new();
    SERVER.get_or_init(|| {
        start("etcd of etcd-server", |dir, port| {
            let client = format!("http://127.0.0.1:{port}");
            let peer = format!("http://127.0.0.1:{}", free_port());
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "etcd", "--name", "one", "--data-dir"]).arg(dir);
            command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
            command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
            command.args(["--initial-cluster", &format!("one={peer}"), "--unsafe-no-fsync"]);
            command
        })
    })
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

fn start(what: &str, command: impl FnOnce(&Path, u16) -> Command) -> String {
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
        assert!(Instant::now() < end, "{what} does not answer within {START:?}; is the package installed?");
        std::thread::sleep(Duration::from_millis(50));
    }
    address
}
