//! Packets must not lie about their source: an address of the pool is valid as a source only on the interface to which
//! the kernel routes that address, and frames for our VXLAN device must come from peers.
//!
//! A container has a raw socket by default, and Docker's own interfaces besides its wire, which no reverse path filter
//! checks. So this check comes before any other: one nftables table in `prerouting`, whatever the policy. Must never
//! judge packets whose source is outside the pool, nor another network's VXLAN.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use serde_json::Value;
use tokio::sync::Mutex;

use crate::error::{Error, Failure};
use crate::fabric::Fabric;
use crate::netlink::Netlink;
use crate::policy::rules::{FAMILIES, family_of, mark};
use crate::settings::Settings;
use crate::{firewall, generation, nft, pool6, query};

/// An IPv4 and an IPv6 address outside the pool: the route to them is the default route (RFC 5737, 3849).
const ELSEWHERE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// The hosts, besides wires, that packets with a source in the pool may come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Peers {
    /// Their blocks, and single addresses of theirs.
    blocks: BTreeSet<IpNet>,
    /// Their addresses on the network between the hosts.
    underlays: BTreeSet<IpAddr>,
    /// UDP port and VNI of the VXLAN device.
    vxlan: Option<(u16, u32)>,
}

/// The rules, and what is known of the kernel's copy.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    table: String,
    group: u32,
    pools: Vec<IpNet>,
    pool6: Option<ipnet::Ipv6Net>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// None until they are known: rules from an earlier worker are better than cutting peers off.
    peers: Option<Peers>,
    /// The text that the kernel has, and the generation at which that was seen.
    written: Option<(String, u32)>,
}

impl Sources {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            table: format!("inet selvedge_src_{:08x}", settings.group),
            group: settings.group,
            pools: firewall::pools(settings),
            pool6: settings.pool6,
            state: Arc::default(),
        }
    }

    /// Sets the peers; none on a single host.
    pub(crate) async fn set_peers(&self, fabric: Option<&Fabric>) {
        let peers = fabric.map_or_else(Peers::default, |fabric| {
            let blocks = fabric.peers.iter().flat_map(|peer| &peer.destinations).flat_map(|block| {
                let six = self.pool6.map(|pool6| pool6::block6(pool6, *block).into());
                [IpNet::from(*block)].into_iter().chain(six)
            });
            Peers {
                blocks: IpNet::aggregate(&blocks.collect()).into_iter().collect(),
                underlays: fabric.peers.iter().map(|peer| peer.underlay).collect(),
                vxlan: Some((fabric.vxlan_port, fabric.vxlan_id)),
            }
        });
        self.state.lock().await.peers = Some(peers);
    }

    /// Repairs the rules after outside changes or a change of peers; returns the number of rules written.
    ///
    /// # Errors
    /// nft or the kernel refuses it.
    pub(crate) async fn ensure(&self, netlink: &Netlink) -> Result<u64, Error> {
        let mut state = self.state.lock().await;
        let Some(peers) = &state.peers else { return Ok(0) };
        let uplinks = uplinks(netlink).await.map_err(Failure::of_host)?;
        let text = self.text(peers, &uplinks);
        let (table, known) = (self.table.clone(), state.written.clone());
        let (written, generation, text) = nft::blocking(move || {
            let before = generation::now()?;
            if known == Some((text.clone(), before)) || is_there(&table, &text)? {
                return Ok((0, before, text));
            }
            let after = nft::transact(&text, Some(before))?;
            // After an outside change at the same moment, the next check reads the rules back.
            Ok((text.matches("comment").count() as u64, after.unwrap_or(before), text))
        })
        .await?;
        state.written = Some((text, generation));
        Ok(written)
    }

    /// The whole table, as nft reads it: one transaction replaces it entirely. Each rule has the text's hash as a
    /// comment.
    fn text(&self, peers: &Peers, uplinks: &BTreeSet<String>) -> String {
        let mut rules = format!("{}{}", self.sets(peers), self.chains(peers, uplinks));
        let hash = mark(&rules);
        rules = rules.replace("MARK", &format!("comment \"{hash}\""));
        let table = &self.table;
        format!("add table {table}\ndelete table {table}\ntable {table} {{\n{rules}}}\n")
    }

    fn sets(&self, peers: &Peers) -> String {
        let mut sets = String::new();
        for (end, _, kind) in FAMILIES {
            let blocks: Vec<String> = peers
                .blocks
                .iter()
                .filter(|block| family_of(block.addr()) == end)
                .map(ToString::to_string)
                .collect();
            let underlays: Vec<String> = peers
                .underlays
                .iter()
                .filter(|address| family_of(**address) == end)
                .map(ToString::to_string)
                .collect();
            for (name, flags, elements) in
                [("blocks", "flags interval; ", blocks), ("underlays", "", underlays)]
            {
                let elements = match elements.as_slice() {
                    [] => String::new(),
                    some => format!("elements = {{ {} }} ", some.join(", ")),
                };
                // Writing to a string does not fail.
                let _ = writeln!(sets, " set {name}{end} {{ type {kind}; {flags}{elements}}}");
            }
        }
        sets
    }

    fn chains(&self, peers: &Peers, uplinks: &BTreeSet<String>) -> String {
        let mut rules = vec!["iif lo accept".to_owned()];
        // On a wire the kernel's strict reverse path filter checks the same, but not for IPv6.
        rules.push(format!("iifgroup {} meta nfproto ipv4 accept", self.group));
        for pool in &self.pools {
            let (ip, end) = if pool.addr().is_ipv4() { ("ip", "4") } else { ("ip6", "6") };
            rules.push(format!("{ip} saddr {pool} fib saddr . iif oif missing drop"));
            // `fib` also accepts the default route, which proves nothing for an address of the pool.
            for uplink in uplinks {
                rules.push(format!("{ip} saddr {pool} iifname \"{uplink}\" {ip} saddr != @blocks{end} drop"));
            }
        }
        let mut chains = chain("prerouting", Some("prerouting"), &rules);
        if let Some((port, id)) = peers.vxlan {
            // The VNI is in the first 24 bits after the UDP header and four bytes of flags (RFC 7348, 5).
            let ours = format!("udp dport {port} @th,96,24 {id} fib daddr type local");
            chains = chain("tunnel", None, &from_peers())
                + &chain(
                    "prerouting",
                    Some("prerouting"),
                    &[&[format!("{ours} goto tunnel")], &rules[..]].concat(),
                );
        }
        chains
    }
}

