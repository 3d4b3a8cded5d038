//! What becomes of containers, names and addresses when the registry fails: nothing.
//!
//! Each fault is done to a real ensemble of three while every host starts and removes containers and asks for names at
//! a steady rate. Not one call and not one answer may fail, and all must be right again soon after the registry is.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use selvedge_tests::fleet::{Fleet, Member, Plan, StoreKind};
use selvedge_tests::wait::until_true;

/// In this time after the registry is back all must be right.
const RIGHT_AGAIN: Duration = Duration::from_secs(5);

/// What happened while the registry failed.
#[derive(Debug, Default)]
struct Tally {
    starts: AtomicUsize,
    queries: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Tally {
    fn fail(&self, what: String) {
        self.failures.lock().expect("no test panics in here").push(what);
    }
}

/// Hosts with a container each that is known everywhere.
fn fleet(kind: StoreKind) -> Fleet {
    let fleet = Fleet::new(&Plan { store: Some(kind), links: 2, ..Plan::default() });
    for member in &fleet.members {
        member.run(&format!("c-{}", member.name), &["busybox", "sleep", "1d"]);
    }
    for member in &fleet.members {
        for other in &fleet.members {
            let name = format!("c-{}", other.name);
            until_true(&format!("{} knows {name}", member.name), RIGHT_AGAIN, || {
                member.host.resolve(&name).len() == 1
            });
        }
    }
    fleet
}

/// Starts and removes a container again and again, by the real CLI.
fn start_containers(member: &Member, tally: &Tally, over: &AtomicBool) {
    let docker = member.selvedge.docker();
    let mut round = 0;
    while !over.load(Relaxed) {
        round += 1;
        let name = format!("x{round}-{}", member.name);
        let started = docker.run(&["run", "-d", "--name", &name, "busybox", "sleep", "1d"]);
        if started.code != 0 {
            tally.fail(format!("{} round {round}: {}", member.name, started.stderr.trim()));
        } else if member.host.resolve(&name).len() != 1 {
            tally.fail(format!("{} round {round}: its name is not known at home", member.name));
        }
        tally.starts.fetch_add(1, Relaxed);
        let removed = docker.run(&["rm", "-f", &name]);
        if removed.code != 0 {
            tally.fail(format!("{} round {round}: {}", member.name, removed.stderr.trim()));
        }
    }
}

/// Asks for the names of all hosts' lasting containers, and for nothing that might not be known.
fn ask_for_names(member: &Member, names: &[(String, String)], tally: &Tally, over: &AtomicBool) {
    while !over.load(Relaxed) {
        for (name, address) in names {
            let answer = member.host.resolve(name);
            if answer != [address.clone()] {
                tally.fail(format!("{} asked for {name}: {answer:?} instead of {address}", member.name));
            }
            tally.queries.fetch_add(1, Relaxed);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Does this to the registry while all hosts work, then waits until all is right again.
fn while_all_work(fleet: &Fleet, fault: impl FnOnce()) {
    let names: Vec<(String, String)> = fleet
        .members
        .iter()
        .map(|member| {
            let name = format!("c-{}", member.name);
            let address = member.selvedge.docker().address(&name);
            (name, address)
        })
        .collect();
    let (tally, over) = (Arc::new(Tally::default()), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for member in &fleet.members {
            let (tally, over, names) = (&tally, &over, &names);
            scope.spawn(move || start_containers(member, tally, over));
            scope.spawn(move || ask_for_names(member, names, tally, over));
        }
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(fault));
        over.store(true, Relaxed);
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
    });
    let failures = tally.failures.lock().expect("no test panics in here");
    let (starts, queries) = (tally.starts.load(Relaxed), tally.queries.load(Relaxed));
    println!("{starts} starts, {queries} queries, {} failed", failures.len());
    assert!(
        failures.is_empty(),
        "{} of {starts} starts and {queries} queries: {failures:#?}",
        failures.len()
    );
    assert!(starts > 0 && queries > 0, "nothing was tried");
    right_again(fleet);
}

/// All hosts agree: each knows what was started on the others just now, and nothing of what was removed.
fn right_again(fleet: &Fleet) {
    let began = Instant::now();
    let mut addresses = BTreeSet::new();
    let fresh: Vec<(String, String)> = fleet
        .members
        .iter()
        .map(|member| {
            let name = format!("fresh-{}", member.name);
            let address = member.run(&name, &["busybox", "sleep", "1d"]);
            assert!(addresses.insert(address.clone()), "{address} is given twice");
            (name, address)
        })
        .collect();
    for member in &fleet.members {
        for (name, address) in &fresh {
            until_true(&format!("{} knows {name}", member.name), RIGHT_AGAIN, || {
                member.host.resolve(name) == [address.clone()]
            });
        }
        for other in fleet.members.iter().filter(|other| other.name != member.name) {
            let address = &fresh.iter().find(|(name, _)| name.ends_with(&other.name)).expect("one of them").1;
            let own = format!("fresh-{}", member.name);
            until_true(&format!("{own} reaches {address}"), RIGHT_AGAIN, || member.pings(&own, address));
        }
    }
    println!("all was right again {:?} after the registry", began.elapsed());
    for member in &fleet.members {
        let name = format!("fresh-{}", member.name);
        member.selvedge.docker().remove(&[&name]);
        for other in &fleet.members {
            until_true("its name is gone", RIGHT_AGAIN, || other.host.resolve(&name).is_empty());
        }
        assert_eq!(member.selvedge.status()["cluster"]["connection"]["state"], "connected");
    }
}

fn every_fault(kind: StoreKind) {
    let fleet = fleet(kind);
    let store = fleet.store.as_ref().expect("a fleet with a registry");
    let pause = |seconds| std::thread::sleep(Duration::from_secs(seconds));
    println!("one member killed");
    while_all_work(&fleet, || {
        store.kill(0);
        pause(8);
        store.start_again(0);
        store.until_all_serve();
    });
    println!("no majority");
    while_all_work(&fleet, || {
        store.kill(0);
        store.kill(1);
        fleet.members[2].selvedge.ask(&["upgrade"]).ok();
        pause(no_majority());
        store.start_again(0);
        store.start_again(1);
        store.until_all_serve();
        pause(RIGHT_AGAIN.as_secs());
    });
    println!("all members gone, and back with nothing");
    while_all_work(&fleet, || {
        store.empty();
        store.until_all_serve();
        pause(RIGHT_AGAIN.as_secs());
    });
    println!("one host cut off from the registry, longer than its session");
    while_all_work(&fleet, || {
        fleet.cut_from_store(0);
        pause(20);
        fleet.heal();
        pause(RIGHT_AGAIN.as_secs());
    });
    println!("every packet two seconds late");
    while_all_work(&fleet, || {
        store.delay(Duration::from_secs(2));
        pause(20);
        store.delay(Duration::ZERO);
        pause(RIGHT_AGAIN.as_secs() + 4);
    });
}

/// In seconds. The whole time, two minutes, with SELVEDGE_LONG=1: nothing new happens in it after the sessions are over.
fn no_majority() -> u64 {
    if std::env::var_os("SELVEDGE_LONG").is_some() { 120 } else { 20 }
}

#[test]
fn no_fault_of_zookeeper_is_felt() {
    every_fault(StoreKind::Zookeeper);
}

#[test]
fn no_fault_of_etcd_is_felt() {
    every_fault(StoreKind::Etcd);
}

#[test]
fn a_worker_that_begins_without_the_registry_knows_what_the_last_one_knew() {
    let fleet = fleet(StoreKind::Zookeeper);
    let store = fleet.store.as_ref().expect("a fleet with a registry");
    let (own, others) = (&fleet.members[0], &fleet.members[1..]);
    let addresses: Vec<(String, String)> = others
        .iter()
        .map(|other| {
            let name = format!("c-{}", other.name);
            (name.clone(), other.selvedge.docker().address(&name))
        })
        .collect();
    // What a worker has learnt is written down within a second.
    std::thread::sleep(Duration::from_secs(1));
    store.kill_all();
    for (round, how) in ["kill", "upgrade", "upgrade --keeper", "kill"].into_iter().enumerate() {
        let fixed = format!("selvedge.ip=10.44.0.{}", round + 9);
        match how {
            "kill" => own.selvedge.kill_worker(),
            verb => _ = own.selvedge.ask(&verb.split(' ').collect::<Vec<_>>()).ok(),
        }
        for (name, address) in &addresses {
            assert_eq!(own.host.resolve(name), std::slice::from_ref(address), "after {how}");
            assert!(own.pings("c-h1", address), "after {how}");
        }
        let started = own.run(&format!("started-{}", how.len()), &["--rm", "busybox", "sleep", "1d"]);
        assert!(own.host.reaches(&started), "after {how}");
        own.selvedge.docker().remove(&[&format!("started-{}", how.len())]);
        let refused = own.selvedge.docker().run(&["run", "-d", "--rm", "--label", &fixed, "busybox", "true"]);
        assert!(refused.stderr.contains("the registry cannot be reached"), "{}", refused.stderr);
    }
    let status = own.selvedge.ask(&["status"]).stdout;
    assert!(status.contains("AWAY"), "{status}");
    store.start_all_again();
    store.until_all_serve();
    until_true("the registry is seen", Duration::from_secs(10), || {
        own.selvedge.status()["cluster"]["connection"]["state"] == "connected"
    });
    right_again(&fleet);
}

#[test]
fn a_host_that_begins_without_a_registry_says_what_it_lacks() {
    let fleet = Fleet::new(&Plan { hosts: 1, store: None, ..Plan::default() });
    let only = &fleet.members[0];
    only.selvedge.stop();
    let options = ["--registry", "etcd://192.168.9.1:2379", "--host-name", "h1"];
    let alone = selvedge_tests::selvedge::Selvedge::start(&only.host, &only.engine, &options);
    let refused = alone.docker().run(&["run", "-d", "busybox", "true"]);
    assert!(
        refused.stderr.contains("has no block of addresses yet") && refused.stderr.contains("--block"),
        "{}",
        refused.stderr
    );
    assert!(alone.docker().run(&["run", "--rm", "--net", "host", "busybox", "true"]).code == 0, "others run");
    alone.stop();
    let by_hand = [&options[..], &["--block", "10.40.0.0/24"]].concat();
    let alone = selvedge_tests::selvedge::Selvedge::start(&only.host, &only.engine, &by_hand);
    let started = alone.docker().run(&["run", "--rm", "busybox", "hostname", "-i"]);
    assert!(started.ok().contains("10.40.0."), "{started:?}");
    alone.stop();
}

/// As after a power failure of everything: the kernel has forgotten, the registry is not there, and no worker was before.
#[test]
fn a_host_that_was_restarted_without_a_registry_knows_its_blocks_by_its_containers() {
    let fleet = fleet(StoreKind::Etcd);
    let own = &fleet.members[0];
    let docker = own.selvedge.docker();
    docker.run(&["create", "--name", "later", "busybox", "sleep", "1d"]).ok();
    let block = own.selvedge.status()["blocks"][0]["block"].clone();
    fleet.store.as_ref().expect("a fleet with a registry").kill_all();
    own.selvedge.stop();
    own.host.sh("ip route flush proto 83; ip route flush type unreachable");
    assert_eq!(own.host.sh("ip route show type unreachable").stdout, "");
    own.selvedge.start_again();
    docker.run(&["start", "later"]).ok();
    assert!(own.host.reaches(&docker.address("later")));
    assert_eq!(own.selvedge.status()["blocks"][0]["block"], block);
    let new = own.run("new", &["busybox", "sleep", "1d"]);
    assert!(own.host.reaches(&new), "{new}");
}
