//! A test host: a network namespace and a directory.

use std::fs::File;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::reaper::Reaper;
use crate::shell::{Output, run, sh};

/// How all suites ask Selvedge for names: what comes behind it may say otherwise.
pub(crate) const DIG: &str = "dig @169.254.1.1 +time=2 +tries=1";

/// A host. Taken away when dropped, and when the test process ends.
#[derive(Debug)]
pub struct Host {
    /// The namespace's name, for `/run/netns`.
    pub netns: String,
    /// A short path (sockets have 107 bytes) for all that belongs to it.
    pub dir: PathBuf,
    _reaper: Reaper,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Host {
    /// A new host with nothing but a loopback.
    ///
    /// # Panics
    /// When it cannot be made; most often: not root.
    #[must_use]
    pub fn new() -> Self {
        // Ends in a letter: the reaper looks for the directory's name, which must not begin another's.
        let id = format!("{}-{}x", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let netns = format!("svt-{id}");
        let dir = PathBuf::from(format!("/tmp/svt-{id}"));
        std::fs::create_dir_all(&dir).expect("a directory in /tmp can be made");
        let reaper = Reaper::of(&dir, &netns);
        let made = sh(&format!("ip netns add {netns} && nsenter --net=/run/netns/{netns} ip link set lo up"));
        assert_eq!(made.code, 0, "a network namespace cannot be made (root?): {}", made.stderr);
        Self { netns, dir, _reaper: reaper }
    }

    /// Another directory on the same host, for a second Selvedge there.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn beside(host: &Self) -> Self {
        let dir = PathBuf::from(format!("/tmp/svt-{}-{}y", std::process::id(), NEXT.fetch_add(1, Relaxed)));
        std::fs::create_dir_all(&dir).expect("a directory in /tmp can be made");
        let reaper = Reaper::of(&dir, "");
        Self { netns: host.netns.clone(), dir, _reaper: reaper }
    }

    /// A path in the host's directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A command that runs in the host's network namespace. Not by `ip netns exec`, which mounts a new /sys
    /// without the cgroups that dockerd needs.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.netns)).arg(program.as_ref());
        command
    }

    /// Runs a line of shell in the host's network namespace.
    pub fn sh(&self, line: &str) -> Output {
        run(self.command("sh").args(["-c", line]), b"")
    }

    /// Kills what a killed engine leaves: containers and their shims, and then the containers' cgroups.
    pub fn kill_all(&self) {
        let mut command = Command::new("sh");
        command.args(["-c", KILL_ALL]).env("DIR", format!("{}/", self.dir.display()));
        run(&mut command, b"");
    }

    /// A UDP socket of the host's network namespace, connected to an address there.
    ///
    /// # Panics
    /// When it cannot be had.
    #[must_use]
    pub fn udp(&self, peer: &str) -> UdpSocket {
        let peer = peer.to_owned();
        // The socket stays where it was opened.
        inside(&self.netns, move || {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a free port");
            socket.connect(peer).expect("an address");
            socket
        })
    }

    /// Names of Selvedge's interfaces on this host.
    #[must_use]
    pub fn wires(&self) -> Vec<String> {
        let links = self.sh("ip -o link show").stdout;
        let name = |line: &str| line.split(": ").nth(1)?.split('@').next().map(str::to_owned);
        links.lines().filter_map(name).filter(|name| name.starts_with("sv")).collect()
    }

    /// What dig says here of a question to Selvedge; `question` as on its command line.
    #[must_use]
    pub fn dig(&self, question: &str) -> String {
        self.sh(&format!("{DIG} {question}")).stdout
    }

    /// What dig is answered about a name in Selvedge's domain: its addresses, sorted; none if there is no such name. Any
    /// other outcome (SERVFAIL, silence) is two words instead, never to be taken for an address or for "no such name".
    #[must_use]
    pub fn resolve(&self, name: &str) -> Vec<String> {
        let text = self.dig(&format!("+noall +comments +answer {name}.selvedge.internal"));
        let status = text.split("status: ").nth(1).and_then(|rest| rest.split(',').next());
        if !matches!(status, Some("NOERROR" | "NXDOMAIN")) {
            return vec!["no answer".to_owned(), status.unwrap_or("SILENT").to_owned()];
        }
        let records = text.lines().filter(|line| !line.starts_with(';'));
        let mut addresses: Vec<String> =
            records.filter_map(|line| line.split_whitespace().last()).map(str::to_owned).collect();
        addresses.sort();
        addresses
    }

    /// Whether an address answers a ping from the host.
    #[must_use]
    pub fn reaches(&self, address: &str) -> bool {
        self.sh(&format!("busybox ping -c 1 -W 1 {address}")).code == 0
    }

    /// Whether the rules between tenants are there.
    #[must_use]
    pub fn keeps_tenants_apart(&self) -> bool {
        let tables = self.sh("nft list tables").stdout;
        let is_group = |rest: &str| rest.len() == 8 && rest.bytes().all(|byte| byte.is_ascii_hexdigit());
        tables.lines().filter_map(|line| line.strip_prefix("table inet selvedge_")).any(is_group)
    }

    /// Addresses to which a route of Selvedge leads.
    #[must_use]
    pub fn routes(&self) -> Vec<String> {
        let routes = self.sh("ip -4 route show proto 83").stdout;
        routes.lines().filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
    }
}

/// Does something in a network namespace.
///
/// # Panics
/// When there is no such namespace, or `work` panics.
pub(crate) fn inside<T: Send + 'static>(netns: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let netns = File::open(format!("/run/netns/{netns}")).expect("the namespace is there");
    // A namespace belongs to a thread: this one does nothing else.
    let entered = std::thread::spawn(move || {
        #[expect(clippy::disallowed_methods, reason = "a thread that does only this and ends")]
        nix::sched::setns(&netns, nix::sched::CloneFlags::CLONE_NEWNET).expect("root may enter it");
        work()
    });
    entered.join().expect("the thread ends")
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

// By the environment: on its command line the shell would find itself.
const KILL_ALL: &str = r#"
for d in /proc/[0-9]*; do
    tr '\0' ' ' <$d/cmdline 2>/dev/null | grep containerd-shim | grep -qF -- "$DIR" || continue
    inside=$(cat $d/task/*/children 2>/dev/null)
    for p in $inside; do groups="$groups $(cut -d: -f3 /proc/$p/cgroup 2>/dev/null | grep -E '/[0-9a-f]{64}$' | sort -u)"; done
    kill -9 $inside ${d#/proc/} 2>/dev/null
done
sleep 0.1
for g in $groups; do rmdir /sys/fs/cgroup$g /sys/fs/cgroup/*$g 2>/dev/null; done
true
"#;
