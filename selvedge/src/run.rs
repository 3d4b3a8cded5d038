//! `selvedge run`: turns the settings into the keeper's plan, and becomes the keeper.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use selvedge_datapath::pool_claim;
use selvedge_keeper::activation::{self, Given};
use selvedge_keeper::plan::{Listener, ListenerKind, Plan, Program};

use crate::config::Config;
use crate::port;
use crate::settings::group;
use crate::worker::{api_name, socket};

/// `FileDescriptorName=` of a socket on which to serve the API, wherever it is.
const GIVEN_API: &str = "api";

/// Runs the keeper until it is told to end.
///
/// # Errors
/// One line for the user: a socket that is in use, a directory that cannot be made, ...
pub(crate) fn run(config: &Config) -> anyhow::Result<()> {
    let given = activation::take()?;
    std::fs::create_dir_all(&config.runtime_dir)
        .with_context(|| format!("cannot make {}", config.runtime_dir.display()))?;
    let exe = own_path()?;
    let own: Vec<OsString> = std::env::args_os().skip(2).collect();
    let program = |verb: &str| Program {
        exe: exe.clone(),
        args: std::iter::once(OsString::from(verb)).chain(own.iter().cloned()).collect(),
    };
    let mut plan = Plan::new(program("worker"), program("run"), config.runtime_dir.clone());
    let claimed = pool_claim::claim(config.pool, group(&config.runtime_dir), activation::is_successor());
    plan.listeners = listeners(config, given)?;
    if let Some(fd) = claimed.map_err(anyhow::Error::msg)? {
        plan.listeners.push(Listener { name: socket::POOL.to_owned(), kind: ListenerKind::Given(fd) });
    }
    plan.worker_timeout = config.worker_timeout;
    plan.accepts = |name| name.starts_with(socket::API);
    plan.log = |line| tracing::info!("keeper: {line}");
    env!("CARGO_PKG_VERSION").clone_into(&mut plan.version);
    selvedge_keeper::run(plan).map_err(with_what_to_do)
}

/// Where this program is. A second that takes over executes the file that the killed keeper had, and that may have another
/// name, or none, by now: its path is still the one by which the former keeper was called.
fn own_path() -> anyhow::Result<PathBuf> {
    match std::env::args_os().next().filter(|_| activation::is_successor()) {
        Some(path) => Ok(path.into()),
        None => std::env::current_exe().context("cannot find this program's own path"),
    }
}

/// Names who has what we want, and what to do.
fn with_what_to_do(error: selvedge_keeper::error::Error) -> anyhow::Error {
    use selvedge_keeper::error::Error;
    match &error {
        Error::Listen { name, address, source } => {
            let flag = if name == socket::PEER { "--peer-port" } else { "--dns-listen" };
            match port::in_use(name, address, source) {
                Some(holder) => anyhow::anyhow!(holder.told(flag)),
                None => error.into(),
            }
        }
        Error::InUse(_) => anyhow::anyhow!("{error}; stop it, or choose another --listen"),
        Error::Locked(_) => anyhow::anyhow!("{error}; stop that one, or choose another --runtime-dir"),
        _ => error.into(),
    }
}

fn listeners(config: &Config, given: Vec<Given>) -> anyhow::Result<Vec<Listener>> {
    let mut listeners = api_listeners(config, given, activation::is_successor())?;
    let admin = Config::admin_socket(&config.runtime_dir);
    let dns = config.dns_listen.into();
    listeners.extend([
        Listener {
            name: socket::ADMIN.to_owned(),
            kind: ListenerKind::UnixStream { path: admin, mode: 0o600, uid: 0, gid: 0 },
        },
        Listener { name: socket::DNS_UDP.to_owned(), kind: ListenerKind::Udp(dns) },
        Listener { name: socket::DNS_TCP.to_owned(), kind: ListenerKind::Tcp(dns) },
    ]);
    if !config.cluster.is_local() {
        let any = IpAddr::from(Ipv4Addr::UNSPECIFIED);
        let address = SocketAddr::new(config.cluster.host_address.unwrap_or(any), config.cluster.peer_port);
        listeners.push(Listener { name: socket::PEER.to_owned(), kind: ListenerKind::Tcp(address) });
    }
    for memory in [socket::MEMORY, socket::ADDRESSES] {
        listeners.push(Listener { name: memory.to_owned(), kind: ListenerKind::Memory });
    }
    Ok(listeners)
}

/// Where clients connect: what systemd has given us, and what was asked for by `--listen`. The default is for those
/// who say nothing at all.
fn api_listeners(config: &Config, given: Vec<Given>, is_successor: bool) -> anyhow::Result<Vec<Listener>> {
    let mut listeners: Vec<Listener> = Vec::new();
    for socket in given {
        let name = api_name(place(config, &socket)?);
        if listeners.iter().any(|listener| listener.name == name) {
            anyhow::bail!("socket activation: two sockets are bound at {}", socket.path.display());
        }
        listeners.push(Listener { name, kind: ListenerKind::Given(socket.fd) });
    }
    // A successor has its sockets already; which they are, the default does not know.
    if !config.listen_is_chosen && (is_successor || !listeners.is_empty()) {
        return Ok(listeners);
    }
    let owner = Owner::of_engine(&config.engine);
    for path in &config.listen {
        let name = api_name(path);
        if listeners.iter().all(|listener| listener.name != name) {
            let (path, Owner { mode, uid, gid }) = (path.clone(), owner);
            listeners.push(Listener { name, kind: ListenerKind::UnixStream { path, mode, uid, gid } });
        }
    }
    Ok(listeners)
}

