//! What the engine is set to give its containers as name servers, search list and seccomp profile, which its API does not
//! tell: read where dockerd itself reads it. It must never wait for the engine, and never take silence for "nothing is set".

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt::PeerCredentials,
};
use serde::Deserialize;

/// Where dockerd reads its settings when its command line names no other file.
const DAEMON_JSON: &str = "/etc/docker/daemon.json";
/// How often to look for a dockerd that was not found, at most.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// The engine's settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Resolver {
    /// `dns`
    #[serde(rename = "dns")]
    pub servers: Vec<String>,
    /// `dns-search`
    #[serde(rename = "dns-search")]
    pub search: Vec<String>,
    /// `seccomp-profile`: as a setting it names a file, here it is what is in that file. `unconfined` and `builtin` are
    /// words.
    #[serde(rename = "seccomp-profile")]
    pub seccomp: Option<String>,
}

/// The settings of the dockerd behind a socket. It reads them when it starts, so once per process is enough.
#[derive(Debug, Clone)]
pub struct Resolvers {
    socket: PathBuf,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    /// The process and when it was started.
    process: Option<(i32, u64)>,
    looked: Option<Instant>,
    resolver: Arc<Resolver>,
}

impl Resolvers {
    /// Of the dockerd behind this socket, which is looked for when first asked.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), known: Arc::default() }
    }

    /// The settings of the engine that runs, or of the last one that did.
    pub fn get(&self) -> Arc<Resolver> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let alive = known.process.is_some_and(|(pid, since)| started(pid) == Some(since));
        let lately = known.looked.is_some_and(|looked| looked.elapsed() < LOOK_AGAIN);
        if alive || lately {
            return known.resolver.clone();
        }
        known.looked = Some(Instant::now());
        if let Some(pid) = dockerd(&self.socket) {
            known.process = started(pid).map(|since| (pid, since));
            known.resolver = Arc::new(of_process(Path::new(&format!("/proc/{pid}"))));
        }
        known.resolver.clone()
    }
}

/// The dockerd that serves a socket. Under socket activation the peer is systemd, which made the socket: then it is the
/// dockerd that has the socket open.
fn dockerd(path: &Path) -> Option<i32> {
    let is_dockerd = |pid: &i32| read(&format!("/proc/{pid}/comm")).trim_end() == "dockerd";
    let peer = peer(path)?;
    if is_dockerd(&peer) {
        return Some(peer);
    }
    let listening = listening_inode(path)?;
    let link = PathBuf::from(format!("socket:[{listening}]"));
    let holds = |pid: &i32| {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files.map(|file| std::fs::read_link(file.path())).any(|target| target.is_ok_and(|it| it == link))
    };
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(is_dockerd).find(holds)
}

/// Who listens on a socket, or made it. A queue that is full is no reason to wait.
fn peer(path: &Path) -> Option<i32> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let client = socket(AddressFamily::Unix, SockType::Stream, flags, None).ok()?;
    connect(client.as_raw_fd(), &UnixAddr::new(path).ok()?).ok()?;
    getsockopt(&client, PeerCredentials).ok().map(|peer| peer.pid())
}

/// The inode of the socket that listens at a path, as `/proc/PID/fd` names it.
fn listening_inode(path: &Path) -> Option<u64> {
    let real = std::fs::canonicalize(path).ok()?;
    let table = read("/proc/net/unix");
    let mut lines = table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    // Num RefCount Protocol Flags Type St Inode Path; __SO_ACCEPTCON in the flags.
    let line = lines.find(|words| {
        words.get(3) == Some(&"00010000")
            && words.get(7).is_some_and(|at| std::fs::canonicalize(at).is_ok_and(|at| at == real))
    })?;
    line.get(6)?.parse().ok()
}

/// When a process was started, in ticks since the boot: field 22 of proc(5)'s stat, the 20th behind the name.
fn started(pid: i32) -> Option<u64> {
    read(&format!("/proc/{pid}/stat")).rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The settings of a dockerd, whose folder in /proc this is: its flags and its file, in its own mounts.
fn of_process(proc: &Path) -> Resolver {
    let text = std::fs::read(proc.join("cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let (mut resolver, file) = flags(text.split('\0').skip(1));
    let path = path_of(proc, file.as_deref().unwrap_or(DAEMON_JSON));
    let of_file: Resolver =
        std::fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    // dockerd refuses to start with both.
    resolver.servers.extend(of_file.servers);
    resolver.search.extend(of_file.search);
    let profile = resolver.seccomp.or(of_file.seccomp);
    resolver.seccomp = profile.map(|profile| match profile.as_str() {
        "" | "unconfined" | "builtin" => profile,
        // One that cannot be read is no profile, and so none that is known to be harmless.
        file => std::fs::read_to_string(path_of(proc, file)).unwrap_or_else(|_| file.to_owned()),
    });
    resolver
}

/// A file as a process names it.
fn path_of(proc: &Path, file: &str) -> PathBuf {
    let place = if file.starts_with('/') { "root" } else { "cwd" };
    proc.join(place).join(file.trim_start_matches('/'))
}

/// What the flags say, and which file they name.
fn flags<'a>(words: impl Iterator<Item = &'a str>) -> (Resolver, Option<String>) {
    let (mut resolver, mut file) = (Resolver::default(), None);
    let mut words = words.peekable();
    while let Some(word) = words.next() {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word, None),
        };
        let mut value = || value.clone().or_else(|| words.next().map(str::to_owned));
        // pflag splits lists of neither of the first two at commas.
        match name {
            "--dns" => resolver.servers.extend(value()),
            "--dns-search" => resolver.search.extend(value()),
            "--seccomp-profile" => resolver.seccomp = value(),
            "--config-file" => file = value(),
            _ => {}
        }
    }
    (resolver, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_file_are_read_as_dockerd_reads_them() {
        let line = "-H fd:// --dns 192.0.2.1 --dns=192.0.2.2 --dns-search a.example --dns-opt ndots:2 --config-file=/x.json";
        let (resolver, file) = flags(line.split(' '));
        assert_eq!(resolver.servers, ["192.0.2.1", "192.0.2.2"]);
        assert_eq!((resolver.search, file), (vec!["a.example".to_owned()], Some("/x.json".to_owned())));
        let proc = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(proc.path().join("root/etc/docker")).unwrap();
        std::fs::write(proc.path().join("cmdline"), "dockerd\0--debug\0").unwrap();
        assert_eq!(of_process(proc.path()), Resolver::default());
        let text = r#"{"dns":["192.0.2.3"],"dns-search":["b.example"],"debug":true}"#;
        std::fs::write(proc.path().join("root/etc/docker/daemon.json"), text).unwrap();
        let read = of_process(proc.path());
        assert_eq!(
            (&read.servers[..], &read.search[..]),
            (&["192.0.2.3".to_owned()][..], &["b.example".to_owned()][..])
        );
    }

    #[test]
    fn a_process_is_known_by_its_start() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(started(own).is_some_and(|since| since > 0));
        assert_eq!(started(i32::MAX), None);
    }
}
