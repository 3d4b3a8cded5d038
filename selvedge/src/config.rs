//! What the options mean: checked once, then plain data. Reads the TOML file, touches nothing else.

use std::ffi::{OsStr, OsString};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};
use selvedge_containers::agent::Address;
use selvedge_registry::name::Name;

use self::value::{one_of, parse};
use crate::cli::Options;

mod cluster;
mod compat;
mod file;
mod policy;
mod source;
mod upstream;
mod value;
mod vips;
pub(crate) use cluster::ClusterConfig;
pub(crate) use compat::Compat;
pub(crate) use policy::PolicyConfig;
pub(crate) use source::{Source, of_environment};
pub(crate) use upstream::UpstreamConfig;
pub(crate) use value::{ConfigError, duration};
pub(crate) use vips::VipConfig;

/// The settings of this process: an error says which of flag, variable and file is wrong.
///
/// # Errors
/// [`ConfigError`], whose text is one line for the user.
pub(crate) fn settings(options: Options) -> Result<Config, ConfigError> {
    let file = options.config.clone();
    Config::new(options).map_err(|error| match error {
        ConfigError::Value { name, value, reason, .. } => {
            let words: Vec<OsString> = std::env::args_os().collect();
            let is_set = |variable: &str| std::env::var_os(OsStr::new(variable)).is_some();
            let by = Source::find(name, &words, is_set, file);
            ConfigError::Value { by, name, value, reason }
        }
        other => other,
    })
}

/// The settings of a running Selvedge.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Where clients connect.
    pub(crate) listen: Vec<PathBuf>,
    /// Whether the user said so; if not, a service manager may say something else.
    pub(crate) listen_is_chosen: bool,
    /// The engine's socket.
    pub(crate) engine: PathBuf,
    /// Where our own sockets lie.
    pub(crate) runtime_dir: PathBuf,
    /// The host's path of `wait`.
    pub(crate) wait_path: PathBuf,
    /// All container addresses.
    pub(crate) pool: Ipv4Net,
    /// The IPv6 network that container addresses are mapped into, if IPv6 is on.
    pub(crate) pool6: Option<Ipv6Net>,
    /// Those that this host hands out: the pool's first block on a single host, else only what the user said.
    pub(crate) block: Option<Ipv4Net>,
    /// Prefix length of a block.
    pub(crate) block_size: u8,
    /// The other hosts.
    pub(crate) cluster: ClusterConfig,
    /// The rules between tenants.
    pub(crate) policy: PolicyConfig,
    /// Virtual addresses.
    pub(crate) vips: VipConfig,
    /// The DNS domain.
    pub(crate) domain: Name,
    /// Whether apps also have the names that Mesos-DNS gives them.
    pub(crate) dns_style_mesos: bool,
    /// Whether containers on user-defined networks get a wire beside.
    pub(crate) wire_user_networks: bool,
    /// Where DNS is answered.
    pub(crate) dns_listen: SocketAddrV4,
    /// Who is asked for all that is not ours.
    pub(crate) dns_upstream: UpstreamConfig,
    /// MTU of wires, if not the host's.
    pub(crate) mtu: Option<u32>,
    /// How long requests wait for the engine.
    pub(crate) engine_wait: Duration,
    /// How long the worker may owe the keeper an answer; zero: for ever.
    pub(crate) worker_timeout: Duration,
    /// The Mesos agent that tells of its tasks' health checks, if there is one.
    pub(crate) health_from: Option<Address>,
    /// Filter of the log.
    pub(crate) log: String,
    /// Log as JSON.
    pub(crate) log_json: bool,
    /// Which clients of old are served.
    pub(crate) compat: Compat,
}

