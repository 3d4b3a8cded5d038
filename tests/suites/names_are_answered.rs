//! DNS at 169.254.1.1, judged by dig on the host, and by the libc inside containers.

use std::time::Duration;

use selvedge_tests::Lab;
use selvedge_tests::docker::Docker;
use selvedge_tests::upstream::Upstream;
use selvedge_tests::wait::until_true;

fn dig(lab: &Lab, question: &str) -> String {
    lab.host.dig(question)
}

fn short(lab: &Lab, question: &str) -> Vec<String> {
    let mut lines: Vec<String> = dig(lab, &format!("+short {question}")).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn sleeper(docker: &Docker, name: &str, options: &[&str]) {
    docker.start(&[&["--name", name], options, &["busybox", "sleep", "1000"]].concat());
}

#[test]
fn a_running_container_has_an_address_and_a_reverse_name_and_an_ended_one_none() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    sleeper(&docker, "dns-life", &[]);
    let address = docker.address("dns-life");
    assert_eq!(short(lab, "dns-life.selvedge.internal"), [address.as_str()]);
    assert_eq!(short(lab, &format!("-x {address}")), ["dns-life.selvedge.internal."]);
    docker.run(&["kill", "dns-life"]).ok();
    until_true("the name is gone", Duration::from_secs(2), || lab.host.resolve("dns-life").is_empty());
    let gone = dig(lab, "dns-life.selvedge.internal");
    assert!(gone.contains("status: NXDOMAIN") && gone.contains("SOA"), "{gone}");
    docker.remove(&["dns-life"]);
}

#[test]
fn every_source_of_names_is_answered() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    let options = [
        "--label",
        "selvedge.name=primary,second.sub",
        "-e",
        "MARATHON_APP_ID=/shop/db",
        "--label",
        "com.docker.compose.service=web_1",
        "--hostname",
        "box",
    ];
    sleeper(&docker, "dns-sources", &options);
    let address = docker.address("dns-sources");
    for name in ["primary", "second.sub", "db.shop", "box", "dns-sources"] {
        assert_eq!(short(lab, &format!("{name}.selvedge.internal")), [address.as_str()], "{name}");
    }
    assert_eq!(short(lab, &format!("-x {address}")), ["primary.selvedge.internal."]);
    let between = dig(lab, "shop.selvedge.internal");
    assert!(between.contains("status: NOERROR") && between.contains("ANSWER: 0"), "{between}");
    docker.remove(&["dns-sources"]);
}

#[test]
fn a_rename_is_followed() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    sleeper(&docker, "dns-old", &[]);
    let address = docker.address("dns-old");
    docker.run(&["rename", "dns-old", "dns-new"]).ok();
    until_true("the new name", Duration::from_secs(2), || {
        short(lab, "dns-new.selvedge.internal") == [address.as_str()]
    });
    assert!(lab.host.resolve("dns-old").is_empty());
    docker.remove(&["dns-new"]);
}

#[test]
fn case_does_not_matter_and_the_question_comes_back_as_it_was() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    sleeper(&docker, "dns-case", &[]);
    let answer = dig(lab, "DNS-Case.SelVedge.Internal +noall +answer +question");
    assert_eq!(answer.matches("DNS-Case.SelVedge.Internal.").count(), 2, "{answer}");
    docker.remove(&["dns-case"]);
}

#[test]
fn what_is_not_there_is_told_apart() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    sleeper(&docker, "dns-nodata", &[]);
    let nodata = dig(lab, "dns-nodata.selvedge.internal AAAA");
    assert!(
        nodata.contains("status: NOERROR") && nodata.contains("ANSWER: 0") && nodata.contains("SOA"),
        "{nodata}"
    );
    let missing = dig(lab, "no-such.selvedge.internal");
    assert!(
        missing.contains("status: NXDOMAIN") && missing.contains("aa") && missing.contains("SOA"),
        "{missing}"
    );
    assert!(dig(lab, "selvedge.internal SOA").contains("ANSWER: 1"));
    assert!(dig(lab, "selvedge.internal NS").contains("ANSWER: 1"));
    // An address of the pool that nobody has is not asked of the world.
    assert!(dig(lab, "-x 10.47.200.200").contains("status: NXDOMAIN"));
    docker.remove(&["dns-nodata"]);
}

