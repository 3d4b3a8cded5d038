//! What `selvedge status` begins with: how it stands, and of each trouble what it is and what to do. A pure reading of the
//! status; it must never call well what a part of the status says is not.

use selvedge_cluster::view::Registry;

use super::{AgentStatus, ClusterStatus, Status, Trouble};
use crate::checks::Mark;

impl Trouble {
    fn new(critical: bool, what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { critical, what: what.into(), cure: cure.into() }
    }
}

/// All that the status says is wrong, the worst first.
pub(crate) fn troubles(status: &Status) -> Vec<Trouble> {
    let mut troubles: Vec<Trouble> = engine(status).into_iter().collect();
    troubles.extend(host(status));
    troubles.extend(addresses(status));
    troubles.extend(rules(status));
    troubles.extend(names(status));
    troubles.extend(status.health_from.iter().filter_map(agent));
    troubles.extend(status.cluster.iter().flat_map(|others| cluster(others, &status.policy.mode)));
    troubles.sort_by_key(|trouble| !trouble.critical);
    troubles
}

/// `OK` or `TROUBLE: 2`, and a line for each.
pub(crate) fn text(troubles: &[Trouble]) -> String {
    if troubles.is_empty() {
        return "OK\n".to_owned();
    }
    let line = |trouble: &Trouble| {
        let mark = if trouble.critical { "FAIL" } else { "warn" };
        let cure = if trouble.cure.is_empty() { String::new() } else { format!(": {}", trouble.cure) };
        format!("  {mark}  {}{cure}\n", trouble.what)
    };
    format!("TROUBLE: {}\n{}", troubles.len(), troubles.iter().map(line).collect::<String>())
}

/// The exit code of `status --check`, as monitoring has it: 0 well, 1 a warning, 2 critical.
pub(crate) fn code(troubles: &[Trouble]) -> u8 {
    match troubles.iter().any(|trouble| trouble.critical) {
        true => 2,
        false => u8::from(!troubles.is_empty()),
    }
}

fn engine(status: &Status) -> Option<Trouble> {
    let engine = &status.engine;
    let socket = engine.socket.display();
    match (engine.up, engine.answers) {
        (true, true) => engine.late_ms.map(|late| {
            let what = format!("the engine at {socket} is slow: {} s for an answer", late / 1000);
            Trouble::new(false, what, "look at the load of this host")
        }),
        (true, false) => Some(Trouble::new(
            true,
            format!("the engine at {socket} takes connections and does not answer"),
            "look at dockerd's log, or restart it",
        )),
        (false, _) => Some(Trouble::new(true, format!("the engine at {socket} is away"), "start dockerd")),
    }
}

/// What the list of checks finds, and what of the host's network is being put right.
fn host(status: &Status) -> Vec<Trouble> {
    let wrong = status.checks.iter().filter(|finding| finding.mark != Mark::Ok);
    let mut troubles: Vec<Trouble> =
        wrong.map(|finding| Trouble::new(finding.mark == Mark::Fail, finding.text.as_str(), "")).collect();
    let network = &status.network;
    for (reason, what) in
        [(&network.routes, "the routes to other hosts"), (&network.firewalls, "the host's firewalls")]
    {
        troubles.extend(reason.iter().map(|reason| {
            Trouble::new(true, format!("{what} cannot be put right: {reason}"), "let Selvedge change them")
        }));
    }
    let cure = "it is put right at once; find out who takes it away";
    troubles.extend(network.host.iter().map(|lack| Trouble::new(true, lack.as_str(), cure)));
    troubles
}

fn addresses(status: &Status) -> Vec<Trouble> {
    let refused = status.network.addresses.iter();
    let mut troubles: Vec<Trouble> = refused
        .map(|refused| Trouble::new(true, refused.as_str(), "remove one of the two containers"))
        .collect();
    // Another block is claimed before the last one is full.
    if !status.blocks.is_empty() && status.blocks.iter().all(|block| block.free == 0) {
        troubles.push(Trouble::new(
            true,
            "no free address is left",
            "remove containers that are not needed: stopped ones keep their address",
        ));
    }
    troubles
}

fn rules(status: &Status) -> Vec<Trouble> {
    let policy = status.policy.trouble.iter().map(|reason| {
        Trouble::new(true, format!("--policy tenant is NOT IN FORCE: {reason}"), "new containers wait for it")
    });
    let vips = status.vips.trouble.iter().map(|reason| {
        Trouble::new(
            true,
            format!("virtual addresses are not right: {reason}"),
            "install nftables, if it is missing",
        )
    });
    let waiting = status.vips.waiting.iter().map(|key| {
        Trouble::new(
            false,
            format!("{key} has no virtual address yet"),
            "the registry does not answer, or --vip-range has none left",
        )
    });
    policy.chain(vips).chain(waiting).collect()
}

fn names(status: &Status) -> Vec<Trouble> {
    let of = |double: &super::Double| {
        let (name, ids) = (&double.name, &double.containers);
        let what = format!("{name} is exclusive, and {} containers have it: {}", ids.len(), ids.join(", "));
        Trouble::new(false, what, "stop all but one")
    };
    status.doubles.iter().map(of).collect()
}

fn agent(agent: &AgentStatus) -> Option<Trouble> {
    let reason = agent.reason.as_ref()?;
    let what = format!("the Mesos agent at {} does not tell of health checks: {reason}", agent.agent);
    let cure = format!("start it, or mend --health-from; {}", agent.counts_meanwhile());
    Some(Trouble::new(false, what, cure))
}

