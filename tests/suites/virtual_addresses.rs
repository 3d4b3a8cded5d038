//! Virtual addresses: one stable address for all instances of a service, on every host; judged by connections that are
//! really made, while instances come, go, fall ill and are replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::Pid;
use selvedge_tests::Lab;
use selvedge_tests::docker::Docker;
use selvedge_tests::fleet::{Fleet, Member, Plan, StoreKind};
use selvedge_tests::reach::Place;
use selvedge_tests::selvedge::Selvedge;
use selvedge_tests::shell::timed;
use selvedge_tests::wait::{until, until_true};

const SOON: Duration = Duration::from_secs(8);
const PORT: u16 = 5432;
const DOMAIN: &str = "selvedge.internal";

/// The server, and this machine's libraries, which the image lacks.
fn mounts() -> Vec<String> {
    let server = env!("CARGO_BIN_EXE_selvedge-answer");
    let mut mounts = vec![format!("{server}:/answer:ro")];
    let libraries = ["/lib", "/lib64", "/usr/lib"].iter().filter(|dir| std::fs::exists(dir).unwrap_or(false));
    mounts.extend(libraries.map(|dir| format!("{dir}:{dir}:ro")));
    mounts
}

/// Starts an instance that listens after so many milliseconds.
fn instance(docker: &Docker, name: &str, options: &[&str], after: u32) {
    let mounts = mounts();
    let mut arguments = vec!["--name", name];
    mounts.iter().for_each(|mount| arguments.extend(["-v", mount]));
    arguments.extend(options);
    let (port, after) = (PORT.to_string(), after.to_string());
    arguments.extend(["busybox", "/answer", &port, name, &after]);
    docker.start(&arguments);
}

/// Who answers at the address, asked from there.
fn called(place: Place, to: IpAddr) -> Result<String, String> {
    place.within(|| call(SocketAddr::new(to, PORT)))
}

/// One connection: made, greeted, and ended without leaving anything behind.
fn call(to: SocketAddr) -> Result<String, String> {
    let began = Instant::now();
    let told = |step: &'static str| {
        move |error: std::io::Error| format!("{step} after {} ms: {error}", began.elapsed().as_millis())
    };
    let mut stream =
        std::net::TcpStream::connect_timeout(&to, Duration::from_secs(5)).map_err(told("connect"))?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).map_err(told("set"))?;
    let (mut greeting, mut buffer) = (Vec::new(), [0; 64]);
    while !greeting.ends_with(b"\n") {
        match stream.read(&mut buffer).map_err(told("read"))? {
            0 => return Err("the greeting was cut off".to_owned()),
            length => greeting.extend_from_slice(&buffer[..length]),
        }
    }
    // A reset: so many closed connections would else use up all ports.
    let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&stream, sockopt::Linger, &linger).map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&greeting).trim_end().to_owned())
}

