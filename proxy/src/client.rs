//! `selvedge status` and `selvedge ps`: asks the running worker and prints.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use bytes::Bytes;
use hyper::Method;
use selvedge_cluster::key::is_host_name;
use selvedge_keeper::control::{UpgradeRequest, request_upgrade};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::admin::{self, Shown};
use crate::cli::{Forget, Query, Upgrade};
use crate::config::{Config, ConfigError, duration};
use crate::docker::engine::{Engine, EngineError};

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
        let state = if c.healthy { c.state } else { format!("{}, unhealthy", c.state) };
        [id, c.name, c.address, state, c.tenant, c.names.join(" ")]
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
            format!("{}, {}, {} addresses taken", text("/pool"), blocks(status), text("/addresses_taken")),
        ),
        ("domain", text("/domain")),
        ("requests", requests),
        ("dns", dns),
        ("policy", text("/policy/mode")),
    ];
    let more = policy(status)
        .into_iter()
        .chain(vips(status))
        .chain(cluster(status))
        .chain(network(status))
        .chain(doubles(status));
    for (name, value) in rows.into_iter().chain(more) {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{name:<9} {value}");
    }
    out
}

fn blocks(status: &Value) -> String {
    let list = status.pointer("/blocks").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let blocks: Vec<&str> = list.iter().filter_map(|block| block["block"].as_str()).collect();
    match blocks.as_slice() {
        [] => "no block yet".to_owned(),
        [one] => format!("block {one}"),
        several => format!("blocks {}", several.join(" ")),
    }
}

/// What is wrong with the rules between tenants, and who was refused.
fn policy(status: &Value) -> Vec<(&'static str, String)> {
    let trouble = status.pointer("/policy/trouble").and_then(Value::as_str);
    let trouble = trouble.map(|reason| ("", format!("NOT IN FORCE: {reason}")));
    let refused = status.pointer("/policy/refused").and_then(Value::as_array);
    let line = |pair: &Value| {
        let text = |key: &str| pair[key].as_str().unwrap_or("-").to_owned();
        (
            "",
            format!(
                "{} to {}: {} packets refused in the last day",
                text("from"),
                text("to"),
                pair["packets"]
            ),
        )
    };
    trouble.into_iter().chain(refused.into_iter().flatten().map(line)).collect()
}

/// The virtual addresses, each with how many stand behind it; and what is wrong with them.
fn vips(status: &Value) -> Vec<(&'static str, String)> {
    let list = |pointer: &str| status.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
    let port = |port: &Value| {
        format!(
            "{} ({})",
            port["port"].as_str().unwrap_or("-"),
            port["backends"].as_array().map_or(0, Vec::len)
        )
    };
    let line = |service: &Value| {
        let text = |key: &str| service[key].as_str().unwrap_or("-");
        let tenant = service["tenant"].as_str().map(|tenant| format!(" of {tenant}")).unwrap_or_default();
        let ports: Vec<String> = service["ports"].as_array().into_iter().flatten().map(port).collect();
        ("vip", format!("{} {}{tenant}, {}", text("name"), text("address"), ports.join(", ")))
    };
    let waiting = |key: &Value| {
        (
            "WARNING",
            format!("{} has no virtual address yet: the registry does not answer, or has none left", key),
        )
    };
    let trouble = status.pointer("/vips/trouble").and_then(Value::as_str);
    let trouble = trouble.map(|reason| ("WARNING", format!("virtual addresses are not right: {reason}")));
    let warnings = list("/vips/waiting").map(waiting).chain(trouble);
    list("/vips/services").map(line).chain(warnings).collect()
}

/// A warning for what the kernel or a firewall of the host refuses.
fn network(status: &Value) -> Vec<(&'static str, String)> {
    let of = |(key, what): (&str, &str)| {
        let reason = status["network"][key].as_str()?;
        Some(("WARNING", format!("{what} cannot be put right: {reason}")))
    };
    [("routes", "the routes to other hosts"), ("firewalls", "the host's firewalls")]
        .into_iter()
        .filter_map(of)
        .collect()
}

/// A warning for each name of which there shall be one container, and there are more.
fn doubles(status: &Value) -> Vec<(&'static str, String)> {
    let line = |double: &Value| {
        let ids = double["containers"].as_array().map_or(&[][..], Vec::as_slice);
        let ids: Vec<&str> = ids.iter().filter_map(Value::as_str).collect();
        let name = double["name"].as_str().unwrap_or("-");
        ("WARNING", format!("{name} is exclusive, and {} containers have it: {}", ids.len(), ids.join(", ")))
    };
    status.pointer("/doubles").and_then(Value::as_array).into_iter().flatten().map(line).collect()
}

/// The registry, and a line for each host that is not well.
fn cluster(status: &Value) -> Vec<(&'static str, String)> {
    let Some(cluster) = status.get("cluster").filter(|cluster| cluster.is_object()) else {
        return Vec::new();
    };
    let text = |key: &str| cluster[key].as_str().unwrap_or("-");
    let state = match cluster["connection"]["state"].as_str() {
        Some("connected") => "connected".to_owned(),
        Some(state) => {
            format!("{}: {}", state.to_uppercase(), cluster["connection"]["reason"].as_str().unwrap_or("-"))
        }
        None => "-".to_owned(),
    };
    let hosts = cluster["hosts"].as_array().map_or(&[][..], Vec::as_slice);
    let alive = hosts.iter().filter(|host| host["alive"] == true).count();
    let mut rows = vec![
        ("registry", format!("{}, {state}", text("registry"))),
        (
            "host",
            format!("{} at {}; {} of {} others alive", text("host"), text("address"), alive, hosts.len()),
        ),
    ];
    let name = |host: &Value| host["name"].as_str().unwrap_or("-").to_owned();
    let own = status.pointer("/policy/mode").and_then(Value::as_str);
    for host in hosts {
        let policy = host["info"]["policy"].as_str().filter(|policy| !policy.is_empty());
        if let Some(policy) = policy.filter(|policy| Some(*policy) != own) {
            rows.push((
                "WARNING",
                format!("{} has --policy {policy}; all hosts must have the same", name(host)),
            ));
        }
        match (host["alive"] == true, host["registered"] == true) {
            (true, true) => {}
            (true, false) => rows.push(("", format!("{} answers, and is not in the registry", name(host)))),
            (false, _) => rows
                .push(("", format!("{} is GONE; it keeps its blocks until `selvedge forget`", name(host)))),
        }
    }
    rows
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_do_not_agree_about_the_policy_are_told_of() {
        let host = |name: &str, policy: &str| serde_json::json!({"name": name, "alive": true, "registered": true, "info": {"policy": policy}});
        let hosts = [host("a", "tenant"), host("b", "open"), host("early", "")];
        let status = serde_json::json!({"policy": {"mode": "tenant"}, "cluster": {"hosts": hosts}});
        let warnings: Vec<String> =
            cluster(&status).into_iter().filter(|(row, _)| *row == "WARNING").map(|(_, text)| text).collect();
        assert_eq!(warnings, ["b has --policy open; all hosts must have the same"]);
    }
}
