//! A real Mesos 1.11, master and agent in one process, in a test host and in front of any Docker socket.
//!
//! `scripts/test` makes the program (`scripts/lib/mesos.sh`). The agent's executor for Docker is not in Mesos' package: the
//! binary `mesos-docker-executor` of these tests stands in for it. It must never reach out of its host: frameworks
//! enter the host's network namespace, and all its files are in the host's directory.

pub mod app;
pub mod churn;
pub mod framework;
pub mod kinds;
pub mod story;
pub mod talk;

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::docker::DEBIAN;
use crate::engine::Paused;
use crate::host::Host;
use crate::wait::until_true;
use framework::Framework;
use talk::Door;

/// Where `scripts/test` puts the program.
pub const FOLDER: &str = "/var/cache/selvedge-tests/mesos-1.11.0";

const START: Duration = Duration::from_secs(60);

/// A running master with its agent.
#[derive(Debug)]
pub struct Mesos {
    door: Door,
    work: PathBuf,
    child: Child,
}

impl Mesos {
    /// Starts them: the agent's Docker is at that socket, its executor in that folder.
    ///
    /// # Panics
    /// When the program is not there (`scripts/test` makes it), or does not come up.
    #[must_use]
    pub fn start(host: &Host, socket: &Path, executor: &Path) -> Self {
        let program = Path::new(FOLDER).join("mesos-cluster");
        assert!(
            program.exists(),
            "no {}; run ./scripts/test --suite mesos_for_real, which makes it",
            program.display()
        );
        let work = host.path("mesos");
        std::fs::create_dir_all(&work).expect("a directory can be made");
        let log = File::create(host.path("mesos.log")).expect("a log can be made");
        let mut command = host.command(&program);
        // The program reads no arguments; the reaper finds it by this one.
        command.arg(&work).env_clear().envs(settings(&work, socket, executor)).current_dir(&work);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .process_group(0);
        let child = command.spawn().expect("nsenter can be started");
        let mesos = Self { door: Door::new(&host.netns, PORT), work, child };
        let what = format!("master and agent are up (log: {}/mesos.log)", host.dir.display());
        until_true(&what, START, || mesos.has_agent());
        mesos
    }

    /// Whether the agent is registered: before, the master may refuse frameworks.
    fn has_agent(&self) -> bool {
        let answer = self.door.get("/master/slaves");
        let slaves: Value =
            answer.ok().and_then(|answer| serde_json::from_str(&answer.text()).ok()).unwrap_or_default();
        slaves["slaves"][0]["active"] == true
    }

    /// A framework, registered with the master.
    #[must_use]
    pub fn framework(&self, name: &str) -> Framework {
        Framework::subscribe(&self.door, name)
    }

    /// What a task's program said on stdout and on stderr, its CLI's words included.
    #[must_use]
    pub fn said(&self, task: &str) -> (String, String) {
        let read = |name: &str| {
            let path = self.sandbox(task).map(|sandbox| sandbox.join(name));
            path.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default()
        };
        (read("stdout"), read("stderr"))
    }

    /// Makes the file `end` in a task's sandbox, for a program that waits for it.
    ///
    /// # Panics
    /// When the task has no sandbox.
    pub fn let_end(&self, task: &str) {
        let sandbox = self.sandbox(task).unwrap_or_else(|| panic!("{task} has no sandbox"));
        std::fs::write(sandbox.join("end"), b"").expect("a file can be made");
    }

    /// Lets master and agent stand still until the guard is dropped.
    #[must_use]
    pub fn paused(&self) -> Paused {
        Paused::new(self.child.id())
    }

    fn sandbox(&self, task: &str) -> Option<PathBuf> {
        Some(executor(&self.work, task)?.join("runs/latest"))
    }
}

impl Drop for Mesos {
    fn drop(&mut self) {
        // Executors have lost their agent then, and end; what is left of them is the reaper's.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const PORT: u16 = 5050;

/// Flags of master and agent, which read them from the environment.
fn settings(work: &Path, socket: &Path, executor: &Path) -> Vec<(&'static str, String)> {
    let of = |path: &Path| path.display().to_string();
    let mut all = vec![
        ("PATH", std::env::var("PATH").unwrap_or_default()),
        ("HOME", of(work)),
        ("DOCKER_CONFIG", "/nonexistent".to_owned()),
        ("LIBPROCESS_PORT", PORT.to_string()),
        ("MESOS_WORK_DIR", of(work)),
        ("MESOS_RUNTIME_DIR", of(&work.join("runtime"))),
        ("MESOS_DOCKER_SOCKET", of(socket)),
        ("MESOS_LAUNCHER_DIR", of(executor)),
        ("MESOS_DOCKER", DEBIAN.to_owned()),
    ];
    all.extend(SETTINGS.map(|(name, value)| (name, value.to_owned())));
    all
}

const SETTINGS: [(&str, &str); 18] = [
    ("LC_ALL", "C"),
    ("DOCKER_CLI_HINTS", "false"),
    ("LIBPROCESS_IP", "127.0.0.1"),
    ("MESOS_REGISTRY", "in_memory"),
    ("MESOS_NUM_SLAVES", "1"),
    ("MESOS_HOSTNAME", "agent"),
    ("MESOS_HOSTNAME_LOOKUP", "false"),
    ("MESOS_CONTAINERIZERS", "docker"),
    ("MESOS_LAUNCHER", "posix"),
    ("MESOS_ISOLATION", "posix/cpu,posix/mem"),
    ("MESOS_SYSTEMD_ENABLE_SUPPORT", "false"),
    ("MESOS_RESOURCES", "cpus:100;mem:65536;disk:65536;ports:[31000-31999]"),
    ("MESOS_ALLOCATION_INTERVAL", "100ms"),
    ("MESOS_REGISTRATION_BACKOFF_FACTOR", "100ms"),
    ("MESOS_EXECUTOR_REGISTRATION_TIMEOUT", "2mins"),
    // Containers of tasks that have ended stay until then: tests look at them.
    ("MESOS_DOCKER_REMOVE_DELAY", "10mins"),
    ("MESOS_AGENT_PING_TIMEOUT", "1mins"),
    ("MESOS_MAX_AGENT_PING_TIMEOUTS", "10"),
];

/// The directory of a task's executor, which has the task's name: DIRECTORY/.../executors/TASK. A folder `meta` has
/// the agent's own copy of the tree.
fn executor(below: &Path, task: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(below).ok()?.flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut paths = folders.map(|entry| entry.path()).filter(|path| !path.ends_with("meta"));
    if below.ends_with("executors") {
        return paths.find(|path| path.ends_with(task));
    }
    paths.find_map(|path| executor(&path, task))
}
