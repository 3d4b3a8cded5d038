//! A host and containers made of network namespaces, and the tools to look into them.
//!
//! Must never touch the namespace in which the tests were started: every test runs in a thread that leaves it first.

use std::future::Future;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use selvedge_netsetup::{Network, Settings, WireSpec};

/// The gateway in all tests.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// Runs a test in a host of its own.
pub(crate) fn on_a_host<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
        sh("ip link set lo up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Settings as a Selvedge would have them.
pub(crate) fn settings() -> Settings {
    Settings {
        pool: "10.32.0.0/12".parse().unwrap(),
        gateway: GATEWAY,
        dns: GATEWAY,
        group: 7001,
        mtu: None,
        encapsulated: false,
        underlay: None,
        pool6: None,
    }
}

/// A network on a host that is ready.
pub(crate) async fn ready_network() -> Network {
    let network = Network::open(settings()).await.unwrap();
    network.prepare_host().await.unwrap();
    network
}

/// A second worker that sees the same host, with its count of changes at zero.
pub(crate) async fn next_worker() -> Network {
    Network::open(settings()).await.unwrap()
}

/// A process in a network namespace of its own.
pub(crate) struct Container {
    process: Sleeper,
    pub(crate) id: String,
    pub(crate) address: Ipv4Addr,
}

static NEXT: AtomicU32 = AtomicU32::new(1);

impl Container {
    /// Starts one with an id and an address that no other test of this process has.
    pub(crate) fn start() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("{number:012x}{:052x}", std::process::id());
        let [_, _, c, d] = number.to_be_bytes();
        let mut container = Self { process: sleeper(), id, address: Ipv4Addr::new(10, 32, c, d) };
        container.settle();
        container
    }

    /// The same container after a restart: another process, another namespace.
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.process = sleeper();
        self.settle();
    }

    /// A new incarnation while the former one is still there, as when its namespace is slow to die.
    pub(crate) fn reincarnate(&mut self) -> Sleeper {
        let former = std::mem::replace(&mut self.process, sleeper());
        self.settle();
        former
    }

    /// Ends it.
    pub(crate) fn stop(&mut self) {
        self.process.end();
    }

    /// Its first process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The name of the host's end of its wire.
    pub(crate) fn host_end(&self) -> String {
        selvedge_netsetup::host_interface(&self.id)
    }

    /// The wire that it wants.
    pub(crate) fn spec(&self) -> WireSpec {
        WireSpec { container: self.id.clone(), address: self.address, pid: self.pid() }
    }

    /// Runs a command inside, and gives what it printed; it must succeed.
    pub(crate) fn sh(&self, command: &str) -> String {
        sh(&format!("nsenter -t {} -n {command}", self.pid()))
    }

    /// Whether a command succeeds inside.
    pub(crate) fn try_sh(&self, command: &str) -> bool {
        try_sh(&format!("nsenter -t {} -n {command}", self.pid()))
    }

    fn settle(&mut self) {
        settled(self.pid());
        // Docker does that before the first process runs.
        self.sh("ip link set lo up");
    }
}

/// Waits until a sleeper is in its own namespace.
pub(crate) fn settled(pid: u32) {
    let own = std::fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
    let begin = Instant::now();
    while selvedge_netsetup::inode_of(pid).unwrap() == own {
        assert!(begin.elapsed() < Duration::from_secs(5), "the container does not start");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A process in a network namespace of its own.
pub(crate) fn sleeper() -> Sleeper {
    let mut command = Command::new("unshare");
    command.args(["-n", "sleep", "1000"]).stdin(Stdio::null()).stdout(Stdio::null());
    Sleeper(command.spawn().unwrap())
}

/// A process that only keeps its namespace alive. It ends when this is dropped, also by a failed test.
pub(crate) struct Sleeper(Child);

impl Sleeper {
    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    fn end(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.end();
    }
}

/// Runs a command on the host, and gives what it printed; it must succeed.
pub(crate) fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Whether a command succeeds on the host.
pub(crate) fn try_sh(command: &str) -> bool {
    let command = format!("{command} >/dev/null 2>&1");
    Command::new("sh").args(["-c", &command]).stdin(Stdio::null()).status().unwrap().success()
}

/// A setting of the host.
pub(crate) fn sysctl(path: &str) -> String {
    sh(&format!("cat /proc/sys/net/{path}")).trim().to_owned()
}
