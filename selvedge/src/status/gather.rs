//! Fills in the status of a running worker. Must never wait long for any part: a hung engine must not hide what it hangs.

use std::sync::Arc;

use selvedge_cluster::view::PeerView;
use selvedge_containers::agent::Agent;
use selvedge_containers::entry::Entry;
use selvedge_engine::model::short;
use serde_json::Value;

use super::{
    AgentStatus, BlockStatus, ClusterStatus, DnsCounts, EngineStatus, NetworkStatus, Status, WorkerStatus,
    verdict,
};
use crate::parts::Worker;

/// The worker's status at this moment, with the verdict on it.
pub(crate) async fn status(worker: &Worker) -> Status {
    let mut status = parts(worker).await;
    status.troubles = verdict::troubles(&status);
    status.verdict = if status.troubles.is_empty() { "OK" } else { "TROUBLE" }.to_owned();
    status
}

async fn parts(worker: &Worker) -> Status {
    let config = &worker.config;
    let free = worker.datapath.addresses.free_by_block();
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        verdict: String::new(),
        troubles: Vec::new(),
        worker: WorkerStatus {
            pid: std::process::id(),
            uptime_seconds: worker.since.elapsed().as_secs(),
            requests: worker.api.counters.now(),
            network_changes: worker.network.changes(),
        },
        keeper: worker.api.keeper.status().await.map(|snapshot| *snapshot),
        engine: engine(worker).await,
        listen: config.listen.clone(),
        pool: Some(config.pool),
        blocks: free.into_iter().map(|(block, free)| BlockStatus { block, free }).collect(),
        addresses_taken: worker.datapath.addresses.taken(),
        cluster: cluster(worker),
        network: network(worker).await,
        policy: worker.datapath.directory.policy.status(),
        vips: worker.datapath.vips.status(),
        health_from: worker.agent.as_deref().map(agent),
        doubles: worker.doubles(),
        checks: worker.health.findings(config).await,
        domain: config.domain.to_string(),
        dns: worker.dns_counts().map(|counts| dns(&counts)),
    }
}

async fn engine(worker: &Worker) -> EngineStatus {
    let beat = worker.health.pulse.take(&worker.containers.engine).await;
    let text = |key: &str| beat.version.get(key).and_then(Value::as_str).map(str::to_owned);
    EngineStatus {
        socket: worker.config.engine.clone(),
        up: worker.containers.is_followed(),
        answers: beat.answers,
        late_ms: beat.late.and_then(|late| u64::try_from(late.as_millis()).ok()),
        version: text("Version"),
        api: text("ApiVersion"),
    }
}

fn agent(agent: &Agent) -> AgentStatus {
    let heard = agent.heard();
    AgentStatus {
        agent: agent.address().to_string(),
        reason: heard.reason,
        heard_seconds: heard.last.map(|last| last.elapsed().as_secs()),
        tasks: heard.tasks,
    }
}

async fn network(worker: &Worker) -> NetworkStatus {
    let lacks = worker.network.host_lacks().await;
    NetworkStatus {
        routes: worker.datapath.routes.trouble(),
        firewalls: worker.containers.firewalls.reason(),
        host: lacks.unwrap_or_else(|error| vec![error.to_string()]),
        addresses: without_wire(worker),
    }
}

/// Containers that get no wire, since another one has their address.
fn without_wire(worker: &Worker) -> Vec<String> {
    let of = |(id, entry): (String, Entry)| {
        let holder = entry.refused?;
        let (id, address) = (short(&id), entry.note.address);
        Some(format!("container {id} ({}): {address} is taken by {holder}", entry.name))
    };
    worker.containers.book.all().into_iter().filter_map(of).collect()
}

fn cluster(worker: &Worker) -> Option<ClusterStatus> {
    let config = &worker.config.cluster;
    if config.is_local() {
        return None;
    }
    let view = Arc::clone(&worker.datapath.cluster.views().borrow());
    // The view is only news of hosts; how many containers each has is in the table, `HOST/ID` each.
    let counts = worker.containers_by_host();
    let counted = |peer: &PeerView| PeerView {
        containers: counts.get(&peer.name).copied().unwrap_or(0),
        ..peer.clone()
    };
    Some(ClusterStatus {
        registry: config.registry_text.clone(),
        connection: view.registry.clone(),
        read: view.read,
        host: config.host_name.clone(),
        address: Some(worker.datapath.cluster.address()),
        hosts: view.peers.iter().map(counted).collect(),
    })
}

fn dns(counts: &selvedge_dns::Counts) -> DnsCounts {
    DnsCounts {
        udp_queries: counts.udp_queries,
        tcp_queries: counts.tcp_queries,
        local: counts.local,
        forwarded: counts.forwarded,
        cache_hits: counts.cache_hits,
        stale: counts.stale,
        refused: counts.refused,
        malformed: counts.malformed,
        servfail: counts.servfail,
        overload: counts.overload,
    }
}
