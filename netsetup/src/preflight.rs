//! What a machine lacks to have wires: for `selvedge check`. Changes nothing of the host's.

use std::io;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::{Settings, dump, netns};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Works, but somebody should know.
    Warn,
    /// Selvedge cannot run so.
    Fail,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// One sentence: what is found, and what to do about it.
    pub text: String,
}

fn finding(severity: Severity, text: impl Into<String>) -> Finding {
    Finding { severity, text: text.into() }
}

/// Looks at this machine.
#[must_use]
pub fn preflight(settings: &Settings) -> Vec<Finding> {
    let mut findings = vec![rights(), veth(), forwarding(), iptables()];
    findings.extend(clashes(settings));
    findings
}

// CAP_NET_ADMIN (12), CAP_SYS_ADMIN (21) of linux/capability.h.
fn rights() -> Finding {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    let missing: Vec<&str> = [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN")]
        .into_iter()
        .filter(|(bit, _)| bits & (1 << bit) == 0)
        .map(|(_, name)| name)
        .collect();
    match missing.is_empty() {
        true => finding(Severity::Ok, "this process may change the network"),
        false => finding(Severity::Fail, format!("{} missing; run as root", missing.join(" and "))),
    }
}

fn veth() -> Finding {
    let tried = netns::within_new(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection()?;
            tokio::spawn(connection);
            let pair = rtnetlink::LinkVeth::new("svcheck0", "svcheck1").build();
            handle.link().add(pair).execute().await.map_err(io::Error::other)
        })
    });
    match tried {
        Ok(()) => finding(Severity::Ok, "veth pairs and network namespaces can be made"),
        Err(error) => finding(
            Severity::Fail,
            format!("no veth pair can be made ({error}); the kernel needs CONFIG_VETH and CONFIG_NET_NS"),
        ),
    }
}

fn forwarding() -> Finding {
    match std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").map(|text| text.trim() == "1") {
        Ok(true) => finding(Severity::Ok, "IPv4 forwarding is on"),
        Ok(false) => finding(Severity::Ok, "IPv4 forwarding is off; selvedge run turns it on"),
        Err(error) => {
            finding(Severity::Fail, format!("/proc/sys/net/ipv4/ip_forward cannot be read: {error}"))
        }
    }
}

fn iptables() -> Finding {
    let there = ["/usr/sbin/iptables", "/sbin/iptables", "/usr/bin/iptables", "/usr/local/sbin/iptables"];
    match there.iter().any(|path| std::path::Path::new(path).exists()) {
        true => finding(Severity::Ok, "iptables is there, for Docker's chain DOCKER-USER"),
        false => finding(
            Severity::Warn,
            "no iptables: if something else drops forwarded packets, it must let those of interfaces sv* pass",
        ),
    }
}

/// Routes and addresses of the host within the pool: packets would go the wrong way.
fn clashes(settings: &Settings) -> Vec<Finding> {
    match routes_within(settings.pool) {
        Ok(clashes) if clashes.is_empty() => {
            vec![finding(
                Severity::Ok,
                format!("nothing else of this host lies in the pool {}", settings.pool),
            )]
        }
        Ok(clashes) => clashes
            .into_iter()
            .map(|route| {
                let pool = settings.pool;
                finding(
                    Severity::Fail,
                    format!("the host's route to {route} overlaps the pool {pool}; choose another --pool"),
                )
            })
            .collect(),
        Err(error) => vec![finding(Severity::Fail, format!("the host's routes cannot be read: {error}"))],
    }
}

fn routes_within(pool: Ipv4Net) -> io::Result<Vec<Ipv4Net>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        let routes = dump::routes(&handle).await.map_err(io::Error::other)?;
        let ours = rtnetlink::packet_route::route::RouteProtocol::Other(crate::ROUTE_PROTOCOL);
        Ok(routes
            .iter()
            .filter(|route| route.header.protocol != ours && route.header.destination_prefix_length > 0)
            .filter_map(|route| {
                let to: Ipv4Addr = dump::way(route).1?;
                Ipv4Net::new(to, route.header.destination_prefix_length).ok()
            })
            .filter(|net| pool.contains(net) || net.contains(&pool))
            .collect())
    })
}
