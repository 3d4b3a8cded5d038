//! What Selvedge needs of its host, as one list: `check` prints it, a worker logs what is wrong, `status` shows it. It must
//! never change anything that lasts, and never wait longer than [`HUNG`] for anything.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use selvedge_datapath::pool_claim;
use selvedge_engine::client::Engine;
use selvedge_netsetup::policy::nft_version;
use selvedge_netsetup::{Severity, preflight};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::Config;
use crate::port::{self, Holder};
use crate::pulse;
use crate::settings::{self, group};

/// How long a registry may take. One that needs longer is as good as none.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long an engine may take. One under load, or podman at its first question, needs several seconds.
const HUNG: Duration = Duration::from_secs(10);

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Mark {
    /// All is well.
    #[serde(rename = "ok")]
    Ok,
    /// It may hurt later.
    #[serde(rename = "warn")]
    Warn,
    /// Selvedge cannot do its work.
    #[serde(rename = "FAIL")]
    Fail,
}

impl Mark {
    fn text(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Finding {
    /// How bad it is.
    pub(crate) mark: Mark,
    /// What it is, and what to do about it, in one line.
    pub(crate) text: String,
}

impl Finding {
    fn ok(text: impl Into<String>) -> Self {
        Self { mark: Mark::Ok, text: text.into() }
    }

    fn warn(text: impl Into<String>) -> Self {
        Self { mark: Mark::Warn, text: text.into() }
    }

    fn fail(text: impl Into<String>) -> Self {
        Self { mark: Mark::Fail, text: text.into() }
    }

    /// As `selvedge check` prints it, with its line's end.
    pub(crate) fn line(&self) -> String {
        format!("{:<5} {}\n", self.mark.text(), self.text)
    }

    /// Whether Selvedge cannot do its work.
    pub(crate) fn is_fatal(&self) -> bool {
        self.mark == Mark::Fail
    }

    /// Whether there is anything to do about it.
    pub(crate) fn is_wrong(&self) -> bool {
        self.mark != Mark::Ok
    }
}

/// What `selvedge check` reports, each as it is found: a hung engine must not hide what was found before it.
pub(crate) fn all(config: &Config) -> impl Iterator<Item = Finding> {
    let lists: [fn(&Config) -> Vec<Finding>; 4] = [
        host,
        before_a_start,
        |config| registry(config).into_iter().collect(),
        |config| vec![engine(&config.engine)],
    ];
    lists.into_iter().flat_map(|list| list(config))
}

/// What holds for a Selvedge that is to start as for one that runs. Takes some 50 ms; blocks.
pub(crate) fn host(config: &Config) -> Vec<Finding> {
    let of = |finding: selvedge_netsetup::Finding| match finding.severity {
        Severity::Note => Finding::ok(finding.message),
        Severity::Warning => Finding::warn(finding.message),
        Severity::Fatal => Finding::fail(finding.message),
    };
    let mut findings: Vec<Finding> =
        preflight(&settings::datapath(config).network()).into_iter().map(of).collect();
    findings.push(nft(config.policy.tenants));
    let others = pool_claim::others(config.pool, group(&config.runtime_dir));
    findings.extend(others.iter().map(|other| Finding::fail(other.told(config.pool))));
    findings.push(writable("the runtime directory", &config.runtime_dir));
    let wait = config.wait_path.parent().unwrap_or(Path::new("/"));
    findings.push(writable("the directory of the wait program", wait));
    findings
}

/// What only a Selvedge that does not run yet needs: places for its sockets.
fn before_a_start(config: &Config) -> Vec<Finding> {
    let mut findings: Vec<Finding> = config.listen.iter().map(|path| short_enough(path)).collect();
    if UnixStream::connect(Config::admin_socket(&config.runtime_dir)).is_ok() {
        findings.push(Finding::ok(format!("a Selvedge runs in {} already", config.runtime_dir.display())));
        return findings;
    }
    findings.extend(config.listen.iter().filter(|path| UnixStream::connect(path).is_ok()).map(|path| {
        Finding::fail(format!(
            "{} is in use: another process answers there; choose another --listen",
            path.display()
        ))
    }));
    let dns = SocketAddr::from(config.dns_listen);
    let mut ports = vec![("--dns-listen", port::udp(dns)), ("--dns-listen", port::tcp(dns))];
    if !config.cluster.is_local() {
        let host = config.cluster.host_address.unwrap_or([0, 0, 0, 0].into());
        ports.push(("--peer-port", port::tcp(SocketAddr::new(host, config.cluster.peer_port))));
    }
    let taken =
        |(flag, holder): (&str, Option<Holder>)| holder.map(|holder| Finding::fail(holder.told(flag)));
    findings.extend(ports.into_iter().filter_map(taken));
    findings
}

fn nft(is_needed: bool) -> Finding {
    match nft_version() {
        Some(version) => Finding::ok(version),
        None if is_needed => Finding::fail("nft is missing, which --policy tenant needs: install nftables"),
        None => Finding::warn(
            "nft is missing, so virtual addresses (label selvedge.vip) and --policy tenant cannot work: install nftables",
        ),
    }
}

/// Whether the engine answers.
fn engine(socket: &Path) -> Finding {
    let place = socket.display();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return Finding::fail("no runtime can be started") };
    let began = Instant::now();
    let asked = runtime
        .block_on(async { tokio::time::timeout(HUNG, Engine::new(socket).get::<Value>("/version")).await });
    let took = began.elapsed();
    match asked {
        Ok(Ok(_)) if took > pulse::PATIENCE => Finding::warn(format!(
            "{place}: the engine is slow, it took {} s to answer; look at the load of this host",
            took.as_secs()
        )),
        Ok(Ok(version)) => {
            let text = |key: &str| version.get(key).and_then(Value::as_str).unwrap_or("?");
            Finding::ok(format!(
                "the engine answers at {place}: {} (API {})",
                text("Version"),
                text("ApiVersion")
            ))
        }
        Ok(Err(error)) => {
            Finding::fail(format!("{place}: {error}; start dockerd, or name its socket by --engine"))
        }
        Err(_) => Finding::fail(format!(
            "{place}: the engine takes connections and does not answer within {HUNG:?}; look at its log, or restart it"
        )),
    }
}

/// Whether any server of the registry can be reached.
fn registry(config: &Config) -> Option<Finding> {
    let servers = config.cluster.registry.servers()?;
    let told = &config.cluster.registry_text;
    let (sender, answers) = std::sync::mpsc::channel();
    for endpoint in &servers.endpoints {
        let (endpoint, sender) = (endpoint.clone(), sender.clone());
        // Names are looked up by libc, which may take its time.
        std::thread::spawn(move || sender.send(reach(&endpoint)));
    }
    drop(sender);
    let end = Instant::now() + PATIENCE;
    let mut reasons = Vec::new();
    while let Ok(answer) = answers.recv_timeout(end.saturating_duration_since(Instant::now())) {
        match answer {
            Ok(place) => return Some(Finding::ok(format!("the registry is reached at {place}"))),
            Err(reason) => reasons.push(reason),
        }
    }
    let reasons =
        if reasons.is_empty() { format!("no answer within {PATIENCE:?}") } else { reasons.join(", ") };
    Some(Finding::fail(format!(
        "the registry {told} cannot be reached ({reasons}): start it, or mend --registry or the firewall between"
    )))
}

fn reach(endpoint: &str) -> Result<String, String> {
    let fail = |error: std::io::Error| format!("{endpoint}: {error}");
    let addresses: Vec<SocketAddr> = endpoint.to_socket_addrs().map_err(fail)?.collect();
    let mut last = format!("{endpoint}: has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(_) => return Ok(endpoint.to_owned()),
            Err(error) => last = fail(error),
        }
    }
    Err(last)
}

fn writable(what: &str, dir: &Path) -> Finding {
    let existing = dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    match nix::unistd::access(existing, nix::unistd::AccessFlags::W_OK) {
        Ok(()) => Finding::ok(format!("{what} {} can be written", dir.display())),
        Err(errno) => Finding::fail(format!("{what} {} cannot be written: {}", dir.display(), errno.desc())),
    }
}

// sockaddr_un (unix(7)) holds 108 bytes with the NUL at the end.
fn short_enough(path: &Path) -> Finding {
    let len = path.as_os_str().len();
    match len <= 107 {
        true => Finding::ok(format!("{} can be a socket's path", path.display())),
        false => Finding::fail(format!("{} has {len} bytes, a socket's path at most 107", path.display())),
    }
}