#[test]
fn many_addresses_are_shuffled_cut_and_whole_by_tcp() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    let names: Vec<String> = (0..40).map(|number| format!("dns-many-{number}")).collect();
    for name in &names {
        sleeper(&docker, name, &["--network", "none", "--label", "selvedge.name=many"]);
    }
    let question = "many.selvedge.internal";
    assert_eq!(short(lab, &format!("+tcp {question}")).len(), 40);
    assert!(
        dig(lab, &format!("+noedns +ignore {question}")).contains("tc"),
        "512 bytes hold no 40 addresses"
    );
    assert_eq!(short(lab, question).len(), 40, "dig asks again by TCP");
    let first = || dig(lab, &format!("+tcp +short {question}")).lines().next().map(str::to_owned);
    let firsts: std::collections::HashSet<_> = (0..20).map(|_| first()).collect();
    assert!(firsts.len() > 1, "always the same first: {firsts:?}");
    docker.remove(&names.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn the_libc_inside_a_container_judges_the_same() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    sleeper(&docker, "dns-libc", &[]);
    let address = docker.address("dns-libc");
    for name in ["dns-libc.selvedge.internal", "dns-libc"] {
        let out = docker.run(&["run", "--rm", "busybox", "ping", "-c", "1", "-W", "2", name]);
        assert!(out.ok().contains(&format!("({address})")), "{name}: {}", out.stdout);
    }
    docker.remove(&["dns-libc"]);
}

#[test]
fn a_containers_own_servers_are_asked_for_all_else() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    let _first = Upstream::start(&lab.host, "192.0.2.53", "local", ("only-first.example", "192.0.2.1"));
    let _second = Upstream::start(&lab.host, "192.0.2.54", "local", ("only-second.example", "192.0.2.2"));
    for (server, name, address) in [
        ("192.0.2.53", "only-first.example", "192.0.2.1"),
        ("192.0.2.54", "only-second.example", "192.0.2.2"),
    ] {
        let out = docker.run(&["run", "--rm", "--dns", server, "busybox", "nslookup", name]);
        // Of AAAA this dnsmasq says REFUSED, and nslookup fails for that: the A record counts.
        assert!(out.stdout.contains(&format!("Address: {address}")), "{}{}", out.stdout, out.stderr);
    }
    let other =
        docker.run(&["run", "--rm", "--dns", "192.0.2.53", "busybox", "nslookup", "only-second.example"]);
    assert!(!other.stdout.contains("192.0.2.2\n"), "a cache was shared between servers: {}", other.stdout);
    let inspect = docker.run(&["create", "--name", "dns-own", "--dns", "192.0.2.53", "busybox", "true"]);
    inspect.ok();
    assert_eq!(docker.inspect("dns-own")["HostConfig"]["Dns"][0], "192.0.2.53");
    docker.remove(&["dns-own"]);
}

/// The same line of `docker run` options past us and through us.
fn both(lab: &Lab, options: &str, line: &str) -> [String; 2] {
    [lab.engine.docker(), lab.selvedge.docker()].map(|docker| {
        let words: Vec<&str> = options.split_whitespace().collect();
        let out = docker.run(&[&["run", "--rm"], &words[..], &["busybox", "sh", "-c", line]].concat());
        format!("{}{}", out.stdout, out.stderr)
    })
}

