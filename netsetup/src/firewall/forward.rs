//! Finds chains that drop forwarded packets by default and accept none of ours: left behind by an engine that has gone over to
//! nftables, or the administrator's own.
//!
//! Must never change them: whose they are is not known.

use ipnet::IpNet;
use serde_json::Value;

use super::docker::{CHAIN, IPTABLES, call};
use crate::nft;

/// What drops packets between containers, and what to do about it, one sentence each. `None` when neither iptables nor nft
/// can tell.
pub(crate) fn closed(pool: IpNet) -> Option<Vec<String>> {
    let pool = pool.trunc();
    let rules = call(IPTABLES, &["-S"]).ok().filter(|output| output.status.success());
    let rules = rules.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let has_iptables = rules.is_some();
    let chains = nft::list::<Value>(&["list", "chains"]).ok().flatten();
    if !has_iptables && chains.is_none() {
        return None;
    }
    let mut told: Vec<String> = rules.and_then(|rules| by_iptables(&rules, pool)).into_iter().collect();
    let chains = chains.as_ref().map(objects).unwrap_or_default();
    let closed = chains.iter().filter_map(|object| Chain::that_drops(object));
    // Those of the variant of iptables that writes them for nft: it has been asked itself.
    let closed = closed.filter(|chain| !(has_iptables && chain.is_of_iptables()));
    told.extend(closed.filter(|chain| !chain.accepts(pool)).map(|chain| chain.told(pool)));
    Some(told)
}

/// As `iptables -S` prints its table `filter`.
fn by_iptables(rules: &str, pool: IpNet) -> Option<String> {
    let has = |line: &str| rules.lines().any(|rule| rule == line);
    if !has("-P FORWARD DROP") || has(&format!("-A FORWARD -j {CHAIN}")) || has("-A FORWARD -j ACCEPT") {
        return None;
    }
    let own = format!("-A {CHAIN} ");
    let is_ours = |rule: &&str| rule.contains(&pool.to_string()) || rule.contains(" sv");
    let accepted = |rule: &str| !rule.starts_with(&own) && is_ours(&rule) && rule.ends_with("-j ACCEPT");
    if rules.lines().any(accepted) {
        return None;
    }
    let lacks = match has(&format!("-N {CHAIN}")) {
        true => format!("nothing leads to the chain {CHAIN}, which accepts ours"),
        false => format!("there is no chain {CHAIN} to accept ours"),
    };
    Some(format!(
        "iptables drops forwarded packets (policy of FORWARD) and {lacks}, so containers do not reach each other: let \
         dockerd manage iptables, or undo it (iptables -P FORWARD ACCEPT), or accept packets from {pool} to {pool}"
    ))
}

fn objects(listing: &Value) -> Vec<&Value> {
    listing["nftables"].as_array().map(|all| all.iter().collect()).unwrap_or_default()
}

/// A chain that sees forwarded packets and drops by default.
struct Chain<'a> {
    family: &'a str,
    table: &'a str,
    name: &'a str,
}

impl<'a> Chain<'a> {
    fn that_drops(object: &'a Value) -> Option<Self> {
        let chain = object.get("chain")?;
        let word = |key: &str| chain.get(key).and_then(Value::as_str);
        let (family, table, name) = (word("family")?, word("table")?, word("name")?);
        let drops = word("hook") == Some("forward") && word("policy") == Some("drop");
        (drops && matches!(family, "ip" | "inet")).then_some(Self { family, table, name })
    }

    fn is_of_iptables(&self) -> bool {
        (self.family, self.table, self.name) == ("ip", "filter", "FORWARD")
    }

    /// Whether a rule of its table accepts packets of the pool or of our wires, or all.
    fn accepts(&self, pool: IpNet) -> bool {
        let rules = nft::list::<Value>(&["list", "table", self.family, self.table]).ok().flatten();
        rules.iter().flat_map(objects).filter_map(|object| object["rule"]["expr"].as_array()).any(|rule| {
            let text = Value::from(rule.clone()).to_string();
            let is_ours = text.contains(&format!("\"{}\"", pool.addr())) || text.contains("\"sv");
            (rule.len() == 1 || is_ours) && rule.iter().any(|part| part.get("accept").is_some())
        })
    }

    fn told(&self, pool: IpNet) -> String {
        let name = [self.family, self.table, self.name].join(" ");
        format!(
            "nft's chain \"{name}\" drops forwarded packets and accepts none of the pool's, so containers do not reach each \
             other: nft add rule {name} ip saddr {pool} ip daddr {pool} accept"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(rules: &str) -> Option<String> {
        by_iptables(rules, "10.32.0.0/12".parse().unwrap())
    }

    #[test]
    fn a_policy_that_nothing_overrides_is_told() {
        assert!(told("-P FORWARD DROP\n").unwrap().contains("no chain DOCKER-USER"));
        let unreached = "-P FORWARD DROP\n-N DOCKER-USER\n-A DOCKER-USER -s 10.32.0.0/12 -i sv+ -j ACCEPT\n";
        assert!(told(unreached).unwrap().contains("nothing leads to the chain DOCKER-USER"));
    }

    #[test]
    fn one_that_lets_ours_pass_is_not() {
        for rules in [
            "-P FORWARD ACCEPT\n",
            "-P FORWARD DROP\n-N DOCKER-USER\n-A FORWARD -j DOCKER-USER\n",
            "-P FORWARD DROP\n-A FORWARD -s 10.32.0.0/12 -d 10.32.0.0/12 -j ACCEPT\n",
            "-P FORWARD DROP\n-A FORWARD -i sv+ -o sv+ -j ACCEPT\n",
            "-P FORWARD DROP\n-A FORWARD -j ACCEPT\n",
        ] {
            assert_eq!(told(rules), None, "{rules}");
        }
    }
}
