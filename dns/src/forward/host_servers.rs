//! The name servers for askers without their own: those from the settings, else those that the engine gives to its
//! containers, else the host's. It must never return our own address: the question would come back.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::resolv_conf::{self, PORT, ResolvConf, Turns};
use crate::settings::{Engines, Settings};

/// How often to check for changes, at most.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The servers as of the last check.
pub(crate) struct HostServers {
    path: PathBuf,
    listen: SocketAddr,
    chosen: Vec<SocketAddr>,
    engines: Option<Engines>,
    servers: Arc<[SocketAddr]>,
    turns: Turns,
    host: Vec<SocketAddr>,
    /// The file that was read, its modification time, inode and length.
    seen: Option<(PathBuf, i64, i64, u64, u64)>,
    looked: Option<Instant>,
}

impl HostServers {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            path: settings.resolv_conf.clone(),
            listen: settings.listen,
            chosen: settings.upstreams.clone(),
            engines: settings.engines.clone(),
            servers: Arc::new([]),
            turns: Turns::default(),
            host: Vec::new(),
            seen: None,
            looked: None,
        }
    }

    /// The servers, at most [`LOOK_AGAIN`] old. Now and then this reads a short file that is in memory.
    pub(crate) fn servers(&mut self, now: Instant) -> Arc<[SocketAddr]> {
        self.refresh(now);
        self.servers.clone()
    }

    /// The time for each server; also applies to servers that a container named itself, as the engine gives it these
    /// options.
    pub(crate) fn turns(&mut self, now: Instant) -> Turns {
        self.refresh(now);
        self.turns
    }

    fn refresh(&mut self, now: Instant) {
        if self.looked.is_none_or(|looked| now.duration_since(looked) >= LOOK_AGAIN) {
            self.looked = Some(now);
            self.look();
        }
    }

    fn look(&mut self) {
        self.read_file();
        let engines = self.engines.as_ref().map(|engines| engines()).unwrap_or_default();
        let engines: Vec<SocketAddr> = engines.into_iter().map(|ip| SocketAddr::new(ip, PORT)).collect();
        let lists = [&self.chosen, &engines, &self.host];
        let servers = lists.into_iter().find(|list| !list.is_empty()).cloned().unwrap_or_default();
        let servers: Vec<SocketAddr> = servers.into_iter().filter(|server| *server != self.listen).collect();
        if servers[..] != self.servers[..] {
            let list = servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            tracing::info!(servers = list, "name servers for names that are not ours");
            self.servers = servers.into();
        }
    }

    fn read_file(&mut self) {
        let path = resolv_conf::real(&self.path);
        let seen = stamp(&path);
        if seen == self.seen && !self.host.is_empty() {
            return;
        }
        let read = ResolvConf::parse(&resolv_conf::read(&path));
        let itself = SocketAddr::from((IpAddr::V4(Ipv4Addr::LOCALHOST), PORT));
        self.host = if read.servers.is_empty() { vec![itself] } else { read.servers };
        self.turns = read.turns;
        self.seen = seen;
    }
}

fn stamp(path: &Path) -> Option<(PathBuf, i64, i64, u64, u64)> {
    let file = fs::metadata(path).ok()?;
    Some((path.to_owned(), file.mtime(), file.mtime_nsec(), file.ino(), file.len()))
}

#[cfg(test)]
mod tests {
    use std::sync::{RwLock, RwLockWriteGuard};

    use selvedge_registry::name::Name;
    use selvedge_registry::shared::TableWriter;
    use selvedge_registry::table::Table;

    use super::*;

    const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1)), 53);

    fn settings(path: PathBuf, listen: SocketAddr) -> Settings {
        let table = Table::new(Name::parse("selvedge.internal").unwrap());
        let table = TableWriter::new(table).reader();
        Settings { resolv_conf: path, ..Settings::new(table, listen, "10.32.0.0/12".parse().unwrap()) }
    }

    fn shown(host: &mut HostServers, now: Instant) -> String {
        host.servers(now).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn we_never_ask_ourselves() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        fs::write(&path, "nameserver 169.254.1.1\nnameserver 9.9.9.9\n").unwrap();
        let now = Instant::now();
        assert_eq!(shown(&mut HostServers::new(&settings(path.clone(), LISTEN)), now), "9.9.9.9:53");
        fs::write(&path, "nameserver 169.254.1.1\n").unwrap();
        assert_eq!(shown(&mut HostServers::new(&settings(path.clone(), LISTEN)), now), "");
        fs::write(&path, "").unwrap();
        let listen = "127.0.0.1:53".parse().unwrap();
        assert_eq!(shown(&mut HostServers::new(&settings(path, listen)), now), "");
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let mut host = HostServers::new(&settings(path.clone(), LISTEN));
        let start = Instant::now();
        assert_eq!(shown(&mut host, start), "127.0.0.1:53");
        fs::write(&path, "nameserver 9.9.9.9\noptions timeout:2\n").unwrap();
        assert_eq!(shown(&mut host, start), "127.0.0.1:53");
        assert_eq!(shown(&mut host, start + LOOK_AGAIN), "9.9.9.9:53");
        assert_eq!(host.turns(start + LOOK_AGAIN).timeout, Duration::from_secs(2));
        fs::remove_file(&path).unwrap();
        assert_eq!(shown(&mut host, start + LOOK_AGAIN * 2), "127.0.0.1:53");
    }

    #[test]
    fn the_settings_servers_go_before_the_engine_s_and_these_before_the_host_s() {
        let engines = Arc::new(RwLock::new(vec!["192.0.2.7".parse().unwrap()]));
        let shared = engines.clone();
        let mut settings = settings("/dev/null".into(), LISTEN);
        settings.engines = Some(Engines::new(move || shared.read().unwrap().clone()));
        let mut host = HostServers::new(&settings);
        let now = Instant::now();
        assert_eq!(shown(&mut host, now), "192.0.2.7:53");
        let write = || -> RwLockWriteGuard<'_, Vec<IpAddr>> { engines.write().unwrap() };
        write().clear();
        assert_eq!(shown(&mut host, now + LOOK_AGAIN), "127.0.0.1:53", "the engine was restarted without");
        settings.upstreams = vec!["192.0.2.8:5353".parse().unwrap()];
        assert_eq!(shown(&mut HostServers::new(&settings), now), "192.0.2.8:5353");
    }
}