fn cluster(others: &ClusterStatus, own: &str) -> Vec<Trouble> {
    let mut troubles = Vec::new();
    if let Some((state, reason)) = not_connected(&others.connection) {
        troubles.push(Trouble::new(
            false,
            format!("the registry is {state}: {reason}"),
            "containers start and known names are answered; news of other hosts wait until it is back",
        ));
    }
    for host in &others.hosts {
        let name = &host.name;
        let policy = host.info.as_ref().map(|info| info.policy.as_str());
        if let Some(policy) = policy.filter(|policy| !policy.is_empty() && *policy != own) {
            let what = format!("{name} has --policy {policy}");
            troubles.push(Trouble::new(false, what, "all hosts must have the same"));
        }
        match (host.alive, host.registered) {
            (true, true) => {}
            (true, false) => troubles.push(Trouble::new(
                false,
                format!("{name} answers, and is not in the registry"),
                "look at its own `selvedge status`",
            )),
            (false, _) => troubles.push(Trouble::new(
                false,
                format!("{name} is GONE"),
                "start it again, or free what it had with `selvedge forget`",
            )),
        }
    }
    troubles
}

/// The state of a registry that is not connected, and the reason.
pub(super) fn not_connected(connection: &Registry) -> Option<(&'static str, &str)> {
    match connection {
        Registry::Connected => None,
        Registry::Away(reason) => Some(("away", reason)),
        Registry::Refused(reason) => Some(("refused", reason)),
    }
}

#[cfg(test)]
mod tests {
    use selvedge_cluster::key::HostInfo;
    use selvedge_cluster::view::PeerView;

    use super::*;
    use crate::status::{BlockStatus, Double};

    fn well() -> Status {
        let mut status = Status::default();
        (status.engine.up, status.engine.answers) = (true, true);
        status.engine.socket = "/run/docker.sock".into();
        status.blocks = vec![BlockStatus { block: "10.32.0.0/24".parse().unwrap(), free: 200 }];
        status.policy.mode = "open".to_owned();
        status
    }

    #[test]
    fn a_status_that_is_well_says_so() {
        assert_eq!((text(&troubles(&well())), code(&troubles(&well()))), ("OK\n".to_owned(), 0));
    }

    #[test]
    fn the_worst_comes_first_and_decides_the_code() {
        let mut status = well();
        let containers = vec!["a".to_owned(), "b".to_owned()];
        status.doubles = vec![Double { name: "db".to_owned(), containers }];
        assert_eq!(code(&troubles(&status)), 1);
        status.engine.answers = false;
        let found = troubles(&status);
        assert_eq!(code(&found), 2);
        let text = text(&found);
        assert!(text.starts_with("TROUBLE: 2\n  FAIL  the engine at /run/docker.sock takes"), "{text}");
        assert!(
            text.contains("\n  warn  db is exclusive, and 2 containers have it: a, b: stop all but one\n"),
            "{text}"
        );
    }

    #[test]
    fn a_silent_mesos_agent_is_a_warning_that_says_what_counts() {
        let mut status = well();
        let agent = AgentStatus { agent: "http://a:5051".to_owned(), tasks: 2, ..AgentStatus::default() };
        status.health_from = Some(agent.clone());
        assert!(troubles(&status).is_empty());
        let gone = AgentStatus { reason: Some("refused".to_owned()), ..agent };
        status.health_from = Some(gone.clone());
        let found = troubles(&status);
        assert_eq!(code(&found), 1);
        assert_eq!(found[0].what, "the Mesos agent at http://a:5051 does not tell of health checks: refused");
        assert!(found[0].cure.ends_with("until then a HEALTHCHECK of Docker's counts alone"));
        status.health_from = Some(AgentStatus { heard_seconds: Some(7), ..gone });
        assert!(troubles(&status)[0].cure.ends_with("its verdicts of 7 s ago count (2 tasks)"));
    }

    #[test]
    fn a_slow_engine_is_a_warning() {
        let mut status = well();
        status.engine.late_ms = Some(6100);
        let found = troubles(&status);
        assert_eq!(
            (found[0].what.as_str(), code(&found)),
            ("the engine at /run/docker.sock is slow: 6 s for an answer", 1)
        );
    }

    #[test]
    fn hosts_that_do_not_agree_about_the_policy_or_are_gone_are_told_of() {
        let host = |name: &str, policy: &str, alive: bool| PeerView {
            name: name.to_owned(),
            info: Some(HostInfo {
                address: [10, 0, 0, 1].into(),
                port: 6785,
                version: "1".to_owned(),
                datapath: "auto".to_owned(),
                policy: policy.to_owned(),
                heeds_stops: true,
            }),
            alive,
            registered: true,
            ..PeerView::default()
        };
        let mut status = well();
        status.cluster = Some(ClusterStatus {
            connection: Registry::Away("refused".to_owned()),
            hosts: vec![host("a", "open", true), host("b", "tenant", true), host("early", "", false)],
            ..ClusterStatus::default()
        });
        let found: Vec<String> = troubles(&status).into_iter().map(|trouble| trouble.what).collect();
        assert_eq!(found, ["the registry is away: refused", "b has --policy tenant", "early is GONE"]);
    }
}
