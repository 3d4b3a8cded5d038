//! What users type. Says nothing of what it means: that is `config`'s.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use serde::Deserialize;

/// An IP address and a DNS name for every container, behind a Docker socket that never goes away.
#[derive(Debug, Parser)]
#[command(name = "selvedge", version, max_term_width = 110)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs Selvedge: the keeper and its worker
    Run(Options),
    /// The worker; started by the keeper only
    #[command(hide = true)]
    Worker(Options),
    /// Shows version, uptime, engine, streams and counts
    Status(Status),
    /// Shows the containers with their addresses, names and state
    Ps(Query),
    /// Says what this machine lacks to run Selvedge
    Check(Check),
    /// Frees the blocks, addresses and names of a host that does not live any more
    Forget(Forget),
    /// Replaces the worker by one of the binary on disk; no client notices
    Upgrade(Upgrade),
}

/// Options of `status`.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// End with 0 when all is well, 1 for a warning, 2 when containers or clients suffer or nothing answers
    #[arg(long)]
    pub(crate) check: bool,
    /// What is asked, and where.
    #[command(flatten)]
    pub(crate) query: Query,
}

/// Options of `upgrade`.
#[derive(Debug, Args)]
pub(crate) struct Upgrade {
    /// The binary to start [default: the path that the running one was started from]
    #[arg(long, value_name = "PATH")]
    pub(crate) binary: Option<PathBuf>,
    /// How long it may take to get ready
    #[arg(long, default_value = "30s", value_name = "TIME")]
    pub(crate) timeout: String,
    /// Replace the keeper itself, in place, instead of its worker
    #[arg(long)]
    pub(crate) keeper: bool,
    /// Where the running Selvedge keeps its sockets
    #[arg(long, env = "SELVEDGE_RUNTIME_DIR", default_value = "/run/selvedge", value_name = "DIR")]
    pub(crate) runtime_dir: PathBuf,
}

/// Options of `check`.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Ask the running Selvedge what it would change in the kernel's routes to other hosts, instead
    #[arg(long)]
    pub(crate) network: bool,
    /// The settings to check.
    #[command(flatten)]
    pub(crate) options: Options,
}

/// Options of `forget`.
#[derive(Debug, Args)]
pub(crate) struct Forget {
    /// The host's name in the registry
    #[arg(value_name = "HOST")]
    pub(crate) host: String,
    /// Where the running Selvedge keeps its sockets
    #[arg(long, env = "SELVEDGE_RUNTIME_DIR", default_value = "/run/selvedge", value_name = "DIR")]
    pub(crate) runtime_dir: PathBuf,
}

/// Options of the commands that ask a running Selvedge.
#[derive(Debug, Args)]
pub(crate) struct Query {
    /// Machine-readable output
    #[arg(long)]
    pub(crate) json: bool,
    /// Where the running Selvedge keeps its sockets
    #[arg(long, env = "SELVEDGE_RUNTIME_DIR", default_value = "/run/selvedge", value_name = "DIR")]
    pub(crate) runtime_dir: PathBuf,
}

const REGISTRY: &str = "\
Who carries names and blocks between hosts [default: local, for a single host]

local, zookeeper://[USER:PASSWORD@]HOST:PORT,..[/FOLDER] or etcd://[USER:PASSWORD@]HOST:PORT,..[/FOLDER]; \
a password is better kept in the TOML file or the environment.";

