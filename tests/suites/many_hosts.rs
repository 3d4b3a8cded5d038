//! Several hosts on one network and one name space: real engines, a real ZooKeeper or etcd of three members, two links
//! with a router between.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use selvedge_tests::fleet::{Fleet, Plan, StoreKind};
use selvedge_tests::wait::until_true;

const SOON: Duration = Duration::from_secs(5);

fn options(options: &[&str]) -> Vec<String> {
    options.iter().map(|&option| option.to_owned()).collect()
}

/// Containers on all hosts reach each other by address and by name.
fn all_reach_all(fleet: &Fleet) {
    let addresses: Vec<(String, String)> = fleet
        .members
        .iter()
        .map(|member| {
            let name = format!("c-{}", member.name);
            let address = member.run(&name, &["busybox", "sleep", "1d"]);
            (name, address)
        })
        .collect();
    let distinct: BTreeSet<&String> = addresses.iter().map(|(_, address)| address).collect();
    assert_eq!(distinct.len(), addresses.len(), "{addresses:?}");
    for (index, member) in fleet.members.iter().enumerate() {
        let own = &addresses[index].0;
        for (name, address) in &addresses {
            until_true(&format!("{name} resolves on {}", member.name), SOON, || {
                member.host.resolve(name) == [address.clone()]
            });
            assert!(
                member.pings(own, address),
                "{own} on {} pings {address}\n{}",
                member.name,
                member.host.sh("ip route; ip neigh; ip -d link; bridge fdb").stdout
            );
            assert!(member.pings(own, name), "{own} pings {name}");
            assert!(member.host.reaches(address), "{} itself reaches {address}", member.name);
        }
    }
    for member in &fleet.members {
        let plan = member.selvedge.ask(&["check", "--network"]);
        assert_eq!((plan.code, plan.stdout.as_str()), (0, "the kernel has all routes to other hosts\n"));
        let hosts = member.selvedge.status()["cluster"]["hosts"].as_array().expect("a list").clone();
        assert_eq!(hosts.len(), fleet.members.len() - 1);
        assert!(hosts.iter().all(|host| host["containers"] == 1), "status counts them: {hosts:?}");
    }
}

#[test]
fn containers_of_hosts_on_two_links_reach_each_other() {
    let fleet = Fleet::new(&Plan { hosts: 4, links: 2, ..Plan::default() });
    all_reach_all(&fleet);
    let routes = fleet.members[0].host.sh("ip route show proto 83").stdout;
    let by = |device: &str| routes.lines().filter(|line| line.contains(device)).count();
    assert_eq!((by("dev eth0"), by("dev svx")), (1, 2), "direct on the link, VXLAN beyond it:\n{routes}");
    // Somebody flushes our routes: back within two seconds.
    fleet.members[0].host.sh("ip route flush proto 83").ok();
    let (own, far) = ("c-h1", fleet.members[1].host.resolve("c-h2")[0].clone());
    until_true("the routes are back", Duration::from_secs(4), || fleet.members[0].pings(own, &far));
}

#[test]
fn with_etcd_and_an_ipv6_underlay_they_do_too() {
    let plan = Plan { store: Some(StoreKind::Etcd), links: 2, underlay6: true, ..Plan::default() };
    all_reach_all(&Fleet::new(&plan));
}

#[test]
fn a_worker_that_is_killed_or_upgraded_is_no_departure() {
    let fleet = Fleet::new(&Plan { hosts: 2, ..Plan::default() });
    let (a, b) = (&fleet.members[0], &fleet.members[1]);
    let address = a.run("db", &["busybox", "sleep", "1d"]);
    b.run("asker", &["busybox", "sleep", "1d"]);
    until_true("b knows it", SOON, || b.host.resolve("db") == [address.clone()]);
    let end = Instant::now() + Duration::from_secs(14);
    let mut round = 0;
    while Instant::now() < end {
        if round % 40 == 0 {
            match round % 80 {
                0 => a.selvedge.kill_worker(),
                _ => _ = a.selvedge.ask(&["upgrade"]).ok(),
            }
        }
        round += 1;
        assert_eq!(b.host.resolve("db"), std::slice::from_ref(&address), "round {round}");
        assert_eq!(b.alive_peers(), ["h1"], "round {round}");
        if round % 10 == 0 {
            assert!(b.pings("asker", &address), "round {round}");
        }
    }
}

