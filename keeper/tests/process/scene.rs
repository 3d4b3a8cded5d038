//! A keeper in a directory of its own, and clients and an engine for it.
//!
//! It must never leave a process behind.

use selvedge_keeper::status::Snapshot;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A running keeper.
pub(crate) struct Scene {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) keeper: Child,
}

impl Scene {
    /// A keeper whose worker behaves well, and has the API socket only.
    pub(crate) fn new() -> Scene {
        Scene::with("", 0)
    }

    pub(crate) fn with(mode: &str, extra: usize) -> Scene {
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        symlink(std::env::current_exe().unwrap(), dir.path().join("worker-exe")).unwrap();
        let keeper = start(&dir, mode, extra);
        let scene = Scene { dir, keeper };
        let sockets = [scene.api(), scene.dir.path().join("held.sock")];
        let are_there = || sockets.iter().all(|socket| socket.exists());
        until("its sockets are there", || are_there() || scene.log().contains("ended"));
        scene
    }

    pub(crate) fn api(&self) -> PathBuf {
        self.dir.path().join("api.sock")
    }

    pub(crate) fn mode(&self, mode: &str) {
        fs::write(self.dir.path().join("mode"), mode).unwrap();
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// A new connection.
    pub(crate) fn client(&self) -> Client {
        Client::new(UnixStream::connect(self.api()).unwrap())
    }

    /// An engine's socket.
    pub(crate) fn engine(&self) -> UnixListener {
        let path = self.dir.path().join("engine.sock");
        let _ = fs::remove_file(&path);
        UnixListener::bind(path).unwrap()
    }

    /// A stream: the client's end, the engine's end. The first words are on their way already.
    pub(crate) fn stream(&self, engine: &UnixListener) -> (Client, Client) {
        let mut client = self.client();
        client.say(&format!("stream {}/engine.sock start", self.dir.path().display()));
        let mut far = Client::new(engine.accept().unwrap().0);
        assert_eq!(far.read(5), "start");
        assert_eq!(client.read(6), "begin ");
        (client, far)
    }

    pub(crate) fn status(&self) -> Snapshot {
        let mut client = self.client();
        client.say("status");
        loop {
            // The connection may change hands before it is heard.
            if let Ok(status) = serde_json::from_str(&client.line()) {
                return status;
            }
        }
    }

    pub(crate) fn worker_pid(&self) -> u32 {
        self.client().ask("pid").parse().unwrap()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.keeper.id(), name);
    }

    /// Ends the keeper and its second, as when the power fails.
    pub(crate) fn end_both(&mut self) {
        end_all(self.dir.path());
        self.end();
        // Until then it may accept a connection at the same path.
        until("the worker leaves", || running("role-worker", self.dir.path()).is_empty());
    }

    /// Waits for the keeper's end.
    pub(crate) fn end(&mut self) -> ExitStatus {
        let mut status = None;
        until("the keeper ends", || {
            status = self.keeper.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// How many descriptors the keeper has open, when it has read all that its worker said so far.
    pub(crate) fn descriptors(&self) -> usize {
        self.status();
        fs::read_dir(format!("/proc/{}/fd", self.keeper.id())).unwrap().count()
    }

    /// How many of them are ends of pipes.
    pub(crate) fn pipes(&self) -> usize {
        let fds = fs::read_dir(format!("/proc/{}/fd", self.keeper.id())).unwrap();
        let targets = fds.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
        targets.filter(|target| target.to_string_lossy().starts_with("pipe:")).count()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the keeper's log:\n{}", self.log());
        }
        end_all(self.dir.path());
        let _ = self.keeper.wait();
    }
}

/// The keeper of that directory and its second.
pub(crate) fn keepers(dir: &Path) -> Vec<u32> {
    running("role-keeper", dir)
}

fn running(role: &str, dir: &Path) -> Vec<u32> {
    let wanted = format!("{role}\0{}\0", dir.display());
    let all =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let is_it = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&wanted) && alive(*pid)
    };
    all.filter(is_it).collect()
}

/// Whether a keeper or a second of one is there.
fn is_locked(dir: &Path) -> bool {
    let Ok(lock) = fs::File::open(dir.join("keeper.lock")) else { return false };
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err()
}

/// Ends both at once: each alone would be replaced.
pub(crate) fn end_all(dir: &Path) {
    let mut found = keepers(dir);
    // One that is being executed has no command line for a moment, but it has the lock.
    while !found.is_empty() || is_locked(dir) {
        for name in ["STOP", "KILL"] {
            for pid in &found {
                let _ = Command::new("kill")
                    .arg(format!("-{name}"))
                    .arg(pid.to_string())
                    .stderr(Stdio::null())
                    .status();
            }
        }
        // One of them may just have started another one.
        found = keepers(dir);
    }
}

pub(crate) fn start(dir: &tempfile::TempDir, mode: &str, extra: usize) -> Child {
    start_with(dir, mode, extra, |command| command)
}

/// The same, with a change to the command.
pub(crate) fn start_with(
    dir: &tempfile::TempDir,
    mode: &str,
    extra: usize,
    change: impl FnOnce(Command) -> Command,
) -> Child {
    fs::write(dir.path().join("mode"), mode).unwrap();
    let log = fs::File::options().create(true).append(true).open(dir.path().join("log")).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("role-keeper").arg(dir.path()).arg(extra.to_string());
    change(command).stdin(Stdio::null()).stderr(log).spawn().unwrap()
}

pub(crate) fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status().unwrap().success());
}

pub(crate) fn alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(15), "not within 15 s: {what}");
        sleep(Duration::from_millis(5));
    }
}

/// One end of a connection, with a limit on every wait.
pub(crate) struct Client {
    pub(crate) stream: BufReader<UnixStream>,
}

impl Client {
    pub(crate) fn new(stream: UnixStream) -> Client {
        stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(15))).unwrap();
        Client { stream: BufReader::new(stream) }
    }

    pub(crate) fn say(&mut self, line: &str) {
        self.stream.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    pub(crate) fn write(&mut self, text: &str) {
        self.stream.get_mut().write_all(text.as_bytes()).unwrap();
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "the connection ended: {line:?}");
        line.trim_end().to_owned()
    }

    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.line()
    }

    pub(crate) fn read(&mut self, length: usize) -> String {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// True if the other side has closed.
    pub(crate) fn at_end(&mut self) -> bool {
        !self.stream.read(&mut [0]).is_ok_and(|read| read > 0)
    }
}