/// The options of `run`, `worker` and `check`. Each is also SELVEDGE_NAME in the environment and a key in the
/// TOML file, with the same name; the flag wins, then the environment, then the file.
#[derive(Debug, Default, Clone, Args, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Options {
    /// Read settings from this TOML file; its keys are these flags' names
    #[arg(long, env = "SELVEDGE_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub(crate) config: Option<PathBuf>,
    /// Where clients connect; may be given several times [default: unix://RUNTIME_DIR/docker.sock]
    #[arg(long, env = "SELVEDGE_LISTEN", value_name = "URL", value_delimiter = ',')]
    pub(crate) listen: Vec<String>,
    /// The Docker engine [default: unix:///run/docker.sock]
    #[arg(long, env = "SELVEDGE_ENGINE", value_name = "URL")]
    pub(crate) engine: Option<String>,
    /// Where Selvedge keeps its sockets; tells one Selvedge of a machine from another [default: /run/selvedge]
    #[arg(long, env = "SELVEDGE_RUNTIME_DIR", value_name = "DIR")]
    pub(crate) runtime_dir: Option<PathBuf>,
    /// Where the program that containers begin with lies, on a disk that survives a reboot [default: /var/lib/selvedge/wait]
    #[arg(long, env = "SELVEDGE_WAIT_PATH", value_name = "PATH")]
    pub(crate) wait_path: Option<PathBuf>,
    /// All container addresses [default: 10.32.0.0/12]
    #[arg(long, env = "SELVEDGE_POOL", value_name = "CIDR")]
    pub(crate) pool: Option<String>,
    /// Prefix length of the part of the pool that one host hands out, 16 to 30 [default: 24]
    #[arg(long, env = "SELVEDGE_BLOCK_SIZE", value_name = "BITS")]
    pub(crate) block_size: Option<u8>,
    /// The block this host hands out [default: the pool's first; with a registry: one that no other host has]
    #[arg(long, env = "SELVEDGE_BLOCK", value_name = "CIDR")]
    pub(crate) block: Option<String>,
    /// The DNS domain of container names [default: selvedge.internal]
    #[arg(long, env = "SELVEDGE_DOMAIN", value_name = "NAME")]
    pub(crate) domain: Option<String>,
    /// Further names of Marathon's apps: `mesos` also answers those of Mesos-DNS (db-shop.marathon.mesos) [default:
    /// selvedge]
    #[arg(long, env = "SELVEDGE_DNS_STYLE", value_name = "STYLE")]
    pub(crate) dns_style: Option<String>,
    /// Give containers on user-defined networks, such as Compose's, a wire and names beside that network
    #[arg(long, env = "SELVEDGE_WIRE_USER_NETWORKS", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) wire_user_networks: Option<bool>,
    /// Where containers ask for names [default: 169.254.1.1:53]
    #[arg(long, env = "SELVEDGE_DNS_LISTEN", value_name = "ADDRESS")]
    pub(crate) dns_listen: Option<String>,
    /// Name servers for all that is not ours, for containers without --dns; commas between them. By TLS with
    /// tls://IP#NAME, where NAME is that of its certificate [default: the engine's own setting, else the host's
    /// resolv.conf]
    #[arg(long, env = "SELVEDGE_DNS_UPSTREAM", value_name = "IP[:PORT]", value_delimiter = ',')]
    pub(crate) dns_upstream: Vec<String>,
    /// Trust name servers by TLS with certificates of this PEM file's authorities [default: those of the host]
    #[arg(long, env = "SELVEDGE_DNS_UPSTREAM_CA", value_name = "FILE")]
    pub(crate) dns_upstream_ca: Option<PathBuf>,
    /// Bytes of the largest packet on a wire [default: that of the host's way out]
    #[arg(long, env = "SELVEDGE_MTU", value_name = "BYTES")]
    pub(crate) mtu: Option<u32>,
    /// How long a request waits for an engine that is away, like 30s or 500ms [default: 30s]
    #[arg(long, env = "SELVEDGE_ENGINE_WAIT", value_name = "TIME")]
    pub(crate) engine_wait: Option<String>,
    /// How long the worker may owe the keeper an answer before it is killed and replaced; 0s: for ever [default: 5s]
    #[arg(long, env = "SELVEDGE_WORKER_TIMEOUT", value_name = "TIME")]
    pub(crate) worker_timeout: Option<String>,
    /// Serve clients of old: `mesos` keeps ContainerConfig in image inspects, `api-min=1.24` takes API versions from 1.24 on
    /// that the engine refuses; commas between them
    #[arg(long, env = "SELVEDGE_COMPAT", value_name = "CLIENTS")]
    pub(crate) compat: Option<String>,
    /// Who else tells whether containers are healthy: a Mesos agent, of the checks that its executors make, like
    /// mesos=http://10.0.0.5:5051 [default: the engine alone]
    #[arg(long, env = "SELVEDGE_HEALTH_FROM", value_name = "mesos=URL")]
    pub(crate) health_from: Option<String>,
    /// Who carries names and blocks between hosts [default: local, for a single host]
    #[arg(long, env = "SELVEDGE_REGISTRY", value_name = "URL", hide_env_values = true, long_help = REGISTRY)]
    pub(crate) registry: Option<String>,
    /// Speak TLS with the registry; this PEM file holds who may have signed its certificates
    #[arg(long, env = "SELVEDGE_REGISTRY_CA", value_name = "FILE")]
    pub(crate) registry_ca: Option<PathBuf>,
    /// Our own certificate for the registry, PEM
    #[arg(long, env = "SELVEDGE_REGISTRY_CERT", value_name = "FILE")]
    pub(crate) registry_cert: Option<PathBuf>,
    /// The key of that certificate, PEM
    #[arg(long, env = "SELVEDGE_REGISTRY_KEY", value_name = "FILE")]
    pub(crate) registry_key: Option<PathBuf>,
    /// The name of this host in the registry [default: its hostname]
    #[arg(long, env = "SELVEDGE_HOST_NAME", value_name = "NAME")]
    pub(crate) host_name: Option<String>,
    /// Where other hosts reach this one [default: its address towards the default route]
    #[arg(long, env = "SELVEDGE_HOST_ADDRESS", value_name = "IP")]
    pub(crate) host_address: Option<String>,
    /// How containers of other hosts are reached: direct (routed on a shared link), vxlan, or auto, which takes
    /// direct where it can [default: auto]
    #[arg(long, env = "SELVEDGE_DATAPATH", value_name = "HOW")]
    pub(crate) datapath: Option<String>,
    /// How long a host may be silent before the registry takes it for dead [default: 5s]
    #[arg(long, env = "SELVEDGE_HOST_TIMEOUT", value_name = "TIME")]
    pub(crate) host_timeout: Option<String>,
    /// After what time the blocks of a dead host are free for others [default: 24h]
    #[arg(long, env = "SELVEDGE_FREE_AFTER", value_name = "TIME")]
    pub(crate) free_after: Option<String>,
    /// TCP port on which hosts tell each other that they live [default: 6785]
    #[arg(long, env = "SELVEDGE_PEER_PORT", value_name = "PORT")]
    pub(crate) peer_port: Option<u16>,
    /// UDP port of VXLAN [default: 4789]
    #[arg(long, env = "SELVEDGE_VXLAN_PORT", value_name = "PORT")]
    pub(crate) vxlan_port: Option<u16>,
    /// Network identifier (VNI) of VXLAN, below 2^24 [default: 5843]
    #[arg(long, env = "SELVEDGE_VXLAN_ID", value_name = "NUMBER")]
    pub(crate) vxlan_id: Option<u32>,
    /// IPv6 network whose last 32 bits are a container's IPv4 address; containers then have both [default: none]
    #[arg(long, env = "SELVEDGE_POOL6", value_name = "CIDR")]
    pub(crate) pool6: Option<String>,
    /// Which containers may talk to each other: open (all), or tenant (those of one tenant, and callers that the called
    /// one's label selvedge.allow names) [default: open]
    #[arg(long, env = "SELVEDGE_POLICY", value_name = "POLICY")]
    pub(crate) policy: Option<String>,
    /// With --policy tenant: may hosts and containers talk to each other: allow or deny [default: allow]
    #[arg(long, env = "SELVEDGE_POLICY_HOST", value_name = "VERDICT")]
    pub(crate) policy_host: Option<String>,
    /// With --policy tenant: may any caller connect to a published port: allow, or deny for those that the label does
    /// not name [default: allow]
    #[arg(long, env = "SELVEDGE_POLICY_PUBLISHED", value_name = "VERDICT")]
    pub(crate) policy_published: Option<String>,
    /// With --policy tenant: may containers talk to the world outside: allow or deny [default: allow]
    #[arg(long, env = "SELVEDGE_POLICY_OUT", value_name = "VERDICT")]
    pub(crate) policy_out: Option<String>,
    /// With --policy tenant: may containers ask for names: allow or deny [default: allow]
    #[arg(long, env = "SELVEDGE_POLICY_DNS", value_name = "VERDICT")]
    pub(crate) policy_dns: Option<String>,
    /// How many groups of a Marathon app make its tenant: with 1, /shop/front/web is of the tenant shop [default: 1]
    #[arg(long, env = "SELVEDGE_TENANT_DEPTH", value_name = "NUMBER")]
    pub(crate) tenant_depth: Option<u8>,
    /// The part of the pool that virtual addresses (label selvedge.vip) are taken from, or none [default: the last
    /// sixteenth of the pool]
    #[arg(long, env = "SELVEDGE_VIP_RANGE", value_name = "CIDR")]
    pub(crate) vip_range: Option<String>,
    /// How long a stop of a container behind a virtual address waits for connections under way, when all hosts lead new
    /// ones to others [default: 200ms]
    #[arg(long, env = "SELVEDGE_VIP_DRAIN", value_name = "TIME")]
    pub(crate) vip_drain: Option<String>,
    /// How much is logged: error, warn, info, debug, or tracing's filter syntax [default: info]
    #[arg(long, env = "SELVEDGE_LOG", value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// How it is logged: text or json [default: text]
    #[arg(long, env = "SELVEDGE_LOG_FORMAT", value_name = "FORMAT")]
    pub(crate) log_format: Option<String>,
}