#[test]
fn a_dead_hosts_names_are_gone_in_ten_seconds_and_its_blocks_when_it_is_forgotten() {
    let fleet = Fleet::new(&Plan::default());
    let (a, b) = (&fleet.members[0], &fleet.members[1]);
    let address = a.run("db", &["busybox", "sleep", "1d"]);
    until_true("b knows it", SOON, || b.host.resolve("db") == [address.clone()]);
    let refused = b.selvedge.ask(&["forget", "h1"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("is alive") && refused.stderr.lines().count() == 1, "{}", refused.stderr);
    fleet.kill(0);
    let killed = Instant::now();
    until_true("its names are gone", Duration::from_secs(10), || b.host.resolve("db").is_empty());
    println!("names of a dead host were gone after {:?}", killed.elapsed());
    let status = b.selvedge.ask(&["status", "--check"]);
    assert!(
        status.stdout.starts_with("TROUBLE: ") && status.stdout.contains("  warn  h1 is GONE: "),
        "{}",
        status.stdout
    );
    assert_eq!(status.code, 1, "a warning");
    let routes = b.host.routes();
    b.selvedge.ask(&["forget", "h1"]).ok();
    until_true("its routes are gone", SOON, || b.host.routes().len() + 1 == routes.len());
    assert_eq!(b.selvedge.ask(&["forget", "../x"]).code, 1);
}

#[test]
fn a_full_host_claims_another_block() {
    let plan = Plan { hosts: 2, options: options(&["--block-size", "29"]), ..Plan::default() };
    let fleet = Fleet::new(&plan);
    let (a, b) = (&fleet.members[0], &fleet.members[1]);
    let mut addresses = BTreeSet::new();
    for number in 0..12 {
        let name = format!("c{number}");
        assert!(addresses.insert(a.run(&name, &["busybox", "sleep", "1d"])), "twice the same");
    }
    b.run("asker", &["busybox", "sleep", "1d"]);
    for (number, address) in addresses.iter().enumerate() {
        until_true(&format!("the {number}th is reached from b"), SOON, || b.pings("asker", address));
    }
    let blocks = a.selvedge.status()["blocks"].as_array().expect("a list").len();
    assert!(blocks >= 2, "{blocks}");
}

#[test]
fn a_fixed_address_moves_with_its_container_within_a_second() {
    let fleet = Fleet::new(&Plan::default());
    let fixed = ["--label", "selvedge.ip=10.44.0.7", "busybox", "sleep", "1d"];
    fleet.members[2].run("asker", &["busybox", "sleep", "1d"]);
    for (from, to) in [(0, 1), (1, 0)] {
        let (from, to) = (&fleet.members[from], &fleet.members[to]);
        if from.selvedge.shown("db").is_none() {
            from.run("db", &fixed);
        }
        until_true("it is reached", SOON, || fleet.members[2].pings("asker", "10.44.0.7"));
        let second = to.selvedge.docker().run(&[&["run", "-d", "--name", "db"], &fixed[..]].concat());
        assert_ne!(second.code, 0, "two have one address");
        assert!(second.stderr.contains("10.44.0.7 is taken"), "{}", second.stderr);
        to.selvedge.docker().remove(&["db"]);
        from.selvedge.docker().run(&["kill", "db"]).ok();
        to.run("db", &fixed);
        // The first ping may be a moment too early, and a lost one takes a second of its own.
        until_true("it is reached where it is now", Duration::from_secs(2), || {
            fleet.members[2].host.sh("busybox ping -c 1 -W 1 10.44.0.7").code == 0
        });
        from.selvedge.docker().remove(&["db"]);
        assert_eq!(fleet.members[2].host.resolve("db"), ["10.44.0.7"]);
    }
}

/// Two sides that do not hear each other; the registry is on one of them.
#[test]
fn each_side_of_a_partition_answers_for_what_it_reaches_and_all_agree_afterwards() {
    let fleet = Fleet::new(&Plan { hosts: 4, ..Plan::default() });
    for member in &fleet.members {
        member.run(&format!("c-{}", member.name), &["busybox", "sleep", "1d"]);
    }
    let knows = |asker: usize, of: usize| {
        fleet.members[asker].host.resolve(&format!("c-h{}", of + 1)).iter().any(|one| one.starts_with("10."))
    };
    let all = |wanted: &dyn Fn(usize, usize) -> bool| {
        (0..4).all(|asker| (0..4).all(|of| knows(asker, of) == wanted(asker, of)))
    };
    until_true("all know all", SOON, || all(&|_, _| true));
    // 0 and 1 lose the others and the registry.
    for (one, other) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
        fleet.cut(one, other);
        assert!(!fleet.members[one].host.reaches(&fleet.members[other].address), "it is not cut");
    }
    fleet.cut_from_store(0);
    fleet.cut_from_store(1);
    let same_side = |one: usize, other: usize| (one < 2) == (other < 2);
    until_true("each side knows its own", Duration::from_secs(25), || all(&same_side));
    // What begins meanwhile is known on its own side, where the registry is.
    fleet.members[2].run("late", &["busybox", "sleep", "1d"]);
    until_true("its side knows it", SOON, || fleet.members[3].host.resolve("late").len() == 1);
    let own = fleet.members[0].run("lonely", &["busybox", "sleep", "1d"]);
    assert_eq!(fleet.members[0].host.resolve("lonely"), [own]);
    fleet.heal();
    let healed = Instant::now();
    // Five seconds are promised; a busy machine has some more.
    until_true("all know all again", Duration::from_secs(10), || {
        all(&|_, _| true)
            && (0..4).all(|asker| {
                ["late", "lonely"].iter().all(|name| fleet.members[asker].host.resolve(name).len() == 1)
            })
    });
    println!("all agreed {:?} after the links were healed", healed.elapsed());
    for asker in 0..4 {
        let far = fleet.members[3 - asker].host.resolve(&format!("c-h{}", 4 - asker))[0].clone();
        assert!(fleet.members[asker].pings(&format!("c-h{}", asker + 1), &far));
    }
}

