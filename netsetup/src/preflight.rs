//! Reports what this host lacks before the first container suffers from it.
//!
//! Must never make a lasting change: trials run in a namespace that ends with the trial.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use rtnetlink::LinkVeth;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use tokio::runtime::Builder;

use crate::error::Failure;
use crate::identity::{self, SIGN_PROTOCOL};
use crate::netlink::{Change, Netlink};
use crate::query::{self, Address, Route};
use crate::settings::Settings;
use crate::{firewall, sysctl};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know.
    Note,
    /// Something will work less well than it could, or less safely.
    Warning,
    /// Containers would get no network.
    Fatal,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is and what to do about it, in one sentence.
    pub message: String,
}

impl Finding {
    fn new(severity: Severity, message: impl Into<String>) -> Self {
        Self { severity, message: message.into() }
    }
}

/// Inspects the host in the calling thread's network namespace. Takes some 50 ms; blocks.
pub fn preflight(settings: &Settings) -> Vec<Finding> {
    let mut findings = rights();
    findings.extend(kernel_settings());
    findings.extend(veth());
    findings.extend(firewalls(settings));
    findings.extend(clashes(settings));
    findings
}

/// Bit numbers of capabilities (linux/capability.h), with what we need them for.
const CAPABILITIES: [(u32, &str, &str); 2] = [
    (12, "CAP_NET_ADMIN", "to make links and routes"),
    (21, "CAP_SYS_ADMIN", "to enter containers' namespaces"),
];

fn rights() -> Vec<Finding> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    let lacking = CAPABILITIES.iter().filter(|(bit, ..)| mask & (1 << bit) == 0);
    lacking
        .map(|(_, name, why)| Finding::new(Severity::Fatal, format!("{name} is needed {why}: run as root")))
        .collect()
}

fn kernel_settings() -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Err(error) = OpenOptions::new().write(true).open("/proc/sys/net/ipv4/ip_forward") {
        let text =
            format!("/proc/sys/net cannot be written ({error}): in a container, mount /proc/sys read-write");
        findings.push(Finding::new(Severity::Fatal, text));
    }
    // The kernel takes the larger of this and a link's own value, and 2 accepts any source that is routed anywhere.
    if sysctl::read("ipv4/conf/all/rp_filter").as_deref() == Some("2") {
        let text = "net.ipv4.conf.all.rp_filter is 2 (loose), so a container can send with another one's address: \
                    set it to 1 or 0 with sysctl -w, and in /etc/sysctl.d";
        findings.push(Finding::new(Severity::Warning, text));
    }
    findings
}

/// Whether the kernel can make veth pairs, tried in a namespace of its own.
fn veth() -> Option<Finding> {
    let outcome = in_a_thread(true, |netlink| async move {
        let pair = LinkVeth::new("try0", "try1").build();
        netlink.apply(vec![Change::create("make a veth pair", RouteNetlinkMessage::NewLink(pair))]).await
    });
    match outcome {
        Ok(()) => None,
        // Already reported, as missing capabilities.
        Err(Failure { errno: Errno::EPERM, .. }) => None,
        Err(failure) => {
            let text = format!("{failure}: the kernel needs veth and network namespaces (modprobe veth)");
            Some(Finding::new(Severity::Fatal, text))
        }
    }
}

fn firewalls(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    match firewall::forward::closed(settings.pool.into()) {
        Some(closed) => {
            findings.extend(closed.into_iter().map(|text| Finding::new(Severity::Warning, text)));
        }
        None => {
            let text = "neither iptables nor nft can be read: fine if nothing here filters forwarded packets; otherwise \
                        install iptables, with which Docker's firewall is opened for containers";
            findings.push(Finding::new(Severity::Note, text));
        }
    }
    findings.extend(
        firewall::firewalld::lacking(&firewall::pools(settings))
            .map(|text| Finding::new(Severity::Warning, text)),
    );
    findings
}

