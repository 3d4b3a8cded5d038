//! What `selvedge status` says: one structure, which a worker writes as JSON and the command line reads.
//! `docs/status.schema.json` describes it.
//!
//! The two may come from different releases: a field that one of them does not know must never keep the other from
//! reading the rest.

pub(crate) mod gather;
pub(crate) mod text;
pub(crate) mod verdict;

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::Ipv4Net;
use selvedge_cluster::view::{PeerView, Registry};
use selvedge_datapath::status::{PolicyStatus, VipStatus};
use selvedge_keeper::status::Snapshot;
use selvedge_proxy::counters::Counts;
use serde::{Deserialize, Serialize};

use crate::checks::Finding;

/// `GET /status` on the admin socket.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    /// Of the worker.
    pub(crate) version: String,
    /// `OK` or `TROUBLE`.
    pub(crate) verdict: String,
    /// All that is not as it should be, the worst first.
    pub(crate) troubles: Vec<Trouble>,
    /// The worker process.
    pub(crate) worker: WorkerStatus,
    /// The keeper process; `null` if it does not answer.
    pub(crate) keeper: Option<Snapshot>,
    /// dockerd.
    pub(crate) engine: EngineStatus,
    /// The API's sockets.
    pub(crate) listen: Vec<PathBuf>,
    /// All container addresses.
    pub(crate) pool: Option<Ipv4Net>,
    /// The parts of the pool that this host hands out.
    pub(crate) blocks: Vec<BlockStatus>,
    /// Addresses that containers of this host have.
    pub(crate) addresses_taken: usize,
    /// The other hosts; `null` on a single one.
    pub(crate) cluster: Option<ClusterStatus>,
    /// What of this host's network is not right.
    pub(crate) network: NetworkStatus,
    /// The rules between tenants.
    pub(crate) policy: PolicyStatus,
    /// The virtual addresses.
    pub(crate) vips: VipStatus,
    /// The Mesos agent that tells of health checks (`--health-from`); `null` without one.
    pub(crate) health_from: Option<AgentStatus>,
    /// Exclusive names that several containers have.
    pub(crate) doubles: Vec<Double>,
    /// What the list of checks found.
    pub(crate) checks: Vec<Finding>,
    /// Of all names.
    pub(crate) domain: String,
    /// What DNS has counted; `null` once it has stopped.
    pub(crate) dns: Option<DnsCounts>,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Trouble {
    /// Whether containers or clients suffer from it now; else they soon may.
    pub(crate) critical: bool,
    /// What it is.
    pub(crate) what: String,
    /// What to do about it.
    pub(crate) cure: String,
}

/// The worker process.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct WorkerStatus {
    /// Its process.
    pub(crate) pid: u32,
    /// Seconds since its start.
    pub(crate) uptime_seconds: u64,
    /// Requests since then.
    pub(crate) requests: Counts,
    /// Changes to the kernel's network since then.
    pub(crate) network_changes: u64,
}

/// dockerd.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct EngineStatus {
    /// Its socket.
    pub(crate) socket: PathBuf,
    /// Whether its events are followed.
    pub(crate) up: bool,
    /// Whether it answers questions.
    pub(crate) answers: bool,
    /// Milliseconds that a slow one needed last, or needs by now.
    pub(crate) late_ms: Option<u64>,
    /// Its version.
    pub(crate) version: Option<String>,
    /// The latest version of its API.
    pub(crate) api: Option<String>,
}

/// A block of addresses.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct BlockStatus {
    /// The block.
    pub(crate) block: Ipv4Net,
    /// How many of its addresses are free.
    pub(crate) free: u32,
}

/// The other hosts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ClusterStatus {
    /// The registry's URL, without credentials.
    pub(crate) registry: String,
    /// Whether it is connected.
    pub(crate) connection: Registry,
    /// Whether it has been read since the worker's start.
    pub(crate) read: bool,
    /// This host's name.
    pub(crate) host: String,
    /// This host's address on the underlay.
    pub(crate) address: Option<IpAddr>,
    /// All others.
    pub(crate) hosts: Vec<PeerView>,
}

/// What of this host's network is not right.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct NetworkStatus {
    /// Why routes to other hosts cannot be made.
    pub(crate) routes: Option<String>,
    /// Why the host's firewalls cannot be opened.
    pub(crate) firewalls: Option<String>,
    /// What was taken away from this host and is being restored.
    pub(crate) host: Vec<String>,
    /// Containers without a wire, since another one has their address.
    pub(crate) addresses: Vec<String>,
}

/// A Mesos agent.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct AgentStatus {
    /// Its address.
    pub(crate) agent: String,
    /// Why it does not answer; `null` if it does.
    pub(crate) reason: Option<String>,
    /// Seconds since it answered last; `null` before the first time since the worker's start.
    pub(crate) heard_seconds: Option<u64>,
    /// How many of its tasks had a verdict then.
    pub(crate) tasks: usize,
}

impl AgentStatus {
    /// What counts while it does not answer.
    pub(crate) fn counts_meanwhile(&self) -> String {
        match self.heard_seconds {
            Some(seconds) => format!("its verdicts of {seconds} s ago count ({} tasks)", self.tasks),
            None => "until then a HEALTHCHECK of Docker's counts alone".to_owned(),
        }
    }
}

/// An exclusive name that several containers have.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Double {
    /// The name.
    pub(crate) name: String,
    /// Their ids.
    pub(crate) containers: Vec<String>,
}

/// What DNS has counted since the worker's start.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct DnsCounts {
    /// Datagrams read.
    pub(crate) udp_queries: u64,
    /// Queries read from TCP connections.
    pub(crate) tcp_queries: u64,
    /// Answered from the table.
    pub(crate) local: u64,
    /// Forwarded.
    pub(crate) forwarded: u64,
    /// Answered from the cache.
    pub(crate) cache_hits: u64,
    /// Answered from it past the answer's time, as no name server answered.
    pub(crate) stale: u64,
    /// Answered with REFUSED or NOTIMP.
    pub(crate) refused: u64,
    /// Not a readable query.
    pub(crate) malformed: u64,
    /// Answered with a SERVFAIL of ours.
    pub(crate) servfail: u64,
    /// Turned away, as too many were under way.
    pub(crate) overload: u64,
}

#[cfg(test)]
mod tests;