impl Config {
    /// Reads the file, if one is named, and checks everything.
    ///
    /// # Errors
    /// [`ConfigError`], whose text is one line for the user.
    pub(crate) fn new(options: Options) -> Result<Self, ConfigError> {
        let options = match options.config.clone() {
            Some(path) => options.or(file::read(&path)?),
            None => options,
        };
        let cluster = ClusterConfig::new(&options)?;
        let dns_upstream = UpstreamConfig::new(&options)?;
        let policy = PolicyConfig::new(&options)?;
        let runtime_dir = options.runtime_dir.clone().unwrap_or_else(|| "/run/selvedge".into());
        let runtime_dir = std::path::absolute(&runtime_dir).unwrap_or(runtime_dir);
        let pool = parse("pool", options.pool.as_deref().unwrap_or("10.32.0.0/12"), check_pool)?;
        let block_size = block_size(pool, options.block_size)?;
        let block = block(pool, block_size, options.block.as_deref(), cluster.is_local())?;
        // A single host's one block may have any size.
        let block_size = block.map_or(block_size, |block| block.prefix_len());
        Ok(Self {
            vips: VipConfig::new(&options, (pool, block_size), block)?,
            listen: listen(&options.listen, &runtime_dir)?,
            listen_is_chosen: !options.listen.is_empty(),
            engine: parse("engine", options.engine.as_deref().unwrap_or("unix:///run/docker.sock"), unix)?,
            wait_path: options.wait_path.unwrap_or_else(|| "/var/lib/selvedge/wait".into()),
            pool,
            pool6: options.pool6.as_deref().map(|text| parse("pool6", text, check_pool6)).transpose()?,
            block,
            block_size,
            cluster,
            policy,
            domain: parse("domain", options.domain.as_deref().unwrap_or("selvedge.internal"), check_domain)?,
            dns_style_mesos: parse(
                "dns-style",
                options.dns_style.as_deref().unwrap_or("selvedge"),
                dns_style,
            )?,
            wire_user_networks: options.wire_user_networks.unwrap_or(false),
            dns_listen: parse(
                "dns-listen",
                options.dns_listen.as_deref().unwrap_or("169.254.1.1:53"),
                dns_listen,
            )?,
            dns_upstream,
            mtu: options.mtu.map(|mtu| parse("mtu", &mtu.to_string(), check_mtu)).transpose()?,
            engine_wait: parse("engine-wait", options.engine_wait.as_deref().unwrap_or("30s"), duration)?,
            worker_timeout: parse(
                "worker-timeout",
                options.worker_timeout.as_deref().unwrap_or("5s"),
                duration,
            )?,
            compat: parse("compat", options.compat.as_deref().unwrap_or(""), Compat::read)?,
            health_from: options
                .health_from
                .as_deref()
                .map(|text| parse("health-from", text, health_from))
                .transpose()?,
            log: options.log.unwrap_or_else(|| "info".to_owned()),
            log_json: parse("log-format", options.log_format.as_deref().unwrap_or("text"), log_format)?,
            runtime_dir,
        })
    }

    /// Where `selvedge status` and `ps` ask.
    pub(crate) fn admin_socket(runtime_dir: &Path) -> PathBuf {
        runtime_dir.join("admin.sock")
    }
}

fn listen(urls: &[String], runtime_dir: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    if urls.is_empty() {
        return Ok(vec![runtime_dir.join("docker.sock")]);
    }
    urls.iter().map(|url| parse("listen", url, unix)).collect()
}

fn unix(url: &str) -> Result<PathBuf, String> {
    match url.split_once("://") {
        Some(("unix", path)) if path.starts_with('/') => Ok(PathBuf::from(path)),
        None if url.starts_with('/') => Ok(PathBuf::from(url)),
        Some(("tcp", _)) => Err("TCP is not supported by this version; use unix:///PATH".to_owned()),
        _ => Err("must be like unix:///run/docker.sock".to_owned()),
    }
}

fn check_pool(text: &str) -> Result<Ipv4Net, String> {
    let net: Ipv4Net = text.parse().map_err(|_| "is not an IPv4 network like 10.32.0.0/12".to_owned())?;
    match net.trunc() == net && (4..=28).contains(&net.prefix_len()) {
        true => Ok(net),
        false => Err("must be a network address with a prefix length of 4 to 28".to_owned()),
    }
}

fn check_pool6(text: &str) -> Result<Ipv6Net, String> {
    let net: Ipv6Net = text.parse().map_err(|_| "is not an IPv6 network like fd53:1::/96".to_owned())?;
    match net.trunc() == net && (8..=96).contains(&net.prefix_len()) {
        true => Ok(net),
        false => Err("must be a network address with a prefix length of 8 to 96".to_owned()),
    }
}

fn block_size(pool: Ipv4Net, chosen: Option<u8>) -> Result<u8, ConfigError> {
    let size = chosen.unwrap_or_else(|| 24.max(pool.prefix_len()));
    parse("block-size", &size.to_string(), |_| match (pool.prefix_len()..=30).contains(&size) {
        true => Ok(size),
        false => Err(format!("must be a prefix length from that of the pool ({}) to 30", pool.prefix_len())),
    })
}