impl Options {
    /// These options, with what they leave open taken from others.
    pub(crate) fn or(self, others: Self) -> Self {
        let listen = if self.listen.is_empty() { others.listen } else { self.listen };
        let dns_upstream = if self.dns_upstream.is_empty() { others.dns_upstream } else { self.dns_upstream };
        Self {
            config: self.config.or(others.config),
            listen,
            dns_upstream,
            dns_upstream_ca: self.dns_upstream_ca.or(others.dns_upstream_ca),
            engine: self.engine.or(others.engine),
            runtime_dir: self.runtime_dir.or(others.runtime_dir),
            wait_path: self.wait_path.or(others.wait_path),
            pool: self.pool.or(others.pool),
            block_size: self.block_size.or(others.block_size),
            block: self.block.or(others.block),
            domain: self.domain.or(others.domain),
            dns_style: self.dns_style.or(others.dns_style),
            wire_user_networks: self.wire_user_networks.or(others.wire_user_networks),
            dns_listen: self.dns_listen.or(others.dns_listen),
            mtu: self.mtu.or(others.mtu),
            engine_wait: self.engine_wait.or(others.engine_wait),
            worker_timeout: self.worker_timeout.or(others.worker_timeout),
            compat: self.compat.or(others.compat),
            health_from: self.health_from.or(others.health_from),
            registry: self.registry.or(others.registry),
            registry_ca: self.registry_ca.or(others.registry_ca),
            registry_cert: self.registry_cert.or(others.registry_cert),
            registry_key: self.registry_key.or(others.registry_key),
            host_name: self.host_name.or(others.host_name),
            host_address: self.host_address.or(others.host_address),
            datapath: self.datapath.or(others.datapath),
            host_timeout: self.host_timeout.or(others.host_timeout),
            free_after: self.free_after.or(others.free_after),
            peer_port: self.peer_port.or(others.peer_port),
            vxlan_port: self.vxlan_port.or(others.vxlan_port),
            vxlan_id: self.vxlan_id.or(others.vxlan_id),
            pool6: self.pool6.or(others.pool6),
            policy: self.policy.or(others.policy),
            policy_host: self.policy_host.or(others.policy_host),
            policy_published: self.policy_published.or(others.policy_published),
            policy_out: self.policy_out.or(others.policy_out),
            policy_dns: self.policy_dns.or(others.policy_dns),
            tenant_depth: self.tenant_depth.or(others.tenant_depth),
            vip_range: self.vip_range.or(others.vip_range),
            vip_drain: self.vip_drain.or(others.vip_drain),
            log: self.log.or(others.log),
            log_format: self.log_format.or(others.log_format),
        }
    }
}
