//! Apps as their users find them: several instances behind one name, their ports, their health, and the one that must be
//! alone; judged by dig, with real HEALTHCHECKs of a real engine.

use std::time::Duration;

use selvedge_tests::Lab;
use selvedge_tests::fleet::{Fleet, Plan, StoreKind};
use selvedge_tests::reach::Place;
use selvedge_tests::upstream::Upstream;
use selvedge_tests::wait::until_true;

const SOON: Duration = Duration::from_secs(5);

fn addresses(lab: &Lab, name: &str) -> Vec<String> {
    lab.host.resolve(name)
}

#[test]
fn an_instance_that_is_not_healthy_is_left_out_while_another_is() {
    let lab = Lab::new();
    let docker = lab.selvedge.docker();
    let check = ["--health-cmd", "test -e /ok", "--health-interval", "200ms", "--health-retries", "1"];
    let run = |name: &str, script: &str| {
        let options = ["--name", name, "-l", "selvedge.name=web"];
        docker.start(&[&options[..], &check, &["busybox", "sh", "-c", script]].concat());
        docker.address(name)
    };
    let well = run("well", "touch /ok; sleep 1d");
    until_true("it is healthy", SOON, || {
        lab.selvedge.shown("well").is_some_and(|one| one["healthy"] == true)
    });
    let ill = run("ill", "sleep 1d");
    assert_eq!(
        addresses(&lab, "web"),
        std::slice::from_ref(&well),
        "one that is starting is not healthy yet"
    );
    docker.run(&["exec", "ill", "touch", "/ok"]).ok();
    let mut both = vec![well.clone(), ill.clone()];
    both.sort();
    until_true("it has recovered", SOON, || addresses(&lab, "web") == both);
    docker.run(&["exec", "well", "rm", "/ok"]).ok();
    until_true("the other one has fallen ill", SOON, || addresses(&lab, "web") == [ill.clone()]);
    docker.run(&["exec", "ill", "rm", "/ok"]).ok();
    until_true("both are ill: better than nothing", SOON, || addresses(&lab, "web") == both);
    lab.selvedge.kill_worker();
    until_true("the next worker serves", SOON, || lab.selvedge.shown("well").is_some());
    assert_eq!(addresses(&lab, "web"), both);
    docker.run(&["exec", "well", "touch", "/ok"]).ok();
    until_true("the next worker hears of it too", SOON, || addresses(&lab, "web") == [well.clone()]);
}

#[test]
fn who_is_paused_is_asked_last() {
    let lab = Lab::new();
    let docker = lab.selvedge.docker();
    for name in ["one", "two"] {
        docker.start(&["--name", name, "-l", "selvedge.name=web", "busybox", "sleep", "1d"]);
    }
    let [one, two] = ["one", "two"].map(|name| docker.address(name));
    docker.run(&["pause", "one"]).ok();
    until_true("the other one is answered", SOON, || addresses(&lab, "web") == [two.clone()]);
    lab.selvedge.kill_worker();
    until_true("also by the next worker", SOON, || addresses(&lab, "web") == [two.clone()]);
    docker.run(&["unpause", "one"]).ok();
    let mut both = vec![one, two];
    both.sort();
    until_true("it goes on", SOON, || addresses(&lab, "web") == both);
}

#[test]
fn of_an_exclusive_app_only_the_newest_is_answered_on_every_host() {
    let fleet = Fleet::new(&Plan { hosts: 2, store: Some(StoreKind::Etcd), ..Plan::default() });
    let [a, b] = &fleet.members[..] else { panic!("two hosts") };
    let options = ["-l", "selvedge.name=db", "-l", "selvedge.exclusive=true", "busybox", "sleep", "1d"];
    let first = a.run("db-1", &options);
    until_true("b knows it", SOON, || b.host.resolve("db") == [first.clone()]);
    let second = b.run("db-2", &options);
    let both_say = |address: &String| [a, b].iter().all(|one| one.host.resolve("db") == [address.clone()]);
    until_true("both say the newer one", SOON, || both_say(&second));
    for member in [a, b] {
        let status = member.selvedge.ask(&["status"]).stdout;
        assert!(
            status.contains("db.selvedge.internal") && status.contains("exclusive"),
            "a warning:\n{status}"
        );
    }
    a.selvedge.kill_worker();
    b.selvedge.kill_worker();
    for _ in 0..20 {
        assert!([a, b].iter().all(|one| one.host.resolve("db") == [second.clone()]), "also after a kill");
    }
    b.selvedge.docker().remove(&["db-2"]);
    until_true("the older one is back", SOON, || both_say(&first));
    a.selvedge.docker().run(&["restart", "-t", "0", "db-1"]).ok();
    until_true("and stays", SOON, || both_say(&first));
    assert!(!a.selvedge.ask(&["status"]).stdout.contains("exclusive"), "no warning any more");
}

