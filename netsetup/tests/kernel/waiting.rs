//! Containers whose first program is the real `wait`, and programs for it to become.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::sh;

/// The real binary, built as selvedge/build.rs builds it.
fn wait_binary() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wait");
        let build = ["build", "--quiet", "-p", "selvedge-wait", "--profile", "tiny", "--target-dir"];
        let done =
            Command::new(env!("CARGO")).args(build).arg(&target).env_remove("RUSTFLAGS").status().unwrap();
        assert!(done.success());
        target.join("tiny/wait")
    })
}

/// Programs, and files that are not programs, in a world-readable directory that is removed with its last user.
pub(crate) struct Programs(PathBuf);

impl Drop for Programs {
    fn drop(&mut self) {
        let _removed = std::fs::remove_dir_all(&self.0);
    }
}

impl std::ops::Deref for Programs {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

pub(crate) fn programs() -> Arc<Programs> {
    static MADE: Mutex<Weak<Programs>> = Mutex::new(Weak::new());
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let mut made = MADE.lock().unwrap();
    if let Some(programs) = made.upgrade() {
        return programs;
    }
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let directory = std::env::temp_dir().join(format!("selvedge-wait-{}-{count}", std::process::id()));
    std::fs::create_dir_all(directory.join("closed")).unwrap();
    let files = [
        ("script", "#!/bin/sh\necho \"$0\" \"$@\"\n", 0o755),
        ("text", "echo as shell \"$@\"\n", 0o755),
        ("interpreter-missing", "#!/nowhere/sh\n", 0o755),
        ("data", "data\n", 0o644),
        ("closed/script", "#!/bin/sh\n", 0o755),
    ];
    for (name, content, mode) in files {
        std::fs::write(directory.join(name), content).unwrap();
        std::fs::set_permissions(directory.join(name), PermissionsExt::from_mode(mode)).unwrap();
    }
    std::fs::set_permissions(directory.join("closed"), PermissionsExt::from_mode(0o700)).unwrap();
    std::fs::copy(wait_binary(), directory.join("wait")).unwrap();
    let programs = Arc::new(Programs(directory));
    *made = Arc::downgrade(&programs);
    programs
}

/// A container whose first program is `wait`.
pub(crate) struct Waiting {
    pub(crate) process: Child,
    /// `wait` itself: another process than the first when there are namespaces or an init around it.
    pub(crate) pid: u32,
}

impl Waiting {
    /// Starts `wait` under some other commands, in a network namespace of its own.
    pub(crate) fn start(around: &[&str], program: &[&str]) -> Self {
        Self::start_command(Command::new("unshare").args(["-n"]).args(around), program)
    }

    pub(crate) fn start_command(command: &mut Command, program: &[&str]) -> Self {
        let command = command.arg(programs().join("wait")).args(program);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).current_dir(&**programs());
        let process = command.spawn().unwrap();
        let mut waiting = Self { pid: process.id(), process };
        let begin = Instant::now();
        while !waiting.state().starts_with("sv:") {
            assert!(begin.elapsed() < Duration::from_secs(10), "no state, but {}", waiting.state());
            waiting.pid = children(waiting.pid).first().copied().unwrap_or(waiting.pid);
            std::thread::sleep(Duration::from_millis(1));
        }
        waiting
    }

    pub(crate) fn state(&self) -> String {
        std::fs::read_to_string(format!("/proc/{}/comm", self.pid)).unwrap_or_default().trim().to_owned()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.pid).unwrap()), signal).unwrap();
    }

    pub(crate) fn ip(&self, arguments: &str) {
        sh(&format!("nsenter -t {} -n ip {arguments}", self.pid));
    }

    /// A link over which routes can lead.
    pub(crate) fn give_link(&self) {
        self.ip("link add selvedge0 type veth peer name other");
        self.ip("link set selvedge0 up");
        self.ip("link set other up");
        self.ip("route add 169.254.1.1 dev selvedge0");
    }

    pub(crate) fn give_sign(&self) {
        self.give_link();
        self.ip("route add 10.32.0.0/12 via 169.254.1.1 proto 83");
    }

    /// Exit code, standard output and standard error.
    pub(crate) fn end(mut self) -> (i32, String, String) {
        let begin = Instant::now();
        while self.process.try_wait().unwrap().is_none() {
            if begin.elapsed() > Duration::from_secs(10) {
                let _stopped = self.process.kill();
                panic!("still running: {}", self.state());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let (mut out, mut err) = (String::new(), String::new());
        self.process.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        self.process.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (self.process.wait().unwrap().code().unwrap_or(-1), out, err)
    }
}

fn children(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|number| number.parse().unwrap()).collect()
}
