//! A cluster whose parts are replaced one after the other while it works: nobody notices.
//!
//! On each host a Mesos-shaped agent runs tasks, between all pairs of hosts TCP connections are open, and names are
//! asked for at a steady rate, while each Selvedge is upgraded, then each worker killed, then each member of the
//! registry restarted.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use selvedge_tests::fleet::{Fleet, Member, Plan, StoreKind};
use selvedge_tests::mesos::task::{self, Gates, Report, Spec};
use selvedge_tests::wait::until_true;

const SOON: Duration = Duration::from_secs(10);
/// How long a task lives at least that does not end by itself.
const LIFE: Duration = Duration::from_secs(6);

/// What the hosts' work came to.
#[derive(Debug, Default)]
struct Tally {
    reports: Mutex<Vec<Report>>,
    queries: AtomicUsize,
    failed_queries: Mutex<Vec<String>>,
}

/// Tasks one after the other, until it is over: some end by themselves, some are killed, some are checked.
fn run_tasks(member: &Member, next: &AtomicU32, (tally, over): (&Tally, &AtomicBool)) {
    let (docker, observer) = (member.selvedge.docker(), member.engine.docker());
    while !over.load(Relaxed) {
        let number = next.fetch_add(1, Relaxed);
        let (script, ends) = match number % 3 {
            0 => ("i=0; while [ $i -lt 30 ]; do echo $i; i=$((i+1)); sleep 0.1; done", Some(0)),
            1 => ("echo to stderr >&2; echo begins; sleep 2; exit 7", Some(7)),
            _ => ("while :; do echo alive; sleep 0.5; done", None),
        };
        let spec = Spec {
            number,
            script: script.to_owned(),
            ends,
            checked: number.is_multiple_of(2),
            options: Vec::new(),
        };
        let began = Instant::now();
        let report = task::run((&docker, &observer), spec, &Gates::default(), || {
            ends.is_none() && began.elapsed() > LIFE
        });
        tally.reports.lock().expect("no test panics in here").push(report);
    }
}

/// Asks for all names, as a resolver does: once more if there is no answer in a second.
fn ask(member: &Member, names: &[(String, String)], (tally, over): (&Tally, &AtomicBool)) {
    while !over.load(Relaxed) {
        for (name, address) in names {
            let answer = member.host.dig(&format!("+time=1 +tries=2 +short {name}.selvedge.internal"));
            // The first query may have been in the hands of a worker that was killed; dig says so, and asks again.
            let last = answer.lines().rfind(|line| !line.starts_with(";;")).unwrap_or_default();
            if last != address {
                let told = format!("{} asked for {name}: {answer:?} instead of {address}", member.name);
                tally.failed_queries.lock().expect("no test panics in here").push(told);
            }
            tally.queries.fetch_add(1, Relaxed);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A container on each host that echoes, and one that talks to all of them over one connection each.
fn connect_all_pairs(fleet: &Fleet) -> Vec<(String, String)> {
    let servers: Vec<(String, String)> = fleet
        .members
        .iter()
        .map(|member| {
            let name = format!("echo-{}", member.name);
            let address = member.run(&name, &["busybox", "nc", "-ll", "-p", "7000", "-e", "cat"]);
            (name, address)
        })
        .collect();
    for member in &fleet.members {
        let talks: String = servers
            .iter()
            .map(|(name, address)| {
                format!(
                    "(i=0; while [ ! -e /stop ]; do echo $i; i=$((i+1)); sleep 0.1; done; echo $i >/sent-{name}) \
                     | nc {address} 7000 >/heard-{name} & "
                )
            })
            .collect();
        member.run("talker", &["busybox", "sh", "-c", &format!("{talks} wait; sleep 1d")]);
    }
    servers
}

/// Each connection heard all that it sent, in order, and nothing else.
fn check_connections(fleet: &Fleet, servers: &[(String, String)]) {
    for member in &fleet.members {
        let docker = member.selvedge.docker();
        docker.run(&["exec", "talker", "touch", "/stop"]).ok();
        for (name, _) in servers {
            let read = |file: &str| docker.run(&["exec", "talker", "cat", &format!("/{file}-{name}")]);
            until_true("the talk has ended", SOON, || read("sent").code == 0);
            let sent: usize = read("sent").ok().parse().expect("a number");
            let expected: String = (0..sent).map(|number| format!("{number}\n")).collect();
            until_true(&format!("{} heard all from {name}", member.name), SOON, || {
                read("heard").stdout == expected
            });
            assert!(sent > 100, "{sent} lines are no steady talk");
        }
    }
}

/// What the operators do.
fn roll(fleet: &Fleet) {
    let pause = || std::thread::sleep(Duration::from_millis(1500));
    for member in &fleet.members {
        println!("upgrading {}", member.name);
        member.selvedge.ask(&["upgrade"]).ok();
        pause();
    }
    for member in &fleet.members {
        println!("killing the worker of {}", member.name);
        member.selvedge.kill_worker();
        pause();
    }
    let store = fleet.store.as_ref().expect("a fleet with a registry");
    for number in 0..store.members() {
        println!("restarting member {number} of the registry");
        store.kill(number);
        pause();
        store.start_again(number);
        store.until_all_serve();
        pause();
    }
}

fn roll_through(kind: StoreKind, hosts: usize) {
    let plan = Plan { hosts, links: 2, store: Some(kind), ..Plan::default() };
    let fleet = Fleet::new(&plan);
    let servers = connect_all_pairs(&fleet);
    for member in &fleet.members {
        for (name, address) in &servers {
            until_true("all names are known", SOON, || member.host.resolve(name) == [address.clone()]);
        }
    }
    let (tally, over, next) = (Tally::default(), AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for member in &fleet.members {
            let (tally, over, next, servers) = (&tally, &over, &next, &servers);
            scope.spawn(move || run_tasks(member, next, (tally, over)));
            scope.spawn(move || ask(member, servers, (tally, over)));
        }
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| roll(&fleet)));
        over.store(true, Relaxed);
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
    });
    check_connections(&fleet, &servers);
    let reports = tally.reports.into_inner().expect("no test panics in here");
    let failed = tally.failed_queries.into_inner().expect("no test panics in here");
    let wronged: Vec<&Report> =
        reports.iter().filter(|one| one.is_wronged() || one.orphaned || one.is_garbled()).collect();
    println!(
        "{} tasks, {} queries, {} connections",
        reports.len(),
        tally.queries.load(Relaxed),
        servers.len() * servers.len()
    );
    assert!(wronged.is_empty(), "{wronged:#?}");
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(reports.len() >= 5, "{} tasks are no load", reports.len());
}

#[test]
fn five_hosts_are_upgraded_and_killed_and_zookeeper_restarted() {
    roll_through(StoreKind::Zookeeper, 5);
}

#[test]
fn three_hosts_are_upgraded_and_killed_and_etcd_restarted() {
    roll_through(StoreKind::Etcd, 3);
}