#[test]
fn with_an_ipv6_pool_containers_have_both_addresses_and_names_for_both() {
    let plan = Plan { links: 2, options: options(&["--pool6", "fd53:1:2::/96"]), ..Plan::default() };
    let fleet = Fleet::new(&plan);
    let addresses: Vec<String> = fleet
        .members
        .iter()
        .map(|member| member.run(&format!("c-{}", member.name), &["busybox", "sleep", "1d"]))
        .collect();
    for member in &fleet.members {
        for (other, address) in fleet.members.iter().zip(&addresses) {
            let name = format!("c-{}.selvedge.internal", other.name);
            let v4: std::net::Ipv4Addr = address.parse().expect("an address");
            let [a, b, c, d] = v4.octets();
            let v6 = std::net::Ipv6Addr::from([0xfd, 0x53, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, a, b, c, d]);
            until_true(&format!("{} knows {name}", member.name), SOON, || {
                member.host.dig(&format!("+short AAAA {name}")).trim() == v6.to_string()
            });
            let back = member.host.dig(&format!("+short -x {v6}"));
            assert_eq!(back.trim(), format!("{name}."));
            let docker = member.selvedge.docker();
            let own = format!("c-{}", member.name);
            until_true(&format!("{own} reaches {v6} of {name}"), SOON, || {
                docker.run(&["exec", &own, "ping6", "-c", "1", "-W", "2", &v6.to_string()]).code == 0
            });
            let shown = other.selvedge.docker().inspect(&format!("c-{}", other.name));
            assert_eq!(shown["NetworkSettings"]["GlobalIPv6Address"], v6.to_string());
        }
    }
}