fn block(pool: Ipv4Net, size: u8, chosen: Option<&str>, alone: bool) -> Result<Option<Ipv4Net>, ConfigError> {
    let Some(text) = chosen else {
        return Ok(alone.then(|| Ipv4Net::new_assert(pool.network(), size)));
    };
    parse("block", text, |text| match text.parse::<Ipv4Net>() {
        Ok(net) if !pool.contains(&net) || net.trunc() != net => {
            Err(format!("must be a network within the pool {pool}"))
        }
        // Two that overlap could not be told by their keys.
        Ok(net) if !alone && net.prefix_len() != size => {
            Err(format!("must be a /{size}, as --block-size says; with a registry all blocks are alike"))
        }
        Ok(net) => Ok(Some(net)),
        Err(_) => Err(format!("must be a network within the pool {pool}")),
    })
}

fn check_domain(text: &str) -> Result<Name, String> {
    Name::parse(text.trim_end_matches('.')).map_err(|error| error.to_string())
}

fn dns_style(text: &str) -> Result<bool, String> {
    one_of(text, [("selvedge", false), ("mesos", true)])
}

fn dns_listen(text: &str) -> Result<SocketAddrV4, String> {
    let address =
        text.parse::<SocketAddr>().or_else(|_| text.parse::<Ipv4Addr>().map(|ip| SocketAddr::from((ip, 53))));
    match address {
        Ok(SocketAddr::V4(v4)) if !v4.ip().is_unspecified() && !v4.ip().is_loopback() => Ok(v4),
        _ => Err("must be an IPv4 address and port like 169.254.1.1:53, not a loopback one".to_owned()),
    }
}

fn check_mtu(text: &str) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|mtu| (576..=65_535).contains(mtu))
        .ok_or_else(|| "must be 576 to 65535".to_owned())
}

fn health_from(text: &str) -> Result<Address, String> {
    match text.split_once('=') {
        Some(("mesos", url)) => Address::parse(url),
        _ => Err("must be like mesos=http://10.0.0.5:5051".to_owned()),
    }
}

fn log_format(text: &str) -> Result<bool, String> {
    one_of(text, [("text", false), ("json", true)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(options: Options) -> Result<Config, String> {
        Config::new(options).map_err(|error| error.to_string())
    }

    #[test]
    fn all_follow_the_runtime_directory() {
        let config = config(Options { runtime_dir: Some("/run/two".into()), ..Options::default() }).unwrap();
        assert_eq!(config.listen, [PathBuf::from("/run/two/docker.sock")]);
        assert_eq!(config.block.unwrap().to_string(), "10.32.0.0/24");
    }

    #[test]
    fn the_flag_wins_over_the_file_and_unknown_keys_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("selvedge.toml");
        std::fs::write(&path, "pool = \"10.64.0.0/16\"\ndomain = \"a.b\"\nblock-size = 26\n").unwrap();
        let options =
            Options { config: Some(path.clone()), domain: Some("c.d".into()), ..Options::default() };
        let config = Config::new(options.clone()).unwrap();
        assert_eq!(
            (config.pool.to_string(), config.domain.to_string()),
            ("10.64.0.0/16".into(), "c.d".into())
        );
        assert_eq!(config.block.unwrap().to_string(), "10.64.0.0/26");
        std::fs::write(&path, "pool = \"10.64.0.0/16\"\npol = 1\n").unwrap();
        let error = Config::new(options).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("pol") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let pool = |text: &str| config(Options { pool: Some(text.into()), ..Options::default() });
        for text in ["10.32.0.1/12", "10.0.0.0/30", "x", "::/64"] {
            assert!(pool(text).unwrap_err().starts_with("--pool"), "{text}");
        }
        assert!(
            config(Options { listen: vec!["tcp://0.0.0.0:2375".into()], ..Options::default() })
                .unwrap_err()
                .contains("TCP")
        );
        assert!(
            config(Options { engine_wait: Some("30".into()), ..Options::default() })
                .unwrap_err()
                .contains("30s")
        );
        assert!(config(Options { block_size: Some(8), ..Options::default() }).is_err());
    }
}
