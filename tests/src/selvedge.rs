//! The real binary, in a test host.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::docker::Docker;
use crate::engine::Engine;
use crate::firewalld;
use crate::host::Host;
use crate::http;
use crate::shell::{Output, run};
use crate::wait::{until, until_true};

/// A running Selvedge.
#[derive(Debug)]
pub struct Selvedge {
    dir: PathBuf,
    runtime: PathBuf,
    netns: String,
    engine: PathBuf,
    arguments: Vec<String>,
    own_mounts: bool,
    child: Mutex<Option<Child>>,
}

const START: Duration = Duration::from_secs(30);

/// The binary that was built along with the tests.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("SELVEDGE_BINARY") {
        return path.into();
    }
    let own = std::env::current_exe().expect("a test has a path");
    // A test is target/PROFILE/deps/TEST, a program of ours target/PROFILE/PROGRAM.
    let folders = own.ancestors().skip(1).take(2).map(|folder| folder.join("selvedge"));
    let found: Vec<PathBuf> = folders.collect();
    let built = found.iter().find(|path| path.is_file()).unwrap_or(&found[0]).clone();
    assert!(built.exists(), "{} is not there; run `cargo build -p selvedge`", built.display());
    built
}

impl Selvedge {
    /// Starts it in front of an engine, and waits until it serves.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn start(host: &Host, engine: &Engine, arguments: &[&str]) -> Self {
        let selvedge = Self::prepare(host, &engine.socket, arguments);
        selvedge.start_again();
        selvedge
    }

    /// One that is not yet started, in front of a socket.
    #[must_use]
    pub fn prepare(host: &Host, engine: &Path, arguments: &[&str]) -> Self {
        Self {
            dir: host.dir.clone(),
            runtime: host.path("run"),
            netns: host.netns.clone(),
            engine: engine.to_owned(),
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            own_mounts: false,
            child: Mutex::new(None),
        }
    }

    /// The same in a mount namespace of its own, so that a test may spoil what it sees of the machine.
    #[must_use]
    pub fn in_own_mounts(mut self) -> Self {
        self.own_mounts = true;
        self
    }

    /// The socket on which it listens; for the control (`scripts/test --control`), the engine's own.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        if std::env::var_os("SELVEDGE_TESTS_CONTROL").is_some() {
            return self.engine.clone();
        }
        self.own_socket()
    }

    fn own_socket(&self) -> PathBuf {
        self.runtime.join("docker.sock")
    }

    /// Debian's CLI against it.
    #[must_use]
    pub fn docker(&self) -> Docker {
        Docker::new(&self.socket())
    }

    /// A command of its binary in its host.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.netns)).arg(binary()).args(arguments);
        command.env(firewalld::BUS, firewalld::address(&self.dir));
        command
    }

    /// Runs `selvedge VERB --runtime-dir ...`.
    pub fn ask(&self, arguments: &[&str]) -> Output {
        let runtime = self.runtime.display().to_string();
        run(&mut self.command(&[arguments, &["--runtime-dir", &runtime]].concat()), b"")
    }

    /// `selvedge status --json`.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn status(&self) -> Value {
        serde_json::from_str(self.ask(&["status", "--json"]).ok()).expect("status answers JSON")
    }

    /// `selvedge ps --json`.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn ps(&self) -> Vec<Value> {
        serde_json::from_str(self.ask(&["ps", "--json"]).ok()).expect("ps answers JSON")
    }

    /// One container of `selvedge ps`.
    #[must_use]
    pub fn shown(&self, name: &str) -> Option<Value> {
        self.ps().into_iter().find(|container| container["name"] == name)
    }

    /// Starts it, without waiting until it serves.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(&self) {
        let log = File::options().create(true).append(true).open(self.log_path()).expect("a log can be made");
        let of = |path: &Path| path.display().to_string();
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.netns));
        if self.own_mounts {
            // Both exec what follows: the pid stays.
            command.args(["unshare", "--mount", "--propagation", "private"]);
        }
        command.arg(binary()).args(["run", "--runtime-dir", &of(&self.runtime)]);
        command.args([
            "--engine",
            &format!("unix://{}", of(&self.engine)),
            "--wait-path",
            &of(&self.dir.join("wait")),
        ]);
        command.args(&self.arguments).env("SELVEDGE_LOG", "debug,hyper=info,hyper_util=info");
        command.env(firewalld::BUS, firewalld::address(&self.dir));
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .process_group(0);
        *self.child.lock().expect("no test panics in here") =
            Some(command.spawn().expect("nsenter can be started"));
    }

    /// Starts it and waits until it serves.
    pub fn start_again(&self) {
        self.spawn();
        let up = || http::get(&self.own_socket(), "/_ping").is_ok_and(|answer| answer.status == 200);
        until_true(&format!("Selvedge serves (log: {})", self.log_path().display()), START, up);
    }

    /// Where it logs.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.dir.join("selvedge.log")
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The keeper's process.
    ///
    /// # Panics
    /// When it is not running.
    #[must_use]
    pub fn keeper(&self) -> u32 {
        self.keeper_of(self.child.lock().expect("no test panics in here").as_ref().expect("it runs"))
    }

    /// The process that was started, or the one that has taken over from it.
    fn keeper_of(&self, child: &Child) -> u32 {
        let keepers = self.keepers();
        if keepers.contains(&child.id()) {
            return child.id();
        }
        let second = |pid: &u32| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "selvedge:second\n")
        };
        keepers.into_iter().find(|pid| !second(pid)).unwrap_or(child.id())
    }

    /// The living processes of `selvedge run` here: the keeper and its second.
    fn keepers(&self) -> Vec<u32> {
        let wanted = format!("\0run\0--runtime-dir\0{}\0", self.runtime.display());
        let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
        let pids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
        let is_it = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&wanted)
        };
        pids.filter(is_it).collect()
    }

    /// Kills the keeper and its second at one instant.
    fn kill_keepers(&self) {
        let mut found = self.keepers();
        while !found.is_empty() {
            found.iter().for_each(|&pid| signal(pid, Signal::SIGSTOP));
            found.iter().for_each(|&pid| signal(pid, Signal::SIGKILL));
            found = self.keepers();
        }
    }

    /// The worker's process.
    #[must_use]
    pub fn worker(&self) -> u32 {
        until("a worker", START, || self.try_worker())
    }

    fn try_worker(&self) -> Option<u32> {
        let output = self.ask(&["status", "--json"]);
        let status: Value = serde_json::from_str(&output.stdout).ok()?;
        status["worker"]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok())
    }

    /// Memory of its own in all its processes, in KiB: without what it maps from files.
    ///
    /// # Panics
    /// When the kernel does not say.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.keepers().into_iter().chain([self.worker()]).map(own_memory).sum()
    }

    /// Kills the worker and waits for the next one.
    pub fn kill_worker(&self) {
        let old = self.worker();
        signal(old, Signal::SIGKILL);
        until_true("another worker", START, || self.try_worker().is_some_and(|pid| pid != old));
    }

    /// Kills the keeper, once it has a second, and waits until that has taken over and has one itself.
    pub fn kill_keeper(&self) {
        let (old, ..) = until("a keeper with a second", START, || self.try_keepers());
        signal(old, Signal::SIGKILL);
        until_true("another keeper", START, || self.try_keepers().is_some_and(|(pid, _)| pid != old));
    }

    /// The keeper and its second.
    fn try_keepers(&self) -> Option<(u32, u32)> {
        let status: Value = serde_json::from_str(&self.ask(&["status", "--json"]).stdout).ok()?;
        let pid = |name: &str| u32::try_from(status["keeper"][name].as_u64()?).ok().filter(|pid| *pid > 0);
        Some((pid("pid")?, pid("second")?))
    }

    /// Stops it in an orderly way, and waits for its end.
    pub fn stop(&self) {
        self.end(Signal::SIGTERM);
    }

    /// Ends the keeper by a signal, and waits for the end of keeper and worker.
    pub fn end(&self, how: Signal) {
        let worker = self.try_worker();
        let child = self.child.lock().expect("no test panics in here").take();
        let Some(mut child) = child else { return };
        match how {
            // Each alone would be replaced by the other.
            Signal::SIGKILL => self.kill_keepers(),
            how => signal(self.keeper_of(&child), how),
        }
        let _ = child.wait();
        until_true("keeper and second have ended", START, || self.keepers().is_empty());
        if let Some(worker) = worker {
            until_true("the worker has ended", START, || !Path::new(&format!("/proc/{worker}")).exists());
        }
    }
}

impl Drop for Selvedge {
    fn drop(&mut self) {
        // The pid of one that has been waited for may be another process's by now.
        let keeper = self.child.get_mut().ok().and_then(Option::take);
        if let Some(mut child) = keeper {
            signal(self.keeper_of(&child), Signal::SIGTERM);
            let _ = child.wait();
            until_true("keeper and second have ended", START, || self.keepers().is_empty());
        }
        if std::thread::panicking() {
            eprintln!("--- Selvedge's log\n{}", self.log());
        }
    }
}

fn signal(pid: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(i32::try_from(pid).unwrap_or(0)), signal);
}

/// How many descriptors a process has open.
#[must_use]
pub fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// A process's share of anonymous and shared memory, in KiB.
fn own_memory(pid: u32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it lives");
    let parts = rollup.lines().filter(|line| line.starts_with("Pss_Anon:") || line.starts_with("Pss_Shmem:"));
    parts.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
}
