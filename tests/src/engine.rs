//! Real engines: Debian's dockerd of this machine, those of Debian trixie and sid in roots of their own, and podman.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::docker::Docker;
use crate::firewalld;
use crate::host::Host;
use crate::http;
use crate::shell::run;
use crate::wait::until_true;

/// Where `scripts/test` puts the root of Debian trixie.
pub const TRIXIE: &str = "/var/cache/selvedge-tests/trixie";

/// Where it puts the root of Debian sid.
pub const SID: &str = "/var/cache/selvedge-tests/sid";

/// A running dockerd, or podman's service.
#[derive(Debug)]
pub struct Engine {
    /// Its API socket.
    pub socket: PathBuf,
    kind: Kind,
    dir: PathBuf,
    netns: String,
    arguments: Vec<String>,
    child: Mutex<Child>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Debian,
    Trixie,
    Sid,
    Podman,
}

impl Kind {
    /// The root that it has to itself.
    fn root(self) -> Option<&'static str> {
        match self {
            Self::Debian | Self::Podman => None,
            Self::Trixie => Some(TRIXIE),
            Self::Sid => Some(SID),
        }
    }

    /// Its settings. Sid's engine keeps its images in containerd, as new installations do.
    fn settings(self) -> &'static str {
        match self {
            Self::Debian | Self::Trixie => "{}",
            Self::Podman => PODMAN,
            Self::Sid => r#"{"features":{"containerd-snapshotter":true}}"#,
        }
    }
}

const START: Duration = Duration::from_secs(60);