/// The host's routes and addresses that may conflict.
struct Occupied {
    routes: Vec<Route>,
    addresses: Vec<Address>,
    names: HashMap<u32, String>,
}

impl Occupied {
    async fn look(netlink: Netlink) -> Result<Self, Failure> {
        let routes = query::routes(&netlink, AddressFamily::Inet, None).await?;
        let addresses = query::addresses(&netlink, AddressFamily::Inet, None).await?;
        let links = query::links(&netlink).await?;
        let names = links.into_iter().map(|link| (link.index, link.name)).collect();
        Ok(Self { routes, addresses, names })
    }

    fn name(&self, index: Option<u32>) -> &str {
        index.and_then(|index| self.names.get(&index)).map_or("no device", String::as_str)
    }
}

fn clashes(settings: &Settings) -> Vec<Finding> {
    let occupied = match in_a_thread(false, Occupied::look) {
        Ok(occupied) => occupied,
        Err(failure) => return vec![Finding::new(Severity::Fatal, failure.to_string())],
    };
    let routes = occupied.routes.iter().filter_map(|route| route_clash(&occupied, route, settings.pool));
    // The host's own address in the pool, from an earlier run.
    let ours = identity::host_label(settings.group);
    let others = occupied.addresses.iter().filter(|found| found.label.as_ref() != Some(&ours));
    let addresses = others.filter_map(|found| {
        let IpAddr::V4(address) = found.address else { return None };
        address_clash(occupied.name(Some(found.interface)), address, settings)
    });
    routes.chain(addresses).collect()
}

fn route_clash(occupied: &Occupied, route: &Route, pool: Ipv4Net) -> Option<Finding> {
    let IpNet::V4(network) = route.destination else { return None };
    // Our own routes, also to peers, lie in the pool; a default route contains every pool.
    if route.protocol == SIGN_PROTOCOL || network.prefix_len() == 0 {
        return None;
    }
    let over = occupied.name(route.interface);
    if pool.contains(&network) {
        let text =
            format!("the pool {pool} holds the host's route {network} over {over}: choose another --pool");
        return Some(Finding::new(Severity::Fatal, text));
    }
    let inside = network.contains(&pool);
    let text = format!(
        "the pool {pool} is a part of {network}, which the host reaches over {over}: machines there with an \
         address of the pool cannot be reached; choose another --pool if there are any"
    );
    inside.then(|| Finding::new(Severity::Warning, text))
}

fn address_clash(name: &str, address: Ipv4Addr, settings: &Settings) -> Option<Finding> {
    let Settings { pool, gateway, dns, .. } = settings;
    if pool.contains(&address) {
        let text =
            format!("the host's address {address} on {name} is in the pool {pool}: choose another --pool");
        return Some(Finding::new(Severity::Fatal, text));
    }
    let ours = address == *gateway || address == *dns;
    let text = format!(
        "{address}, which containers use to reach this host, is also on {name}: what others reach by it there is \
         hidden from containers"
    );
    (ours && name != "lo").then(|| Finding::new(Severity::Warning, text))
}

/// Runs a job with a netlink socket in a separate thread, in a new network namespace if asked.
fn in_a_thread<T, F>(apart: bool, job: impl FnOnce(Netlink) -> F + Send) -> Result<T, Failure>
where
    T: Send,
    F: Future<Output = Result<T, Failure>>,
{
    let work = || {
        if apart {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|errno| Failure { step: "make a network namespace", errno })?;
        }
        let told = |error| Failure::new("open a netlink socket", &error);
        let runtime = Builder::new_current_thread().enable_all().build().map_err(told)?;
        let netlink = Netlink::open(runtime.handle(), Arc::default()).map_err(told)?;
        runtime.block_on(job(netlink))
    };
    std::thread::scope(|scope| {
        let crashed = Failure { step: "look at the network", errno: Errno::ECANCELED };
        scope.spawn(work).join().unwrap_or(Err(crashed))
    })
}