/// The path by which a given socket is known: as `--listen` spells it, or its own.
fn place<'a>(config: &'a Config, socket: &'a Given) -> anyhow::Result<&'a Path> {
    // /var/run is another name of /run on most machines.
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    let is_it = |path: &&PathBuf| {
        **path == socket.path || real(path).is_some_and(|it| Some(it) == real(&socket.path))
    };
    match config.listen.iter().find(is_it) {
        Some(path) => Ok(path),
        None if socket.name == GIVEN_API => Ok(&socket.path),
        None => anyhow::bail!(
            "socket activation: {} at {} is none of --listen; add it there, or write FileDescriptorName={GIVEN_API} \
             in its socket unit",
            socket.name,
            socket.path.display()
        ),
    }
}

/// Owner and mode of our socket: those of the engine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Owner {
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Owner {
    fn of_engine(path: &Path) -> Self {
        match std::fs::metadata(path) {
            Ok(meta) if meta.file_type().is_socket() => {
                Self { mode: meta.mode() & 0o777, uid: meta.uid(), gid: meta.gid() }
            }
            // dockerd's own default.
            _ => Self { mode: 0o660, uid: 0, gid: docker_group() },
        }
    }
}

// Not by getgrnam: it would load the host's NSS modules.
fn docker_group() -> u32 {
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    groups
        .lines()
        .filter_map(|line| line.strip_prefix("docker:"))
        .find_map(|rest| rest.split(':').nth(1)?.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::cli::Options;

    fn names(config: &Config, given: &[(&str, &Path)], is_successor: bool) -> Result<Vec<String>, String> {
        let given = given.iter().map(|(name, path)| Given {
            name: (*name).to_owned(),
            path: (*path).to_owned(),
            fd: std::fs::File::open("/dev/null").unwrap().into(),
        });
        let listeners = api_listeners(config, given.collect(), is_successor).map_err(|e| e.to_string())?;
        let kind = |listener: &Listener| matches!(listener.kind, ListenerKind::Given(_));
        Ok(listeners
            .iter()
            .map(|listener| format!("{} {}", listener.name, if kind(listener) { "given" } else { "bound" }))
            .collect())
    }

    fn config(listen: &[&str]) -> Config {
        let listen = listen.iter().map(|&url| url.to_owned()).collect();
        Config::new(Options { runtime_dir: Some("/run/x".into()), listen, ..Options::default() }).unwrap()
    }

    #[test]
    fn a_given_socket_takes_the_place_of_a_binding() {
        let (a, b) = (Path::new("/run/a.sock"), Path::new("/run/b.sock"));
        let chosen = config(&["/run/a.sock", "/run/c.sock"]);
        assert_eq!(
            names(&chosen, &[("selvedge.socket", a), ("api", b)], false).unwrap(),
            ["api:/run/a.sock given", "api:/run/b.sock given", "api:/run/c.sock bound"]
        );
        assert_eq!(names(&chosen, &[], true).unwrap().len(), 2);
    }

    #[test]
    fn the_default_is_for_those_who_say_nothing() {
        let silent = config(&[]);
        let api = Path::new("/run/a.sock");
        assert_eq!(names(&silent, &[], false).unwrap(), ["api:/run/x/docker.sock bound"]);
        assert_eq!(names(&silent, &[("api", api)], false).unwrap(), ["api:/run/a.sock given"]);
        let default = Path::new("/run/x/docker.sock");
        assert_eq!(names(&silent, &[("unknown", default)], false).unwrap(), ["api:/run/x/docker.sock given"]);
        // It must not be bound beside the one that the former image was given.
        assert!(names(&silent, &[], true).unwrap().is_empty());
    }

    #[test]
    fn a_socket_that_nobody_asked_for_is_refused() {
        let path = Path::new("/run/a.sock");
        let told = names(&config(&[]), &[("selvedge.socket", path)], false).unwrap_err();
        assert!(told.contains("selvedge.socket at /run/a.sock is none of --listen"), "{told}");
        assert!(!told.contains('\n') && !told.contains("  "), "{told}");
        let told = names(&config(&[]), &[("api", path), ("api", path)], false).unwrap_err();
        assert!(told.contains("two sockets"), "{told}");
    }

    #[test]
    fn another_name_of_the_same_path_is_the_same_path() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("run"), dir.path().join("var"));
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let _there = UnixListener::bind(real.join("d.sock")).unwrap();
        let asked = link.join("d.sock").display().to_string();
        let held = names(&config(&[&asked]), &[("unknown", &real.join("d.sock"))], false).unwrap();
        assert_eq!(held, [format!("api:{asked} given")]);
    }
}
