//! `selvedge status` and `selvedge ps`: asks the running worker and prints.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::admin::Shown;
use crate::cli::Query;
use crate::config::Config;
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

fn ask<T: DeserializeOwned>(runtime_dir: &Path, path: &str) -> anyhow::Result<T> {
    let socket = Config::admin_socket(runtime_dir);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime
        .block_on(Engine::new(&socket).get(path))
        .map_err(|error| anyhow::anyhow!("{}", error.to_string().replace("the engine", "Selvedge")))
        .with_context(|| format!("no answer at {}; is Selvedge running?", socket.display()))
}

fn status_text(status: &Value) -> String {
    let text = |pointer: &str| match status.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
        Some(Value::Null) | None => "-".to_owned(),
        Some(other) => other.to_string(),
    };
    let engine = if status.pointer("/engine/up") == Some(&Value::Bool(true)) { "up" } else { "AWAY" };
    let mut out = String::new();
    let rows = [
        ("version", text("/version")),
        ("worker", format!("pid {}, up {} s", text("/worker/pid"), text("/worker/uptime_seconds"))),
        (
            "keeper",
            format!(
                "pid {}, up {} s, {} streams, {} worker starts",
                text("/keeper/pid"),
                text("/keeper/uptime_seconds"),
                text("/keeper/streams"),
                text("/keeper/worker_starts")
            ),
        ),
        (
            "engine",
            format!(
                "{engine}, {} (API {}) at {}",
                text("/engine/version"),
                text("/engine/api"),
                text("/engine/socket")
            ),
        ),
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
        (
            "requests",
            format!(
                "{} short, {} streams, {} rewritten; {} connections now",
                text("/worker/requests/short"),
                text("/worker/requests/streams"),
                text("/worker/requests/rewritten"),
                text("/worker/requests/connections")
            ),
        ),
        (
            "dns",
            format!(
                "{} queries, {} answered here, {} forwarded",
                text("/dns/queries"),
                text("/dns/local"),
                text("/dns/forwarded")
            ),
        ),
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
