//! The status as lines for people: a word and its value each. Must never say less than the verdict does.

use std::fmt::Write as _;

use selvedge_cluster::view::PeerView;
use selvedge_datapath::status::{Refused, ServiceStatus};

use super::verdict::not_connected;
use super::{AgentStatus, ClusterStatus, EngineStatus, Status};

type Row = (&'static str, String);

const WARNING: &str = "WARNING";

/// All lines of it.
pub(crate) fn text(status: &Status) -> String {
    let mut out = String::new();
    let more = policy(status)
        .into_iter()
        .chain(vips(status))
        .chain(status.cluster.iter().flat_map(|others| cluster(others, &status.policy.mode)))
        .chain(status.health_from.iter().map(agent))
        .chain(network(status))
        .chain(doubles(status));
    for (name, value) in rows(status).into_iter().chain(more) {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{name:<9} {value}");
    }
    out
}

fn rows(status: &Status) -> Vec<Row> {
    let worker = &status.worker;
    let listen: Vec<String> = status.listen.iter().map(|path| path.display().to_string()).collect();
    let pool = status.pool.map(|pool| pool.to_string());
    vec![
        ("version", status.version.clone()),
        ("worker", format!("pid {}, up {} s", worker.pid, worker.uptime_seconds)),
        ("keeper", keeper(status)),
        ("engine", engine(&status.engine)),
        ("listen", listen.join(" ")),
        (
            "pool",
            format!("{}, {}, {} addresses taken", or_dash(pool), blocks(status), status.addresses_taken),
        ),
        ("domain", status.domain.clone()),
        (
            "requests",
            format!(
                "{} short, {} streams, {} rewritten; {} connections now",
                worker.requests.short,
                worker.requests.streams,
                worker.requests.rewritten,
                worker.requests.connections
            ),
        ),
        ("dns", dns(status)),
        ("policy", status.policy.mode.clone()),
    ]
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

fn keeper(status: &Status) -> String {
    let Some(keeper) = &status.keeper else { return "does not answer".to_owned() };
    format!(
        "pid {}, second {}, up {} s, {} streams, {} parked, {} worker deaths, {} upgrades, {} takeovers",
        keeper.pid,
        if keeper.second == 0 { "none".to_owned() } else { format!("pid {}", keeper.second) },
        keeper.up_ms / 1000,
        keeper.streams.len(),
        keeper.parked,
        keeper.worker_deaths,
        keeper.upgrades,
        keeper.takeovers
    )
}

fn engine(engine: &EngineStatus) -> String {
    let state = match (engine.up, engine.answers) {
        (true, true) if engine.late_ms.is_some() => "slow",
        (true, true) => "up",
        (true, false) => "DOES NOT ANSWER",
        (false, _) => "AWAY",
    };
    let (version, api) = (or_dash(engine.version.clone()), or_dash(engine.api.clone()));
    format!("{state}, {version} (API {api}) at {}", engine.socket.display())
}

fn dns(status: &Status) -> String {
    let Some(dns) = &status.dns else { return "stopped".to_owned() };
    format!(
        "{} queries by UDP, {} by TCP; {} answered here, {} forwarded, {} from the cache",
        dns.udp_queries, dns.tcp_queries, dns.local, dns.forwarded, dns.cache_hits
    )
}

fn blocks(status: &Status) -> String {
    let told = |block: &super::BlockStatus| format!("{} ({} free)", block.block, block.free);
    let blocks: Vec<String> = status.blocks.iter().map(told).collect();
    match blocks.as_slice() {
        [] => "no block yet".to_owned(),
        [one] => format!("block {one}"),
        several => format!("blocks {}", several.join(" ")),
    }
}

/// What is wrong with the rules between tenants, and the calls that they refused.
fn policy(status: &Status) -> Vec<Row> {
    let policy = &status.policy;
    let trouble = policy.trouble.iter().map(|reason| ("", format!("NOT IN FORCE: {reason}")));
    let refused = policy.refused.iter().map(|calls| ("", refusal(calls)));
    let more =
        (policy.refused_more > 0).then(|| ("", format!("and {} more kinds of calls", policy.refused_more)));
    trouble.chain(refused).chain(more).collect()
}

/// `shop/web to bank/db tcp 80: 3 packets refused in the last day, by selvedge.allow`.
fn refusal(calls: &Refused) -> String {
    // A worker of an earlier version knows the tenants only.
    let who = |name: &str, tenant: &str| if name.is_empty() { tenant.to_owned() } else { name.to_owned() };
    let (caller, called) = (who(&calls.caller, &calls.from), who(&calls.called, &calls.to));
    let what = [calls.protocol.clone(), calls.port.map(|port| port.to_string())];
    let what: String = what.into_iter().flatten().map(|word| format!(" {word}")).collect();
    let rule = calls.rule.as_ref().map(|rule| format!(", by {rule}")).unwrap_or_default();
    format!("{caller} to {called}{what}: {} packets refused in the last day{rule}", calls.packets)
}

/// The virtual addresses, each with its number of backends, and what is wrong with them.
fn vips(status: &Status) -> Vec<Row> {
    let line = |service: &ServiceStatus| {
        let ports = service.ports.iter().map(|port| format!("{} ({})", port.port, port.backends.len()));
        let tenant = service.tenant.as_ref().map(|tenant| format!(" of {tenant}")).unwrap_or_default();
        let address = or_dash(service.address.map(|address| address.to_string()));
        ("vip", format!("{} {address}{tenant}, {}", service.name, Vec::from_iter(ports).join(", ")))
    };
    let waiting = |key: &String| {
        (
            WARNING,
            format!("{key:?} has no virtual address yet: the registry does not answer, or has none left"),
        )
    };
    let trouble = status
        .vips
        .trouble
        .iter()
        .map(|reason| (WARNING, format!("virtual addresses are not right: {reason}")));
    let services = status.vips.services.iter().map(line);
    services.chain(status.vips.waiting.iter().map(waiting)).chain(trouble).collect()
}

/// The Mesos agent that tells of health checks.
fn agent(agent: &AgentStatus) -> Row {
    let state = match &agent.reason {
        None => format!("{} tasks with a check", agent.tasks),
        Some(reason) => format!("DOES NOT ANSWER: {reason}; {}", agent.counts_meanwhile()),
    };
    ("health", format!("Mesos agent at {}, {state}", agent.agent))
}

/// A warning for what the kernel or a firewall of the host refuses.
fn network(status: &Status) -> Vec<Row> {
    let network = &status.network;
    let cannot = |reason: &Option<String>, what: &str| {
        reason.as_ref().map(|reason| (WARNING, format!("{what} cannot be put right: {reason}")))
    };
    let lacks = network.host.iter().map(|lack| (WARNING, format!("{lack}: it is being restored")));
    let refused = network.addresses.iter().map(|line| (WARNING, format!("no wire: {line}")));
    cannot(&network.routes, "the routes to other hosts")
        .into_iter()
        .chain(cannot(&network.firewalls, "the host's firewalls"))
        .chain(lacks)
        .chain(refused)
        .collect()
}

/// A warning for each exclusive name that several containers have.
fn doubles(status: &Status) -> Vec<Row> {
    let line = |double: &super::Double| {
        let (name, ids) = (&double.name, &double.containers);
        (WARNING, format!("{name} is exclusive, and {} containers have it: {}", ids.len(), ids.join(", ")))
    };
    status.doubles.iter().map(line).collect()
}

/// The registry, and a line for each host that is not well.
fn cluster(others: &ClusterStatus, own: &str) -> Vec<Row> {
    let state = match not_connected(&others.connection) {
        None => "connected".to_owned(),
        Some((state, reason)) => format!("{}: {reason}", state.to_uppercase()),
    };
    let alive = others.hosts.iter().filter(|host| host.alive).count();
    let address = or_dash(others.address.map(|address| address.to_string()));
    let mut rows = vec![
        ("registry", format!("{}, {state}", others.registry)),
        ("host", format!("{} at {address}; {alive} of {} others alive", others.host, others.hosts.len())),
    ];
    rows.extend(others.hosts.iter().flat_map(|host| peer(host, own)));
    rows
}

fn peer(host: &PeerView, own: &str) -> Vec<Row> {
    let name = &host.name;
    let policy = host.info.as_ref().map(|info| info.policy.as_str());
    let policy = policy.filter(|policy| !policy.is_empty() && *policy != own);
    let mut rows: Vec<Row> = policy
        .map(|policy| (WARNING, format!("{name} has --policy {policy}; all hosts must have the same")))
        .into_iter()
        .collect();
    match (host.alive, host.registered) {
        (true, true) => {}
        (true, false) => rows.push(("", format!("{name} answers, and is not in the registry"))),
        (false, _) => rows.push(("", format!("{name} is GONE; it keeps its blocks until `selvedge forget`"))),
    }
    rows
}