/// The rules of the chain `tunnel`: only peers may send frames.
fn from_peers() -> Vec<String> {
    let rule = |(end, ip, _)| format!("{ip} saddr @underlays{end} fib saddr . iif oif exists accept");
    FAMILIES.map(rule).into_iter().chain(["drop".to_owned()]).collect()
}

fn chain(name: &str, hook: Option<&str>, rules: &[String]) -> String {
    // Before connection tracking: a packet dropped here leaves no trace.
    let hook = hook.map(|hook| format!("  type filter hook {hook} priority raw; policy accept;\n"));
    let rules: String = rules.iter().map(|rule| format!("  {rule} MARK\n")).collect();
    format!(" chain {name} {{\n{}{rules} }}\n", hook.unwrap_or_default())
}

/// The interfaces of the default routes.
async fn uplinks(netlink: &Netlink) -> Result<BTreeSet<String>, Failure> {
    let hops = query::hops(netlink, &ELSEWHERE).await?;
    let mut names = BTreeSet::new();
    for hop in hops.into_iter().flatten().filter(|hop| !hop.local) {
        names.extend(query::link_by_index(netlink, hop.interface).await?.map(|link| link.name));
    }
    Ok(names)
}

/// Whether the kernel has the table that this text makes: as many rules, each with its comment, and sets of the same
/// size.
fn is_there(table: &str, text: &str) -> Result<bool, Error> {
    let name = table.trim_start_matches("inet ");
    let Some(listed) = nft::list::<Value>(&["list", "table", "inet", name])? else { return Ok(false) };
    let entries = || listed["nftables"].as_array().into_iter().flatten();
    let comments: Vec<&str> = entries()
        .filter_map(|entry| entry.get("rule"))
        .map(|rule| rule["comment"].as_str().unwrap_or(""))
        .collect();
    let elements: usize = entries()
        .filter_map(|entry| entry.get("set"))
        .map(|set| set["elem"].as_array().map_or(0, Vec::len))
        .sum();
    let is_right = |comment: &&str| text.contains(&format!("comment \"{comment}\""));
    Ok(comments.len() == text.matches(" comment \"").count()
        && comments.iter().all(is_right)
        && elements == wanted_elements(text))
}

fn wanted_elements(text: &str) -> usize {
    let lists = text.lines().filter_map(|line| line.split_once("elements = {"));
    lists.map(|(_, list)| list.split(',').count()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> Sources {
        let settings = Settings {
            pool: "10.32.0.0/12".parse().unwrap(),
            gateway: Ipv4Addr::new(169, 254, 1, 1),
            dns: Ipv4Addr::new(169, 254, 1, 1),
            group: 77,
            mtu: None,
            encapsulated: false,
            underlay: None,
            pool6: Some("fd53:1::/96".parse().unwrap()),
        };
        Sources::new(&settings)
    }

    #[test]
    fn a_single_host_takes_the_pools_addresses_from_wires_alone() {
        let text = sources().text(&Peers::default(), &BTreeSet::from(["eth0".to_owned()]));
        for rule in [
            "iifgroup 77 meta nfproto ipv4 accept",
            "ip saddr 10.32.0.0/12 fib saddr . iif oif missing drop",
            "ip saddr 10.32.0.0/12 iifname \"eth0\" ip saddr != @blocks4 drop",
            "ip6 saddr fd53:1::a20:0/108 fib saddr . iif oif missing drop",
        ] {
            assert!(text.contains(rule), "{rule} in {text}");
        }
        assert!(!text.contains("tunnel") && !text.contains("MARK") && wanted_elements(&text) == 0);
    }

    #[test]
    fn frames_for_our_network_come_from_peers() {
        let peers = Peers {
            blocks: ["10.33.0.0/24", "10.34.0.0/24"].map(|block| block.parse().unwrap()).into(),
            underlays: ["192.0.2.7", "2001:db8::7"].map(|address| address.parse().unwrap()).into(),
            vxlan: Some((4789, 5843)),
        };
        let text = sources().text(&peers, &BTreeSet::new());
        assert!(text.contains("udp dport 4789 @th,96,24 5843 fib daddr type local goto tunnel"), "{text}");
        assert!(
            text.contains("elements = { 10.33.0.0/24, 10.34.0.0/24 }") && wanted_elements(&text) == 4,
            "{text}"
        );
        let other = sources().text(&Peers::default(), &BTreeSet::new());
        let comment = |text: &str| text.split("comment ").nth(1).map(|rest| rest[..10].to_owned());
        assert_ne!(comment(&text), comment(&other), "what differs has another mark");
    }
}