#[test]
fn the_users_own_hostname_stays_the_canonical_one() {
    let lab = Lab::shared();
    for options in [
        "--hostname mail.example.org",
        "--hostname MAIL.Example.org",
        "--hostname box",
        "--hostname BOX",
        "--hostname box --domainname example.org",
        "--hostname box.example.org --add-host box.example.org:192.0.2.7",
        "--hostname box --add-host box:192.0.2.7 --add-host box.selvedge.internal:192.0.2.8",
    ] {
        let [direct, through] = both(lab, options, "hostname; hostname -f; hostname -s; hostname -d");
        assert_eq!(direct, through, "{options}");
        // What they wrote is there, in the same order; the last line is the container's own.
        let theirs = "grep -v -e ^172 -e ^10.32 /etc/hosts";
        let [direct, through] = both(lab, options, theirs);
        assert_eq!(direct, through, "{options}");
        assert!(direct.contains("localhost"), "{direct}");
    }
    let own = lab.selvedge.docker().run(&[
        "run",
        "--rm",
        "--name",
        "canon",
        "--hostname",
        "mail.example.org",
        "busybox",
        "tail",
        "-n",
        "1",
        "/etc/hosts",
    ]);
    assert!(
        own.ok().ends_with(
            "\tmail.example.org mail mail.example.org.selvedge.internal canon.selvedge.internal canon"
        ),
        "{own:?}"
    );
}

#[test]
fn what_the_user_says_about_resolv_conf_stays() {
    let lab = Lab::shared();
    let own = lab.host.path("own-resolv.conf");
    std::fs::write(&own, "nameserver 192.0.2.77\nsearch mine.example\n").expect("a file can be made");
    let mount = format!("-v {}:/etc/resolv.conf", own.display());
    for options in [
        "--dns-search . --dns 127.0.0.1",
        "--dns 127.0.0.1 --dns 192.0.2.9 --dns-option ndots:4 --dns-search a.example --dns-search b.example",
        "--dns-option timeout:1 --dns-option attempts:3 --dns ::1",
        &mount,
    ] {
        let [direct, through] = both(lab, options, "grep -v ^# /etc/resolv.conf");
        assert_eq!(direct, through, "{options}");
        assert!(!direct.is_empty());
    }
    let said = |options| both(lab, options, "cat /etc/resolv.conf")[1].clone();
    let without = said("--dns-search .");
    assert!(
        !without.lines().any(|line| line.starts_with("search") && line.contains("selvedge")),
        "{without}"
    );
    let with = said("--dns-search b.example --dns-option ndots:4");
    assert!(with.contains("search b.example\n") && with.contains("options ndots:4\n"), "{with}");
}

#[test]
fn the_engines_own_dns_settings_count_as_without_us() {
    let lab =
        Lab::with_engine(&["--dns", "192.0.2.53", "--dns-search", "corp.example", "--dns-opt", "ndots:3"]);
    let _corp = Upstream::start(&lab.host, "192.0.2.53", "local", ("wiki.corp.example", "192.0.2.1"));
    let [direct, through] = both(&lab, "", "grep -v -e ^# -e ^nameserver /etc/resolv.conf");
    assert_eq!(through, direct.replace("search corp.example", "search selvedge.internal corp.example"));
    let found = lab.selvedge.docker().run(&["run", "--rm", "busybox", "ping", "-c", "1", "-W", "1", "wiki"]);
    assert!(found.stdout.contains("(192.0.2.1)"), "by the engine's server and search list: {found:?}");
}

#[test]
fn dns_upstream_is_asked_instead_of_the_hosts_servers_and_a_name_of_one_label_too() {
    let lab = Lab::with_selvedge(&["--dns-upstream", "192.0.2.54:53"]);
    let _lan = Upstream::start(&lab.host, "192.0.2.54", "local", ("printer", "192.0.2.2"));
    assert_eq!(short(&lab, "printer"), ["192.0.2.2"]);
    let found =
        lab.selvedge.docker().run(&["run", "--rm", "busybox", "ping", "-c", "1", "-W", "1", "printer"]);
    assert!(found.stdout.contains("(192.0.2.2)"), "{found:?}");
    let wrong = lab.selvedge.ask(&["check", "--dns-upstream", "resolver.example"]);
    assert_eq!(wrong.code, 2, "{wrong:?}");
    assert!(wrong.stderr.contains("--dns-upstream \"resolver.example\": must be an IP address"), "{wrong:?}");
}
