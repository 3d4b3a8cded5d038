//! `selvedge status` and `selvedge ps`: asks the running worker and prints.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use bytes::Bytes;
use hyper::Method;
use selvedge_cluster::key::is_host_name;
use selvedge_engine::client::{Engine, EngineError};
use selvedge_keeper::control::{UpgradeRequest, request_upgrade};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::admin::{self, Shown};
use crate::cli::{Forget, Query, Status, Upgrade};
use crate::config::{Config, ConfigError, Source, duration};
use crate::status::{self, text, verdict};

/// Prints what `selvedge status` shows, the verdict first; says how to end.
///
/// # Errors
/// No Selvedge runs there, or it does not answer; but not with `--check`, for which that is an answer, too.
pub(crate) fn status(
    options: &Status,
    print: impl Fn(&str) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    let raw: Value = match ask(&options.query.runtime_dir, "/status") {
        Err(error) if options.check => {
            print(&format!("TROUBLE: 1\n  FAIL  {error:#}\n"))?;
            return Ok(ExitCode::from(2));
        }
        answer => answer?,
    };
    // What a younger worker says besides is printed as JSON all the same.
    let status: status::Status = serde_json::from_value(raw.clone()).context("cannot read the status")?;
    let troubles = verdict::troubles(&status);
    match options.query.json {
        true => print(&format!("{raw:#}\n"))?,
        false => print(&format!("{}{}", verdict::text(&troubles), text::text(&status)))?,
    }
    Ok(if options.check { ExitCode::from(verdict::code(&troubles)) } else { ExitCode::SUCCESS })
}

/// Prints what `selvedge ps` shows.
///
/// # Errors
/// No Selvedge runs there, or it does not answer.
pub(crate) fn ps(query: &Query) -> anyhow::Result<String> {
    let containers: Vec<Shown> = ask(&query.runtime_dir, "/containers")?;
    if query.json {
        return Ok(format!("{:#}\n", serde_json::to_value(&containers)?));
    }
    let head = ["CONTAINER ID", "NAME", "ADDRESS", "STATE", "TENANT", "NAMES"].map(str::to_owned);
    let rows = containers.into_iter().map(|c| {
        let id = c.id.get(..12).unwrap_or(&c.id).to_owned();
        let state = if c.healthy { c.state } else { format!("{}, unhealthy", c.state) };
        let names = c.reason.map_or_else(|| c.names.join(" "), |reason| format!("({reason})"));
        [id, c.name, c.address, state, c.tenant, names]
    });
    Ok(table(&std::iter::once(head).chain(rows).collect::<Vec<_>>()))
}

/// Asks the keeper for an upgrade and prints its progress line by line.
///
/// # Errors
/// Why what ran before goes on.
pub(crate) fn upgrade(options: &Upgrade, mut print: impl FnMut(&str)) -> anyhow::Result<()> {
    let timeout = duration(&options.timeout).map_err(|reason| ConfigError::Value {
        by: Source::Flag,
        name: "timeout",
        value: options.timeout.clone(),
        reason,
    })?;
    let request = UpgradeRequest {
        binary: options.binary.as_deref().map(std::path::absolute).transpose()?,
        timeout_ms: u64::try_from(timeout.as_millis()).ok(),
        keeper: options.keeper,
    };
    let last = request_upgrade(&options.runtime_dir, &request, &mut print).map_err(with_what_to_do)?;
    print(&last);
    Ok(())
}

/// A worker and a keeper of releases that do not understand each other: the keeper goes first.
fn with_what_to_do(error: selvedge_keeper::error::Error) -> anyhow::Error {
    match &error {
        selvedge_keeper::error::Error::Upgrade(reason) if reason.contains("speaks protocol") => {
            anyhow::anyhow!("{error}; replace the keeper first, with --keeper and the same --binary")
        }
        _ => error.into(),
    }
}

/// Forgets a host that does not live any more.
///
/// # Errors
/// It lives, or may; or the registry does not answer.
pub(crate) fn forget(options: &Forget) -> anyhow::Result<()> {
    // What is no host name would be another path.
    if !is_host_name(&options.host) {
        anyhow::bail!("{:?} is no host's name", options.host);
    }
    call(&options.runtime_dir, Method::DELETE, &format!("{}{}", admin::FORGET, options.host)).map(drop)
}

/// What the running Selvedge would change in the kernel's routes to other hosts, and whether that is nothing.
///
/// # Errors
/// No Selvedge runs there, or it has not read the registry yet.
pub(crate) fn plan(runtime_dir: &Path) -> anyhow::Result<(String, bool)> {
    let steps: Vec<String> = ask(runtime_dir, "/network")?;
    let lines: String = steps.iter().map(|step| format!("{step}\n")).collect();
    let fine = steps.is_empty();
    Ok((if fine { "the kernel has all routes to other hosts\n".to_owned() } else { lines }, fine))
}

fn ask<T: DeserializeOwned>(runtime_dir: &Path, path: &str) -> anyhow::Result<T> {
    Ok(serde_json::from_slice(&call(runtime_dir, Method::GET, path)?)?)
}

fn call(runtime_dir: &Path, method: Method, path: &str) -> anyhow::Result<Bytes> {
    let socket = Config::admin_socket(runtime_dir);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(Engine::new(&socket).expect(method, path, Vec::new())) {
        Err(EngineError::Refused { message, .. }) => Err(anyhow::anyhow!(message)),
        answer => answer
            .map_err(|error| anyhow::anyhow!("{}", error.to_string().replace("the engine", "Selvedge")))
            .with_context(|| format!("no answer at {}; is Selvedge running?", socket.display())),
    }
}

/// Columns as wide as their widest cell, three blanks between, as `docker ps` prints.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    rows.iter()
        .map(|row| {
            let cells: String =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}   ")).collect();
            format!("{}\n", cells.trim_end())
        })
        .collect()
}
