//! `selvedge run`: turns the settings into the keeper's plan, and becomes the keeper.

use std::ffi::OsString;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use anyhow::Context;
use selvedge_keeper::plan::{Listener, ListenerKind, Plan, Program};

use crate::config::Config;
use crate::worker::{api_name, socket};

/// Runs the keeper until it is told to end.
///
/// # Errors
/// One line for the user: a socket that is in use, a directory that cannot be made, ...
pub(crate) fn run(config: &Config) -> anyhow::Result<()> {
    std::fs::create_dir_all(&config.runtime_dir)
        .with_context(|| format!("cannot make {}", config.runtime_dir.display()))?;
    let exe = std::env::current_exe().context("cannot find this program's own path")?;
    let own: Vec<OsString> = std::env::args_os().skip(2).collect();
    let program = |verb: &str| Program {
        exe: exe.clone(),
        args: std::iter::once(OsString::from(verb)).chain(own.iter().cloned()).collect(),
    };
    let mut plan = Plan::new(program("worker"), program("run"), config.runtime_dir.clone());
    plan.listeners = listeners(config);
    env!("CARGO_PKG_VERSION").clone_into(&mut plan.version);
    Ok(selvedge_keeper::run(plan)?)
}

fn listeners(config: &Config) -> Vec<Listener> {
    let owner = Owner::of_engine(&config.engine);
    let mut listeners: Vec<Listener> = config
        .listen
        .iter()
        .map(|path| Listener {
            name: api_name(path),
            kind: ListenerKind::UnixStream {
                path: path.clone(),
                mode: owner.mode,
                uid: owner.uid,
                gid: owner.gid,
            },
        })
        .collect();
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
    listeners
}

/// Who may use the API: whoever may use the engine's.
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
