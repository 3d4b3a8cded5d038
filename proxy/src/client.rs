//! `selvedge status` and `selvedge ps`: asks the running worker and prints.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use selvedge_keeper::control::{UpgradeRequest, request_upgrade};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::admin::Shown;
use crate::cli::{Query, Upgrade};
use crate::config::{Config, ConfigError, duration};
use crate::docker::engine::Engine;

/// Prints what `selvedge status` shows.
///
/// # Errors
/// No Selvedge runs there, or it does not answer.
pub(crate) fn status(query: &Query) -> anyhow::Result<String> {
    let status: Value = ask(&query.runtime_dir, "/status")?;
    if query.json {
        return Ok(format!("{status:#}\n"));
    }
    Ok(status_text(&status))
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
        [id, c.name, c.address, c.state, c.tenant.unwrap_or_else(|| "-".to_owned()), c.names.join(" ")]
    });
    Ok(table(&std::iter::once(head).chain(rows).collect::<Vec<_>>()))
}

/// Asks the keeper for an upgrade and prints its progress line by line.
///
/// # Errors
/// Why what ran before goes on.
pub(crate) fn upgrade(options: &Upgrade, mut print: impl FnMut(&str)) -> anyhow::Result<()> {
    let timeout = duration(&options.timeout).map_err(|reason| ConfigError::Value {
        name: "timeout",
        value: options.timeout.clone(),
        reason,
    })?;
    let request = UpgradeRequest {
        binary: options.binary.as_deref().map(std::path::absolute).transpose()?,
        timeout_ms: u64::try_from(timeout.as_millis()).ok(),
        keeper: options.keeper,
    };
    let last = request_upgrade(&options.runtime_dir, &request, &mut print)?;
    print(&last);
    Ok(())
}

fn ask<T: DeserializeOwned>(runtime_dir: &Path, path: &str) -> anyhow::Result<T> {
    let socket = Config::admin_socket(runtime_dir);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime
        .block_on(Engine::new(&socket).get(path))
        .map_err(|error| anyhow::anyhow!("{}", error.to_string().replace("the engine", "Selvedge")))
        .with_context(|| format!("no answer at {}; is Selvedge running?", socket.display()))
}

fn engine_state(status: &Value) -> &'static str {
    let truth = |pointer: &str| status.pointer(pointer).and_then(Value::as_bool).unwrap_or(false);
    match (truth("/engine/up"), truth("/engine/answers")) {
        (true, true) => "up",
        (true, false) => "DOES NOT ANSWER",
        (false, _) => "AWAY",
    }
}

fn status_text(status: &Value) -> String {
    let text = |pointer: &str| match status.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
        Some(Value::Null) | None => "-".to_owned(),
        Some(other) => other.to_string(),
    };
    let engine = engine_state(status);
    let mut out = String::new();
    let count = |pointer: &str| status.pointer(pointer).and_then(Value::as_array).map_or(0, Vec::len);
    let seconds = |pointer: &str| status.pointer(pointer).and_then(Value::as_u64).unwrap_or(0) / 1000;
    let keeper = format!(
        "pid {}, up {} s, {} streams, {} parked, {} worker deaths, {} upgrades",
        text("/keeper/pid"),
        seconds("/keeper/up_ms"),
        count("/keeper/streams"),
        text("/keeper/parked"),
        text("/keeper/worker_deaths"),
        text("/keeper/upgrades")
    );
    let requests = format!(
        "{} short, {} streams, {} rewritten; {} connections now",
        text("/worker/requests/short"),
        text("/worker/requests/streams"),
        text("/worker/requests/rewritten"),
        text("/worker/requests/connections")
    );
    let dns = format!(
        "{} queries by UDP, {} by TCP; {} answered here, {} forwarded, {} from the cache",
        text("/dns/udp_queries"),
        text("/dns/tcp_queries"),
        text("/dns/local"),
        text("/dns/forwarded"),
        text("/dns/cache_hits")
    );
    let version = format!("{engine}, {} (API {})", text("/engine/version"), text("/engine/api"));
    let rows = [
        ("version", text("/version")),
        ("worker", format!("pid {}, up {} s", text("/worker/pid"), text("/worker/uptime_seconds"))),
        ("keeper", keeper),
        ("engine", format!("{version} at {}", text("/engine/socket"))),
        ("listen", text("/listen")),
        (
            "pool",
            format!(
                "{}, block {}, {} addresses taken",
                text("/pool"),
                text("/block"),
                text("/addresses_taken")
            ),
        ),
        ("domain", text("/domain")),
        ("requests", requests),
        ("dns", dns),
    ];
    for (name, value) in rows {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{name:<9} {value}");
    }
    out
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