#[test]
fn ports_are_found_by_their_names() {
    let lab = Lab::new();
    let docker = lab.selvedge.docker();
    let host = Place { pid: lab.selvedge.keeper() };
    let srv = |question: &str| host.dig(&format!("{question} SRV"));
    let domain = "selvedge.internal";
    docker.start(&["--name", "web", "-l", "selvedge.port.http=8080/tcp", "busybox", "sleep", "1d"]);
    let web = docker.address("web");
    let target = format!("{}.web.{domain}.", web.replace('.', "-"));
    assert_eq!(
        srv(&format!("_http._tcp.web.{domain}")),
        ("NOERROR".into(), vec![format!("0 0 8080 {target}")])
    );
    assert_eq!(host.dig(&target), ("NOERROR".into(), vec![web]));
    assert_eq!(srv(&format!("_https._tcp.web.{domain}")).0, "NXDOMAIN");
    assert_eq!(srv(&format!("_http._udp.web.{domain}")).0, "NXDOMAIN");
    // What the image exposes, by its number.
    docker.start(&["--name", "exposed", "--expose", "53/udp", "busybox", "sleep", "1d"]);
    assert!(srv(&format!("_53._udp.exposed.{domain}")).1[0].starts_with("0 0 53 "));
    // Two instances of an app of Marathon, with its variables.
    let app = ["-e", "MARATHON_APP_ID=/shop/db", "-e", "PORT_8080=31005", "-e", "PORT_HTTP=31005"];
    for name in ["db-1", "db-2"] {
        docker.start(&[&["--name", name][..], &app, &["busybox", "sleep", "1d"]].concat());
    }
    let (status, answers) = srv(&format!("_http._tcp.db.shop.{domain}"));
    assert_eq!((status.as_str(), answers.len()), ("NOERROR", 2), "{answers:?}");
    assert!(answers.iter().all(|answer| answer.contains(" 8080 ")), "{answers:?}");
}

#[test]
fn clients_of_mesos_dns_are_moved_without_a_change() {
    let options = ["--dns-style", "mesos", "--policy", "tenant"].map(str::to_owned).to_vec();
    let plan = Plan { hosts: 2, store: Some(StoreKind::Etcd), options, ..Plan::default() };
    let fleet = Fleet::new(&plan);
    let [a, b] = &fleet.members[..] else { panic!("two hosts") };
    // What Mesos-DNS knows besides: a container asks it, and a host does not.
    let _mesos_dns = Upstream::start(&a.host, "192.0.2.53", "mesos", ("leader.mesos", "192.0.2.9"));
    let app = ["-e", "MARATHON_APP_ID=/shop/db", "-e", "PORT_8080=31005", "-e", "PORT_HTTP=31005"];
    let sleeper = ["busybox", "sleep", "1d"];
    let mut addresses = [a, b].map(|member| member.run("db", &[&app[..], &sleeper].concat()));
    addresses.sort();
    let client = |name: &str, app: &str| {
        let app = format!("MARATHON_APP_ID={app}");
        a.run(name, &[&["-e", &app, "--dns", "192.0.2.53"][..], &sleeper].concat());
        Place::of(&a.selvedge.docker(), name)
    };
    let (own, foreign) = (client("own", "/shop/web"), client("foreign", "/bank/web"));
    until_true("both instances are known", SOON, || own.dig("db-shop.marathon.mesos").1 == addresses);
    let srv = |question: &str| own.dig(&format!("{question} SRV"));
    for (question, count) in [
        ("_db-shop._tcp.marathon.mesos", 2),
        ("_http._db-shop._tcp.marathon.mesos", 2),
        ("_https._db-shop._tcp.marathon.mesos", 0),
    ] {
        let (_, answers) = srv(question);
        assert_eq!(answers.len(), count, "{question}: {answers:?}");
        assert!(answers.iter().all(|answer| answer.starts_with("0 0 8080 ")), "{question}: {answers:?}");
    }
    let hosts = vec![a.address.clone(), b.address.clone()];
    assert_eq!(own.dig("db-shop.marathon.slave.mesos"), ("NOERROR".into(), hosts));
    assert_eq!(own.dig("db-shop.marathon.slave.mesos AAAA"), ("NOERROR".into(), vec![]));
    assert_eq!(own.dig("leader.mesos").1, ["192.0.2.9"], "what we do not know is asked elsewhere");
    for unknown in ["no-such.marathon.mesos", "marathon.slave.mesos"] {
        assert_eq!(own.dig(unknown).0, "NXDOMAIN", "{unknown}: Mesos-DNS says so");
    }
    for hidden in
        ["db-shop.marathon.mesos", "db-shop.marathon.slave.mesos", "_db-shop._tcp.marathon.mesos SRV"]
    {
        assert_eq!(foreign.dig(hidden), ("NXDOMAIN".into(), vec![]), "{hidden}");
    }
    a.selvedge.kill_worker();
    assert_eq!(
        own.dig("db-shop.marathon.slave.mesos").1.len(),
        2,
        "the next worker knows them from the start"
    );
}
