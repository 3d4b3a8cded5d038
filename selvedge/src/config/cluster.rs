//! The settings that concern other hosts: who carries the names, and how packets get there.

use std::net::IpAddr;
use std::time::Duration;

use selvedge_cluster::handle::Kind;
use selvedge_cluster::key::is_host_name;
use selvedge_cluster::store::Servers;
use selvedge_cluster::store::memory::Memory;
use selvedge_netsetup::Datapath;

use super::source::Source;
use super::value::{ConfigError, duration, parse, pem};
use crate::cli::Options;

/// What concerns other hosts.
#[derive(Debug, Clone)]
pub(crate) struct ClusterConfig {
    /// Where the registry is.
    pub(crate) registry: Kind,
    /// The registry without credentials, for people.
    pub(crate) registry_text: String,
    /// This host's name.
    pub(crate) host_name: String,
    /// This host's address, if it was told.
    pub(crate) host_address: Option<IpAddr>,
    /// How containers elsewhere are reached.
    pub(crate) datapath: Datapath,
    /// After which time dead hosts' blocks are free.
    pub(crate) free_after: Duration,
    /// Where hosts tell each other that they live.
    pub(crate) peer_port: u16,
    /// VXLAN's UDP port.
    pub(crate) vxlan_port: u16,
    /// VXLAN's network identifier.
    pub(crate) vxlan_id: u32,
}

impl ClusterConfig {
    pub(super) fn new(options: &Options) -> Result<Self, ConfigError> {
        let url = options.registry.as_deref().unwrap_or("local");
        let session = options.host_timeout.as_deref().unwrap_or("5s");
        let servers = Servers {
            session: parse("host-timeout", session, host_timeout)?,
            ca: pem("registry-ca", options.registry_ca.as_deref())?,
            identity: identity(options)?,
            ..Servers::default()
        };
        let host_name = options.host_name.clone().unwrap_or_else(own_name);
        Ok(Self {
            registry_text: without_credentials(url),
            registry: registry(url, servers)?,
            host_name: parse("host-name", &host_name, host)?,
            host_address: options
                .host_address
                .as_deref()
                .map(|text| parse("host-address", text, address))
                .transpose()?,
            datapath: parse("datapath", options.datapath.as_deref().unwrap_or("auto"), datapath)?,
            free_after: parse("free-after", options.free_after.as_deref().unwrap_or("24h"), duration)?,
            peer_port: options.peer_port.unwrap_or(6785),
            vxlan_port: options.vxlan_port.unwrap_or(4789),
            vxlan_id: parse("vxlan-id", &options.vxlan_id.unwrap_or(5843).to_string(), vxlan_id)?,
        })
    }

    /// Whether this host is alone.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self.registry, Kind::Local(_))
    }
}

fn own_name() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default()
}

fn registry(url: &str, servers: Servers) -> Result<Kind, ConfigError> {
    if url == "local" {
        return Ok(Kind::Local(Memory::default()));
    }
    // The error must not show a password.
    let told = without_credentials(url);
    let read = |text: &str| {
        let (scheme, rest) = text.split_once("://").ok_or_else(form)?;
        let port = match scheme {
            "zookeeper" => 2181,
            "etcd" => 2379,
            _ => return Err(form()),
        };
        let (place, folder) =
            rest.split_once('/').map_or((rest, "selvedge"), |(place, folder)| (place, folder));
        let (user, hosts) = place.rsplit_once('@').map_or((None, place), |(user, hosts)| (Some(user), hosts));
        let servers = Servers {
            endpoints: hosts.split(',').map(|host| endpoint(host, port)).collect::<Result<_, _>>()?,
            prefix: prefix(folder)?,
            user: user.map(credentials).transpose()?,
            ..servers.clone()
        };
        Kind::of(scheme, servers)
            .ok_or_else(|| format!("this build has no {scheme}; build it with --features {scheme}"))
    };
    read(url).map_err(|reason| ConfigError::Value { by: Source::Flag, name: "registry", value: told, reason })
}

fn form() -> String {
    "must be local, zookeeper://HOST:PORT,../FOLDER or etcd://HOST:PORT,../FOLDER".to_owned()
}

fn without_credentials(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://{rest}"),
        _ => url.to_owned(),
    }
}

