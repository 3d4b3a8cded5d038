//! `selvedge check`: says what this machine lacks, and what to do about it.

use std::path::Path;

use selvedge_netsetup::policy::nft_version;
use selvedge_netsetup::{Severity, preflight};
use serde_json::Value;

use crate::config::Config;
use crate::docker::engine::Engine;
use crate::worker::network_settings;

/// One line of the report.
#[derive(Debug)]
struct Line {
    severity: Severity,
    text: String,
}

/// The report, and whether Selvedge can run here.
///
/// # Errors
/// The runtime cannot be started.
pub(crate) fn check(config: &Config) -> anyhow::Result<(String, bool)> {
    let mut lines: Vec<Line> = preflight(&network_settings(config))
        .into_iter()
        .map(|finding| Line { severity: finding.severity, text: finding.message })
        .collect();
    lines.extend(config.policy.tenants.then(nft));
    let lacks_nft = config.vips.range.is_some() && !config.policy.tenants && nft_version().is_none();
    lines.extend(lacks_nft.then(|| Line {
        severity: Severity::Warning,
        text: "virtual addresses (label selvedge.vip) need nft; install the package nftables".to_owned(),
    }));
    lines.push(engine(&config.engine)?);
    lines.push(writable("the runtime directory", &config.runtime_dir));
    lines.push(writable(
        "the directory of the wait program",
        config.wait_path.parent().unwrap_or(Path::new("/")),
    ));
    lines.extend(config.listen.iter().map(|path| short_enough(path)));
    let fine = lines.iter().all(|line| line.severity != Severity::Fatal);
    let report = lines.iter().map(|line| format!("{:<5} {}\n", mark(line.severity), line.text)).collect();
    Ok((report, fine))
}

fn mark(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "ok",
        Severity::Warning => "warn",
        Severity::Fatal => "FAIL",
    }
}

fn engine(socket: &Path) -> anyhow::Result<Line> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let version = runtime.block_on(Engine::new(socket).get::<Value>("/version"));
    Ok(match version {
        Ok(version) => {
            let text = |key: &str| version.get(key).and_then(Value::as_str).unwrap_or("?").to_owned();
            let text = format!(
                "the engine answers at {}: {} (API {})",
                socket.display(),
                text("Version"),
                text("ApiVersion")
            );
            Line { severity: Severity::Note, text }
        }
        Err(error) => {
            let text =
                format!("{}: {error}; start dockerd, or name its socket by --engine", socket.display());
            Line { severity: Severity::Fatal, text }
        }
    })
}

fn nft() -> Line {
    match nft_version() {
        Some(version) => Line { severity: Severity::Note, text: format!("--policy tenant: {version}") },
        None => Line {
            severity: Severity::Fatal,
            text: "--policy tenant needs nft; install the package nftables".to_owned(),
        },
    }
}

fn writable(what: &str, dir: &Path) -> Line {
    let existing = dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    match nix::unistd::access(existing, nix::unistd::AccessFlags::W_OK) {
        Ok(()) => Line { severity: Severity::Note, text: format!("{what} {} can be written", dir.display()) },
        Err(errno) => Line {
            severity: Severity::Fatal,
            text: format!("{what} {} cannot be written: {}", dir.display(), errno.desc()),
        },
    }
}

// sockaddr_un (unix(7)) holds 108 bytes with the NUL at the end.
fn short_enough(path: &Path) -> Line {
    let len = path.as_os_str().len();
    match len <= 107 {
        true => Line { severity: Severity::Note, text: format!("{} can be a socket's path", path.display()) },
        false => Line {
            severity: Severity::Fatal,
            text: format!("{} has {len} bytes, a socket's path at most 107", path.display()),
        },
    }
}