impl Engine {
    /// Debian's engine (API 1.41), with the image `busybox`.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn debian(host: &Host, arguments: &[&str]) -> Self {
        Self::start(host, Kind::Debian, arguments)
    }

    /// The engine of Debian trixie (API 1.45 or newer), with the image `busybox`.
    ///
    /// # Panics
    /// When its root is not there (`scripts/test` makes it) or it does not start.
    #[must_use]
    pub fn trixie(host: &Host, arguments: &[&str]) -> Self {
        Self::start(host, Kind::Trixie, arguments)
    }

    /// The engine of Debian sid with the containerd image store, with the image `busybox`.
    ///
    /// # Panics
    /// As [`Self::trixie`].
    #[must_use]
    pub fn sid(host: &Host, arguments: &[&str]) -> Self {
        Self::start(host, Kind::Sid, arguments)
    }

    /// Debian's podman with its Docker API, with the image `busybox`. What it keeps in `/run/netns` is taken away when this
    /// is dropped: it must not be kept in a static.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn podman(host: &Host) -> Self {
        Self::start(host, Kind::Podman, &[])
    }

    fn start(host: &Host, kind: Kind, arguments: &[&str]) -> Self {
        if let Some(root) = kind.root() {
            let there = Path::new(root).join("usr/sbin/dockerd").exists();
            assert!(there, "no {root}; run ./scripts/test, which makes it");
        }
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let child = spawn(kind, &host.dir, &host.netns, &arguments);
        let (dir, netns) = (host.dir.clone(), host.netns.clone());
        let engine =
            Self { socket: host.path("engine.sock"), kind, dir, netns, arguments, child: Mutex::new(child) };
        engine.until_up();
        engine.import_busybox();
        engine
    }

    fn until_up(&self) {
        let log = self.dir.join("dockerd.log");
        let up = || http::get(&self.socket, "/_ping").is_ok_and(|answer| answer.status == 200);
        let end = Instant::now() + START;
        while !up() {
            assert!(Instant::now() < end, "dockerd does not answer within {START:?}:\n{}", tail(&log));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The CLI against this engine, without Selvedge.
    #[must_use]
    pub fn docker(&self) -> Docker {
        match self.kind {
            Kind::Debian | Kind::Podman => Docker::new(&self.socket),
            Kind::Trixie | Kind::Sid => Docker::of_trixie(&self.socket, self.pid()),
        }
    }

    /// The CLI of this engine's time against another socket.
    #[must_use]
    pub fn docker_at(&self, socket: &Path) -> Docker {
        match self.kind {
            Kind::Debian | Kind::Podman => Docker::new(socket),
            Kind::Trixie | Kind::Sid => Docker::of_trixie(socket, self.pid()),
        }
    }

    /// The engine's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        // nsenter becomes podman.
        if self.kind == Kind::Podman {
            return self.child.lock().expect("no test panics in here").id();
        }
        let text = std::fs::read_to_string(self.dir.join("dockerd.pid")).unwrap_or_default();
        text.trim().parse().expect("dockerd writes its pid")
    }

    fn import_busybox(&self) {
        let archive = make_image(&self.dir);
        let import = ["import", "-c", "CMD [\"sh\"]", archive.to_str().expect("a plain path"), "busybox"];
        self.docker().run(&import).ok();
    }

    /// Ends dockerd by a signal and waits for its end.
    pub fn end(&self, signal: Signal) {
        let pid = self.pid();
        let _ = kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), signal);
        let mut child = self.child.lock().expect("no test panics in here");
        let _ = child.wait();
        until_true("dockerd has ended", START, || !Path::new(&format!("/proc/{pid}")).exists());
    }

    /// Lets dockerd stand still, as a hung one does.
    pub fn pause(&self) {
        let _ = kill(Pid::from_raw(i32::try_from(self.pid()).expect("a pid")), Signal::SIGSTOP);
    }

    /// Lets it stand still until the guard is dropped, which a failing test does too: its clients end.
    #[must_use]
    pub fn paused(&self) -> Paused {
        Paused::new(self.pid())
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        let _ = kill(Pid::from_raw(i32::try_from(self.pid()).expect("a pid")), Signal::SIGCONT);
    }

    // The containerd of a killed dockerd is killed with it; its pid file stays, and where nobody collects
    // orphans its pid too: the next dockerd would wait for it.
    fn end_containerd(&self) {
        let file = self.dir.join("exec/containerd/containerd.pid");
        let Ok(text) = std::fs::read_to_string(&file) else { return };
        if let Ok(pid) = text.trim().parse() {
            let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if command.contains(&self.dir.display().to_string()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        let _ = std::fs::remove_file(&file);
    }

    /// Starts dockerd again after [`Self::end`].
    pub fn start_again(&self) {
        // A killed dockerd leaves its pid file, and one that finds it refuses while some process has that pid.
        let _ = std::fs::remove_file(self.dir.join("dockerd.pid"));
        self.end_containerd();
        *self.child.lock().expect("no test panics in here") =
            spawn(self.kind, &self.dir, &self.netns, &self.arguments);
        self.until_up();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // The pid of one that has been waited for may be another process's by now.
        if self.kind == Kind::Podman {
            let _ = run(podman(&self.dir, &self.netns).args(["rm", "--all", "--force", "--time", "0"]), b"");
        }
        if let Ok(child) = self.child.get_mut()
            && matches!(child.try_wait(), Ok(None))
        {
            // Containers end with it, in an orderly way; what is left is the reaper's.
            let _ = kill(Pid::from_raw(i32::try_from(child.id()).unwrap_or(0)), Signal::SIGTERM);
            let _ = child.wait();
        }
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

fn spawn(kind: Kind, dir: &Path, netns: &str, arguments: &[String]) -> Child {
    let log =
        File::options().create(true).append(true).open(dir.join("dockerd.log")).expect("a log can be made");
    std::fs::write(dir.join("daemon.json"), kind.settings()).expect("a file can be made");
    let mut command = match kind {
        Kind::Podman => podman(dir, netns),
        _ => dockerd(kind, dir, netns),
    };
    if kind == Kind::Podman {
        command.args(["system", "service", "--time=0"]);
        command.arg(format!("unix://{}", dir.join("engine.sock").display()));
    }
    command.args(arguments);
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor")).stderr(log).process_group(0);
    command.spawn().expect("nsenter can be started")
}

/// Its own limits are above what a container may be given here; runc is what Debian has beside dockerd.
const PODMAN: &str = r#"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
"#;

fn podman(dir: &Path, netns: &str) -> Command {
    let of = |name: &str| dir.join(name).display().to_string();
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{netns}")).arg("podman").env("CONTAINERS_CONF", of("daemon.json"));
    command.args(["--root", &of("data"), "--runroot", &of("exec"), "--tmpdir", &of("libpod")]);
    command
}

fn dockerd(kind: Kind, dir: &Path, netns: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{netns}"));
    if let Some(root) = kind.root() {
        command.args(["unshare", "--mount", "--propagation", "private", "sh", "-ec", PIVOT, "pivot"]);
        command.arg(root).arg(dir);
    }
    let of = |name: &str| dir.join(name).display().to_string();
    command.arg("dockerd").args([
        "--data-root",
        &of("data"),
        "--exec-root",
        &of("exec"),
        "-p",
        &of("dockerd.pid"),
    ]);
    command.args(["-H", &format!("unix://{}", of("engine.sock")), "--config-file", &of("daemon.json")]);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin")).env(firewalld::BUS, firewalld::address(dir));
    command
}

/// Makes a root of another Debian with the lab's directory in it at its own path, and begins there. The root itself
/// stays clean: an overlay takes what is written. An engine that is started again finds its /run, in which the sockets of
/// its containers' shims are.
const PIVOT: &str = r#"
lower=$1; dir=$2; shift 2
mkdir -p $dir/upper $dir/work $dir/root $dir/run-of-engine
mount -t overlay overlay -o lowerdir=$lower,upperdir=$dir/upper,workdir=$dir/work $dir/root
root=$dir/root
mkdir -p $root/old $root$dir
for part in proc sys dev; do mount --rbind /$part $root/$part; done
mount --bind $dir/run-of-engine $root/run
mount --bind $dir $root$dir
cd $root
pivot_root . old
umount -l /old
exec "$@"
"#;

/// Makes the archive of the image `busybox`.
///
/// # Panics
/// When it cannot be made.
pub(crate) fn make_image(dir: &Path) -> PathBuf {
    let (root, archive) = (dir.join("image"), dir.join("image.tar"));
    make_image_root(&root);
    let tar = run(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&archive).arg("."), b"");
    assert_eq!(tar.code, 0, "{}", tar.stderr);
    archive
}

fn make_image_root(root: &Path) {
    for part in ["bin", "etc", "tmp", "root", "var"] {
        std::fs::create_dir_all(root.join(part)).expect("a directory can be made");
    }
    let busybox = root.join("bin/busybox");
    std::fs::copy("/bin/busybox", &busybox).expect("busybox-static is installed");
    let list = run(Command::new("/bin/busybox").arg("--list"), b"").stdout;
    for applet in list.lines().filter(|applet| *applet != "busybox") {
        let _ = std::os::unix::fs::symlink("busybox", root.join("bin").join(applet));
    }
    let users = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n";
    std::fs::write(root.join("etc/passwd"), users).expect("a file can be made");
    std::fs::write(root.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n").expect("a file can be made");
}

/// A process that stands still for as long as this lives.
#[derive(Debug)]
pub struct Paused(Pid);

impl Paused {
    /// Stops it.
    pub(crate) fn new(pid: u32) -> Self {
        let pid = Pid::from_raw(i32::try_from(pid).expect("a pid"));
        let _ = kill(pid, Signal::SIGSTOP);
        Self(pid)
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        // It may have been killed meanwhile.
        let _ = kill(self.0, Signal::SIGCONT);
    }
}