fn endpoint(host: &str, port: u16) -> Result<String, String> {
    // The colons of an IPv6 address are not a port's.
    let has_port = host.rsplit_once(':').is_some_and(|(before, port)| {
        port.parse::<u16>().is_ok() && (!before.contains(':') || before.ends_with(']'))
    });
    let fine = !host.is_empty() && !host.contains([' ', '/']);
    match (fine, has_port) {
        (false, _) => Err(form()),
        (true, true) => Ok(host.to_owned()),
        (true, false) => Ok(format!("{host}:{port}")),
    }
}

fn prefix(folder: &str) -> Result<String, String> {
    let folder = folder.trim_end_matches('/');
    let part = |part: &str| is_host_name(part);
    match folder.split('/').all(part) {
        true => Ok(format!("/{folder}")),
        false => Err(format!("the folder {folder:?} must be like selvedge or infra/selvedge")),
    }
}

fn credentials(text: &str) -> Result<(String, String), String> {
    let (user, password) = text.split_once(':').ok_or("credentials must be USER:PASSWORD")?;
    Ok((user.to_owned(), password.to_owned()))
}

fn identity(options: &Options) -> Result<Option<(String, String)>, ConfigError> {
    let certificate = pem("registry-cert", options.registry_cert.as_deref())?;
    match (certificate, pem("registry-key", options.registry_key.as_deref())?) {
        (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
        (None, None) => Ok(None),
        _ => parse("registry-cert", "", |_| Err("and --registry-key go together".to_owned())),
    }
}

fn host_timeout(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|time| match (2..=60).contains(&time.as_secs()) {
        true => Ok(time),
        false => Err("must be 2s to 60s".to_owned()),
    })
}

fn host(text: &str) -> Result<String, String> {
    match is_host_name(text) {
        true => Ok(text.to_owned()),
        false => Err("must consist of letters, digits, '-', '_' and '.'".to_owned()),
    }
}

fn address(text: &str) -> Result<IpAddr, String> {
    match text.parse::<IpAddr>() {
        Ok(address) if !address.is_unspecified() && !address.is_loopback() && !address.is_multicast() => {
            Ok(address)
        }
        _ => Err("must be an address at which other hosts reach this one".to_owned()),
    }
}

fn datapath(text: &str) -> Result<Datapath, String> {
    match text {
        "auto" => Ok(Datapath::Auto),
        "direct" => Ok(Datapath::Direct),
        "vxlan" => Ok(Datapath::Vxlan),
        _ => Err("must be auto, direct or vxlan".to_owned()),
    }
}

fn vxlan_id(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|id| (1..1 << 24).contains(id)).ok_or_else(|| "must be 1 to 16777215".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str) -> Result<ClusterConfig, String> {
        let options =
            Options { registry: Some(url.into()), host_name: Some("h".into()), ..Options::default() };
        ClusterConfig::new(&options).map_err(|error| error.to_string())
    }

    #[test]
    #[cfg(not(feature = "etcd"))]
    fn a_registry_that_is_not_built_in_is_told_of() {
        let told = of("etcd://a").unwrap_err();
        assert!(told.contains("this build has no etcd; build it with --features etcd"), "{told}");
    }

    #[test]
    #[cfg(all(feature = "etcd", feature = "zookeeper"))]
    fn a_registry_is_read_with_what_it_leaves_out() {
        let servers = |url: &str| of(url).unwrap().registry.servers().unwrap().clone();
        let read = servers("zookeeper://a,b:99,[fd00::1]:7/x/y");
        assert_eq!(read.endpoints, ["a:2181", "b:99", "[fd00::1]:7"]);
        assert_eq!((read.prefix.as_str(), read.user), ("/x/y", None));
        let read = servers("etcd://u:p:w@[fd00::1]");
        assert_eq!(read.endpoints, ["[fd00::1]:2379"]);
        assert_eq!((read.prefix.as_str(), read.user), ("/selvedge", Some(("u".into(), "p:w".into()))));
    }

    #[test]
    fn what_is_no_registry_is_told_without_the_password() {
        for url in [
            "consul://a",
            "zookeeper://",
            "etcd://u:secret@",
            "etcd://a/x/../y",
            "zookeeper://secret@a",
            "a:2181",
        ] {
            let error = of(url).unwrap_err();
            assert!(error.starts_with("--registry") && !error.contains("secret"), "{error}");
        }
    }
}