/// All who answer there.
fn answering(place: Place, to: IpAddr) -> BTreeSet<String> {
    (0..30).map(|_| called(place, to).unwrap_or_else(|error| error)).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn client(docker: &Docker, name: &str, options: &[&str]) -> Place {
    docker.start(&[&["--name", name][..], options, &["busybox", "sleep", "1d"]].concat());
    Place::of(docker, name)
}

fn address(place: Place, name: &str, kind: &str) -> Option<IpAddr> {
    let (_, answers) = place.dig(&format!("{name}.vip.{DOMAIN} {kind}"));
    answers.first().and_then(|answer| answer.parse().ok())
}

#[test]
fn a_service_has_one_address_and_whoever_can_stands_behind_it() {
    let lab = Lab::with_selvedge(&["--pool6", "fd53:1::/96"]);
    let docker = lab.selvedge.docker();
    let caller = client(&docker, "caller", &[]);
    let host = Place { pid: lab.selvedge.keeper() };
    assert_eq!(host.dig(&format!("db.vip.{DOMAIN}")).0, "NXDOMAIN");
    let vip = ["-l", "selvedge.vip=db:5432"];
    instance(&docker, "one", &vip, 0);
    let four = until("it has a name", SOON, || address(host, "db", "A"));
    let six = until("by IPv6 too", SOON, || address(host, "db", "AAAA"));
    assert!(four.to_string().starts_with("10.47."), "of a range of its own: {four}");
    instance(&docker, "two", &vip, 1500);
    assert_eq!(answering(caller, four), set(&["one"]), "who does not listen yet is not called");
    let one = Place::of(&docker, "one");
    // A single host has no IPv6 address in the pool, and none elsewhere here.
    for (place, who, to) in [
        (caller, "caller", four),
        (caller, "caller", six),
        (one, "one", four),
        (one, "one", six),
        (host, "host", four),
    ] {
        until_true(&format!("{who} is led to both by {to}"), SOON, || {
            answering(place, to) == set(&["one", "two"])
        });
    }
    assert_eq!(caller.dig(&format!("-x {four}")).1, [format!("db.vip.{DOMAIN}.")]);
    assert_eq!(caller.dig(&format!("_5432._tcp.db.vip.{DOMAIN} SRV")).0, "NOERROR");
    let status = lab.selvedge.ask(&["status"]).stdout;
    assert!(status.contains(&format!("db.vip {four}")), "{status}");
    // Nobody listens on this port of it: told at once, and no packet leaves by another way.
    let began = Instant::now();
    let other = caller.within(|| std::net::TcpStream::connect_timeout(&(four, 99).into(), SOON));
    assert_eq!(other.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    assert!(began.elapsed() < SOON);
    // A connection stays with whom it was led to, whatever comes after.
    let mut kept = caller.within(|| std::net::TcpStream::connect((four, PORT))).expect("a connection");
    let first = read_line(&mut kept);
    for (step, damage) in [("a kill", true), ("an upgrade", false)] {
        match damage {
            true => lab.selvedge.kill_worker(),
            false => drop(lab.selvedge.ask(&["upgrade"])),
        }
        for _ in 0..20 {
            assert!(called(caller, four).is_ok(), "right after {step}");
        }
        until_true("it is named as before", SOON, || address(host, "db", "A") == Some(four));
    }
    docker.run(&["stop", "-t", "5", "two"]).ok();
    assert_eq!(answering(caller, four), set(&["one"]));
    lab.host.sh("nft flush ruleset").ok();
    until_true("what somebody flushed is back", SOON, || answering(caller, four) == set(&["one"]));
    std::io::Write::write_all(&mut kept, b"x\n").expect("it is open");
    if first == "one" {
        assert_eq!(read_line(&mut kept), "x");
    }
    docker.run(&["rm", "-f", "one"]).ok();
    until_true("nobody stands behind it", SOON, || host.dig(&format!("db.vip.{DOMAIN}")).0 == "NXDOMAIN");
    assert!(called(caller, four).unwrap_err().contains("refused"), "and that is told at once");
    instance(&docker, "three", &vip, 0);
    until_true("the address is the service's for good", SOON, || address(host, "db", "A") == Some(four));
}

fn read_line(stream: &mut std::net::TcpStream) -> String {
    stream.set_read_timeout(Some(SOON)).expect("a time limit");
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).is_ok_and(|length| length == 1) && byte != *b"\n" {
        line.push(byte[0]);
    }
    String::from_utf8_lossy(&line).into_owned()
}

#[test]
fn health_decides_and_instances_at_hand_come_first_where_that_is_asked() {
    let fleet = Fleet::new(&Plan { hosts: 2, store: Some(StoreKind::Etcd), ..Plan::default() });
    let [a, b] = &fleet.members[..] else { panic!("two hosts") };
    let (near, far) = (a.selvedge.docker(), b.selvedge.docker());
    let (here, there) = (client(&near, "here", &[]), client(&far, "there", &[]));
    let check = [
        "--health-cmd",
        "test ! -e /ill",
        "--health-interval",
        "200ms",
        "--health-retries",
        "1",
        "--health-timeout",
        "2s",
    ];
    let vip = [&["-l", "selvedge.vip=db:5432 own:5432,local"][..], &check].concat();
    instance(&near, "one", &vip, 0);
    instance(&far, "two", &vip, 0);
    let db = until("db has a name", SOON, || address(here, "db", "A"));
    let own = until("own has a name", SOON, || address(there, "own", "A"));
    until_true("both are called from both hosts", SOON, || {
        answering(here, db) == set(&["one", "two"]) && answering(there, db) == set(&["one", "two"])
    });
    until_true("each host has its own", SOON, || {
        answering(here, own) == set(&["one"]) && answering(there, own) == set(&["two"])
    });
    near.run(&["exec", "one", "touch", "/ill"]).ok();
    until_true("who is ill is left out everywhere", SOON, || {
        [here, there].iter().all(|place| answering(*place, db) == set(&["two"]))
    });
    until_true("and the other host's serves", SOON, || answering(here, own) == set(&["two"]));
    near.run(&["exec", "one", "rm", "/ill"]).ok();
    until_true("it has recovered", SOON, || answering(there, db) == set(&["one", "two"]));
    // Without the registry what is known stays, and what happens here counts.
    if let Some(store) = &fleet.store {
        store.kill(0);
    }
    near.run(&["stop", "-t", "2", "one"]).ok();
    assert_eq!(answering(here, db), set(&["two"]));
    a.selvedge.kill_worker();
    until_true("also for the next worker", SOON, || answering(here, db) == set(&["two"]));
    assert_eq!(address(here, "db", "A"), Some(db));
}

#[test]
fn each_tenant_has_its_own() {
    let lab = Lab::with_selvedge(&["--policy", "tenant"]);
    let docker = lab.selvedge.docker();
    let of = |tenant: &'static str| format!("selvedge.tenant={tenant}");
    let (shop, bank) = (of("shop"), of("bank"));
    instance(&docker, "shops", &["-l", &shop, "-l", "selvedge.vip=db:5432"], 0);
    instance(&docker, "banks", &["-l", &bank, "-l", "selvedge.vip=db:5432", "-l", "selvedge.allow=any"], 0);
    let buyer = client(&docker, "buyer", &["-l", &shop]);
    let teller = client(&docker, "teller", &["-l", &bank]);
    let guest = client(&docker, "guest", &["-l", "selvedge.tenant=guest"]);
    let theirs = until("the shop has one", SOON, || address(buyer, "db", "A"));
    let others = until("the bank has another", SOON, || address(teller, "db", "A"));
    assert_ne!(theirs, others);
    assert_eq!(answering(buyer, theirs), set(&["shops"]));
    assert_eq!(answering(teller, others), set(&["banks"]));
    assert_eq!(
        buyer.dig(&format!("db.vip.{DOMAIN}")).1,
        [theirs.to_string()],
        "nobody else's, though it may call it"
    );
    assert_eq!(guest.dig(&format!("db.vip.{DOMAIN}")).1, [others.to_string()], "the one that it may call");
    assert!(called(guest, theirs).unwrap_err().contains("refused"));
    assert_eq!(called(guest, others).as_deref(), Ok("banks"));
}

/// Calls at a steady rate until told to stop; gives how many calls there were, by what came of them.
fn load(place: Place, to: SocketAddr, (pause, stop): (Duration, &AtomicBool)) -> BTreeMap<String, u64> {
    place.within(|| {
        let mut outcomes = BTreeMap::new();
        let mut due = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            let outcome = call(to).unwrap_or_else(|error| format!("FAILED {error}"));
            *outcomes.entry(outcome).or_insert(0) += 1;
            due += pause;
            let now = Instant::now();
            match due.checked_duration_since(now) {
                Some(rest) => std::thread::sleep(rest),
                None => due = now,
            }
        }
        outcomes
    })
}

