//! The sockets that the keeper holds, by their names, and taking them over.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};

use anyhow::Context;
use tokio::net::UnixListener;

use crate::config::Config;

/// DNS over UDP.
pub(crate) const DNS_UDP: &str = "dns-udp";
/// DNS over TCP.
pub(crate) const DNS_TCP: &str = "dns-tcp";
/// `selvedge status`.
pub(crate) const ADMIN: &str = "admin";
/// Other hosts connect to it to see whether we live.
pub(crate) const PEER: &str = "peer";
/// No socket: where a worker writes down what the registry said.
pub(crate) const MEMORY: &str = "registry-memory";
/// No socket either: which create has taken which address.
pub(crate) const ADDRESSES: &str = "addresses";
/// By it other Selvedges in this network namespace see that the pool is ours; nothing is served there.
pub(crate) const POOL: &str = "pool";
/// Each API listener: this and its path.
pub(crate) const API: &str = "api:";

pub(super) fn take(sockets: &mut HashMap<String, OwnedFd>, name: &str) -> anyhow::Result<OwnedFd> {
    sockets.remove(name).with_context(|| {
        format!("the keeper holds no socket {name}; a change of --listen, --dns-listen or --registry needs a restart")
    })
}

/// Takes the admin socket, and learns where the API is served: clients are accepted by the keeper.
pub(super) fn listeners(
    config: &mut Config,
    sockets: &mut HashMap<String, OwnedFd>,
) -> anyhow::Result<UnixListener> {
    let mut held: Vec<String> = sockets.keys().filter(|name| name.starts_with(API)).cloned().collect();
    held.sort();
    if config.listen_is_chosen || held.is_empty() {
        let lacks = config.listen.iter().map(|path| api_name(path)).find(|name| !held.contains(name));
        lacks.map_or(Ok(()), |name| take(sockets, &name).map(drop))?;
    }
    // All of them: systemd may have given more than we know of, and clients connect to whatever is held.
    for name in &held {
        drop(take(sockets, name)?);
    }
    config.listen = held.iter().map(|name| PathBuf::from(&name[API.len()..])).collect();
    unix_listener(take(sockets, ADMIN)?)
}

/// The name of an API listener's socket.
pub(crate) fn api_name(path: &Path) -> String {
    format!("{}{}", API, path.display())
}

fn unix_listener(fd: OwnedFd) -> anyhow::Result<UnixListener> {
    Ok(UnixListener::from_std(StdUnixListener::from(fd))?)
}