/// Puts a new instance in the place of an old one, as a scheduler does; each time it is ended by another way.
fn replace(member: &Member, nth: usize) {
    let docker = member.selvedge.docker();
    let (old, new) = (format!("old-{nth}"), format!("new-{nth}"));
    // Listens late; no HEALTHCHECK says so.
    instance(&docker, &new, &["-l", "selvedge.vip=db:5432"], 400);
    until_true("the new one serves", SOON, || serves(&member.selvedge, &new));
    match nth {
        0 | 1 => _ = docker.run(&["stop", "-t", "10", &old]).ok(),
        2 => _ = docker.run(&["kill", "-s", "TERM", &old]).ok(),
        _ => {
            // In the middle of it the worker is killed.
            let mut stopping = docker.spawn(&["stop", "-t", "10", &old]);
            std::thread::sleep(Duration::from_millis(60));
            member.selvedge.kill_worker();
            assert!(stopping.wait().expect("it ends").success(), "also if the worker dies");
        }
    }
}

#[test]
fn a_rolling_replacement_under_load_is_noticed_by_nobody() {
    const THREADS: u32 = 16;
    const RATE: u32 = 2400;
    let fleet = Fleet::new(&Plan { hosts: 2, store: Some(StoreKind::Zookeeper), ..Plan::default() });
    let dockers: Vec<Docker> = fleet.members.iter().map(|member| member.selvedge.docker()).collect();
    let vip = ["-l", "selvedge.vip=db:5432"];
    for generation in 0..4 {
        instance(&dockers[generation % 2], &format!("old-{generation}"), &vip, 0);
    }
    let clients: Vec<Place> =
        (0..4).map(|nth| client(&dockers[nth % 2], &format!("client-{nth}"), &[])).collect();
    let all: Vec<String> = (0..4).map(|nth| format!("old-{nth}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let vip_address = until("it has a name", SOON, || address(clients[0], "db", "A"));
    for place in &clients {
        until_true("all four stand behind it", SOON, || answering(*place, vip_address) == set(&all));
    }
    let stop = AtomicBool::new(false);
    let pause = Duration::from_secs(1) * THREADS / RATE;
    let began = Instant::now();
    let outcomes = std::thread::scope(|scope| {
        let to = SocketAddr::new(vip_address, PORT);
        let threads: Vec<_> = (0..THREADS as usize)
            .map(|nth| (clients[nth % clients.len()], &stop))
            .map(|(place, stop)| scope.spawn(move || load(place, to, (pause, stop))))
            .collect();
        (0..4).for_each(|nth| replace(&fleet.members[nth % 2], nth));
        std::thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::Relaxed);
        let mut all = BTreeMap::new();
        for thread in threads {
            thread
                .join()
                .expect("a client")
                .into_iter()
                .for_each(|(who, n)| *all.entry(who).or_insert(0) += n);
        }
        all
    });
    let calls: u64 = outcomes.values().sum();
    let rate = calls as f64 / began.elapsed().as_secs_f64();
    println!("{calls} connections, {rate:.0} a second (asked for: {RATE}): {outcomes:?}");
    let failed: Vec<_> = outcomes.iter().filter(|(outcome, _)| outcome.starts_with("FAILED")).collect();
    assert!(failed.is_empty(), "{failed:?} of {calls}");
    for nth in 0..4 {
        assert!(outcomes.contains_key(&format!("new-{nth}")), "new-{nth} was called: {outcomes:?}");
    }
}

#[test]
fn a_stop_waits_for_the_word_of_each_host_and_not_for_one_that_says_nothing() {
    let fleet = Fleet::new(&Plan { hosts: 2, store: Some(StoreKind::Zookeeper), ..Plan::default() });
    let [here, there] = &fleet.members[..] else { panic!("two hosts") };
    let docker = here.selvedge.docker();
    let vip = ["-l", "selvedge.vip=db:5432"];
    for name in ["one", "two", "three"] {
        instance(&docker, name, &vip, 0);
    }
    let caller = client(&there.selvedge.docker(), "caller", &[]);
    let to = until("it has a name", SOON, || address(caller, "db", "A"));
    until_true("all stand behind it", SOON, || answering(caller, to) == set(&["one", "two", "three"]));
    let stop = |name: &str| timed(|| docker.run(&["stop", name]).ok().to_owned()).1;
    // A busy machine's log names the host for other reasons, too.
    let is_told = |line: &&str| line.contains("does not say") && line.contains("host=h2");
    let silent = || here.selvedge.log().lines().filter(is_told).count();

    fleet.cut_from_store(1);
    let took = stop("one");
    assert_eq!(answering(caller, to), set(&["two", "three"]), "the registry's news did not come");
    println!("a stop took {took:?} with a host that has no news");
    assert!(took < Duration::from_secs(2) && silent() == 0, "it was waited for: {took:?}");
    fleet.heal();

    let worker = i32::try_from(there.selvedge.worker()).expect("a pid");
    kill(Pid::from_raw(worker), Signal::SIGSTOP).expect("it lives");
    let took = stop("two");
    assert!(took > Duration::from_secs(2) && took < Duration::from_secs(5), "{took:?}");
    assert_eq!(silent(), 1, "and one line says which host: {}", here.selvedge.log());
    until_true("it is back", SOON, || there.selvedge.ask(&["status"]).code == 0);

    fleet.cut(0, 1);
    let took = stop("three");
    println!("a stop took {took:?} with a host that is cut off");
    assert!(took < Duration::from_secs(3) && silent() >= 1, "{took:?}");
}

#[test]
fn kills_and_upgrades_of_the_worker_are_noticed_by_no_connection() {
    let lab = Lab::with_selvedge(&["--policy", "tenant"]);
    let docker = lab.selvedge.docker();
    let vip = ["-l", "selvedge.vip=db:5432"];
    instance(&docker, "one", &vip, 0);
    instance(&docker, "two", &vip, 0);
    let caller = client(&docker, "caller", &[]);
    let to = until("it has a name", SOON, || address(caller, "db", "A"));
    until_true("both stand behind it", SOON, || answering(caller, to) == set(&["one", "two"]));
    let stop = AtomicBool::new(false);
    let outcomes = std::thread::scope(|scope| {
        let calls =
            scope.spawn(|| load(caller, SocketAddr::new(to, PORT), (Duration::from_millis(2), &stop)));
        for round in 0..9 {
            match round % 3 {
                0 => assert_eq!(lab.selvedge.ask(&["upgrade"]).code, 0),
                _ => lab.selvedge.kill_worker(),
            }
            until_true("the next worker serves", SOON, || lab.selvedge.shown("two").is_some());
            assert_eq!(address(caller, "db", "A"), Some(to), "and the name is answered");
        }
        stop.store(true, Ordering::Relaxed);
        calls.join().expect("a client")
    });
    let failed: Vec<_> = outcomes.iter().filter(|(outcome, _)| outcome.starts_with("FAILED")).collect();
    assert!(failed.is_empty() && outcomes.len() == 2, "{outcomes:?}");
}

/// Whether the container's own host leads connections to it.
fn serves(selvedge: &Selvedge, name: &str) -> bool {
    let Some(address) = selvedge.shown(name).and_then(|shown| Some(shown["address"].as_str()?.to_owned()))
    else {
        return false;
    };
    selvedge.status()["vips"].to_string().contains(&format!("\"{address}:{PORT}\""))
}

#[test]
fn what_cannot_be_had_is_told_at_create() {
    let lab = Lab::with_selvedge(&["--vip-range", "10.46.0.0/16", "--dns-style", "mesos"]);
    let docker = lab.selvedge.docker();
    for (options, expected) in [
        (&["-l", "selvedge.vip=db"][..], "must be like db:5432"),
        (&["-l", "selvedge.vip=a:1 db:5432,remote"], "column 5"),
        (&["-l", "selvedge.vip=10.46.0.9:80"], "its address is chosen by Selvedge"),
        (&["-e", "MARATHON_APP_LABEL_VIP_0=/db"], "MARATHON_APP_LABEL_VIP_0"),
        (&["--network", "host", "-l", "selvedge.vip=db:1"], "gets no wire"),
        (&["-l", "selvedge.ip=10.46.0.9"], "is for virtual addresses"),
    ] {
        let output = docker.run(&[&["create"][..], options, &["busybox", "true"]].concat());
        assert!(output.code == 1 && output.stderr.contains(expected), "{options:?}: {}", output.stderr);
    }
    instance(
        &docker,
        "app",
        &["-e", "MARATHON_APP_LABEL_VIP_0=/db:80", "-e", "PORT0=31005", "-e", "PORT_5432=31005"],
        0,
    );
    let host = Place { pid: lab.selvedge.keeper() };
    let to = until("Marathon's label counts", SOON, || address(host, "db", "A"));
    assert!(to.to_string().starts_with("10.46."), "{to}");
    assert_eq!(host.within(|| call((to, 80).into())).as_deref(), Ok("app"));
    assert_eq!(host.dig("db.marathon.l4lb.thisdcos.directory").1, [to.to_string()], "as DC/OS calls it");
    docker.run(&["kill", "-s", "KILL", "app"]).ok();
    until_true("it is gone", SOON, || address(host, "db", "A").is_none());
}

#[test]
fn whoever_wants_none_any_more_keeps_nothing_of_them() {
    let lab = Lab::with_selvedge(&["--pool6", "fd53:1::/96"]);
    instance(&lab.selvedge.docker(), "one", &["-l", "selvedge.vip=db:5432"], 0);
    let left = || {
        let tables = lab.host.sh("nft list tables").stdout;
        let tables = tables.lines().filter(|table| table.contains("selvedge_vip")).count();
        let routes = lab.host.sh("ip route show proto 83 dev lo; ip -6 route show proto 83 dev lo").stdout;
        (tables, routes.lines().count())
    };
    until_true("there is one", SOON, || left() == (1, 2));
    lab.selvedge.end(Signal::SIGTERM);
    assert_eq!(left(), (1, 2), "whoever comes next goes on with it");
    let next =
        Selvedge::prepare(&lab.host, &lab.engine.socket, &["--vip-range", "none", "--pool6", "fd53:1::/96"]);
    next.start_again();
    until_true("nothing is left of it", SOON, || left() == (0, 0));
    assert!(next.shown("one").is_some());
}
