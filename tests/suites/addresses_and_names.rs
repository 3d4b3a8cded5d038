//! Every container has an address and a name of its own, from its first instruction on.

use std::collections::HashSet;
use std::process::Stdio;
use std::time::Duration;

use selvedge_tests::Lab;
use selvedge_tests::docker::Docker;
use selvedge_tests::host::Host;
use selvedge_tests::wait::until_true;

const PATIENCE: Duration = Duration::from_secs(20);

// No `wget -T`: it crashes in Debian 12's static busybox.

fn server(docker: &Docker, name: &str, options: &[&str]) -> String {
    let httpd = ["busybox", "httpd", "-f", "-h", "/etc"];
    docker.start(&[&["--name", name], options, &httpd].concat());
    docker.address(name)
}

fn interfaces(docker: &Docker, options: &[&str]) -> String {
    let show = ["busybox", "ip", "-o", "-4", "addr"];
    docker.run(&[&["run", "--rm"], options, &show].concat()).ok().to_owned()
}

#[test]
fn two_containers_find_each_other_by_name_in_both_directions() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    let modes = ["default", "bridge", "none"];
    let names = modes.map(|mode| format!("pair-{mode}"));
    for (mode, name) in modes.iter().zip(&names) {
        let address = server(&docker, name, &["--network", mode]);
        assert!(address.starts_with("10.32.0."), "{mode}: {address}");
    }
    for from in &names {
        for to in &names {
            for place in [format!("{to}.selvedge.internal"), to.clone(), docker.address(to)] {
                let url = format!("http://{place}/hostname");
                let out = docker.run(&["exec", from, "wget", "-qO-", &url]);
                assert_eq!(out.stdout.trim(), to, "from {from} to {place}: {}", out.stderr);
            }
        }
    }
    docker.remove(&names.each_ref().map(String::as_str));
}

#[test]
fn wire_name_and_hosts_are_there_at_the_first_instruction() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    // The last line is what is expected of the others.
    let look = "nslookup $(hostname).selvedge.internal | awk '/^Address/ {a=$NF} END {print a}'; \
                hostname -i; \
                awk -v h=$(hostname).selvedge.internal '$2 == h || $3 == h || $4 == h {print $1}' /etc/hosts; \
                ping -c 1 -W 10 169.254.1.1 >/dev/null && \
                ip -o -4 addr show dev selvedge0 | awk '{sub(\"/32\",\"\",$4); print $4}'";
    for mode in ["default", "bridge", "none"] {
        for _ in 0..5 {
            let name = format!("first-{mode}");
            let run = [
                "run",
                "--rm",
                "--name",
                &name,
                "--hostname",
                &name,
                "--network",
                mode,
                "busybox",
                "sh",
                "-c",
            ];
            let out = docker.run(&[&run[..], &[look]].concat());
            let lines: Vec<&str> = out.ok().lines().collect();
            assert_eq!(lines.len(), 4, "{mode}: {lines:?}");
            assert!(lines[3].starts_with("10.32."), "{mode}: {lines:?}");
            assert!(lines.iter().all(|line| *line == lines[3]), "{mode}: {lines:?}");
        }
    }
}

#[test]
fn those_who_do_not_want_one_get_none() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    for options in [
        &["--network", "host"][..],
        &["--label", "selvedge.network=none"],
        &["-e", "WEAVE_CIDR=none"],
        &["--network", "none", "--label", "selvedge.network=none"],
    ] {
        let create = [&["create", "--name", "unwilling"], options, &["busybox", "sleep", "1000"]];
        docker.run(&create.concat()).ok();
        docker.run(&["start", "unwilling"]).ok();
        assert!(!docker.address("unwilling").starts_with("10.32."), "{options:?}");
        assert!(lab.host.resolve("unwilling").is_empty(), "{options:?}");
        assert!(lab.selvedge.shown("unwilling").is_none(), "{options:?}");
        let inside = docker.run(&["exec", "unwilling", "ip", "link", "show", "selvedge0"]);
        assert_ne!(inside.code, 0, "{options:?}: {}", inside.stdout);
        // All else is as it would be without us.
        let raw = lab.engine.docker().inspect("unwilling");
        assert_eq!(raw["Path"], "sleep", "{options:?}");
        docker.remove(&["unwilling"]);
    }
}

#[test]
fn one_that_shares_anothers_network_has_that_ones_wire() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    let address = server(&docker, "shares", &[]);
    assert!(interfaces(&docker, &["--network", "container:shares"]).contains(&address));
    docker.start(&["--name", "sharer", "--network", "container:shares", "busybox", "sleep", "1000"]);
    assert!(lab.host.resolve("sharer").is_empty());
    docker.remove(&["sharer"]);
    assert!(lab.host.reaches(&address), "the other's end took the wire along");
    docker.remove(&["shares"]);
}

#[test]
fn a_network_of_the_users_is_left_alone_unless_asked_for() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    docker.run(&["network", "create", "own-net"]).ok();
    assert!(!interfaces(&docker, &["--network", "own-net"]).contains("selvedge0"));
    let wanted = ["--network", "own-net", "--label", "selvedge.network=default"];
    let address = server(&docker, "own-a", &wanted);
    server(&docker, "own-b", &wanted);
    let networks = docker.inspect("own-a")["NetworkSettings"]["Networks"].clone();
    assert_eq!(lab.host.resolve("own-a"), [networks["own-net"]["IPAddress"].as_str().unwrap_or(&address)]);
    // Docker's own DNS of that network, and ours behind it.
    for name in ["own-a", "own-a.selvedge.internal"] {
        let out = docker.run(&["exec", "own-b", "wget", "-qO-", &format!("http://{name}/hostname")]);
        assert_eq!(out.stdout.trim(), "own-a", "{name}: {}", out.stderr);
    }
    docker.remove(&["own-a", "own-b"]);
    docker.run(&["network", "rm", "own-net"]).ok();
}

#[test]
fn published_ports_work_as_without_us() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    server(&docker, "published", &["-p", "18080:80", "-p", "127.0.0.1:18081:80/tcp"]);
    for place in ["127.0.0.1:18080", "172.17.0.1:18080", "127.0.0.1:18081"] {
        let get = format!("busybox wget -qO- http://{place}/hostname");
        until_true(&format!("{place} answers"), PATIENCE, || lab.host.sh(&get).stdout.trim() == "published");
    }
    let port = docker.run(&["port", "published", "80/tcp"]);
    assert_eq!(port.ok().lines().filter(|line| line.ends_with(":18080")).count(), 2, "{}", port.stdout);
    docker.remove(&["published"]);
}

#[test]
fn the_way_out_to_the_world_works_as_without_us() {
    let lab = Lab::shared();
    let world = Host::new();
    let (host, outside) = (&lab.host.netns, &world.netns);
    let link = format!("ip link add up0 netns {host} type veth peer name up0 netns {outside}");
    selvedge_tests::shell::sh(&link).ok();
    lab.host.sh("ip addr add 198.51.100.1/24 dev up0 && ip link set up0 up").ok();
    world.sh("ip addr add 198.51.100.2/24 dev up0 && ip link set up0 up").ok();
    std::fs::write(world.path("page"), "the world\n").expect("a file can be made");
    let mut command = world.command("busybox");
    command.args(["httpd", "-f", "-p", "8000", "-h"]).arg(&world.dir).stdin(Stdio::null());
    let mut httpd = command.spawn().expect("busybox is installed");
    let get = "wget -qO- http://198.51.100.2:8000/page";
    until_true("the world answers", PATIENCE, || lab.host.sh(&format!("busybox {get}")).code == 0);
    let docker = lab.selvedge.docker();
    for mode in ["default", "bridge"] {
        let out = docker.run(&["run", "--rm", "--network", mode, "busybox", "sh", "-c", get]);
        assert_eq!(out.stdout, "the world\n", "{mode}: {}", out.stderr);
    }
    // Mode none has no way out, with us as without.
    let none = docker.run(&["run", "--rm", "--network", "none", "busybox", "sh", "-c", get]);
    assert_ne!(none.code, 0, "{}", none.stdout);
    lab.host.sh("ip link del up0").ok();
    let _ = httpd.kill();
    let _ = httpd.wait();
}

#[test]
fn a_fixed_address_is_given_at_start_and_an_unlawful_one_refused_at_create() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    let fixed = ["--label", "selvedge.ip=10.32.7.7"];
    assert_eq!(server(&docker, "fixed", &fixed), "10.32.7.7");
    assert_eq!(lab.host.resolve("fixed"), ["10.32.7.7"]);
    assert!(lab.host.reaches("10.32.7.7"));
    for (address, words) in [
        ("10.99.0.1", "10.99.0.1"),
        ("192.0.2.1", "192.0.2.1"),
        ("10.32.0.0", "10.32.0.0"),
        ("10.47.255.255", "10.47.255.255"),
    ] {
        let label = format!("selvedge.ip={address}");
        let out = docker.run(&["create", "--name", "fixed-refused", "--label", &label, "busybox", "true"]);
        assert_eq!(out.code, 1, "{address} was given");
        let told = "Error response from daemon: selvedge: ";
        assert!(out.stderr.contains(told) && out.stderr.contains(words), "{}", out.stderr);
        assert_ne!(docker.run(&["inspect", "fixed-refused"]).code, 0, "{address}: it was created");
    }
    let body = r#"{"Image":"busybox","Labels":{"selvedge.ip":"10.99.0.1"}}"#;
    let outside = selvedge_tests::http::post(&lab.socket(), "/containers/create", body).expect("an answer");
    assert_eq!(outside.status, 400, "{}", outside.text());
    // While it runs nobody else gets it, neither by choice nor by chance; then the next one may.
    docker
        .run(&[&["create", "--name", "fixed-again"], &fixed[..], &["busybox", "sleep", "1000"]].concat())
        .ok();
    let taken =
        selvedge_tests::http::post(&lab.socket(), "/containers/fixed-again/start", "").expect("an answer");
    assert_eq!(taken.status, 409, "{}", taken.text());
    docker.run(&["kill", "fixed"]).ok();
    docker.run(&["start", "fixed-again"]).ok();
    assert_eq!(docker.address("fixed-again"), "10.32.7.7");
    assert_eq!(docker.run(&["start", "fixed"]).code, 1);
    docker.remove(&["fixed", "fixed-again"]);
}

#[test]
fn an_address_is_kept_from_stop_to_start_and_rests_after_removal() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    let address = server(&docker, "keeps", &["--stop-signal", "KILL"]);
    for _ in 0..3 {
        docker.run(&["stop", "keeps"]).ok();
        docker.run(&["start", "keeps"]).ok();
        assert_eq!(docker.address("keeps"), address);
        assert_eq!(lab.host.resolve("keeps"), [address.as_str()]);
    }
    docker.remove(&["keeps"]);
    let next = server(&docker, "keeps", &[]);
    assert_ne!(next, address, "given again at once");
    docker.remove(&["keeps"]);
}

#[test]
fn sixteen_started_at_once_all_have_their_own() {
    let lab = Lab::shared();
    let names: Vec<String> = (0..16).map(|number| format!("burst-{number}")).collect();
    std::thread::scope(|scope| {
        for name in &names {
            let docker = lab.selvedge.docker();
            scope.spawn(move || server(&docker, name, &[]));
        }
    });
    let docker = lab.selvedge.docker();
    let addresses: HashSet<String> = names.iter().map(|name| docker.address(name)).collect();
    assert_eq!(addresses.len(), names.len());
    for name in &names {
        assert_eq!(lab.host.resolve(name), [docker.address(name)]);
        assert!(lab.host.reaches(&docker.address(name)));
    }
    docker.remove(&names.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn a_container_cannot_send_with_anothers_address() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    let victim = server(&docker, "spoofed", &[]);
    let peer = server(&docker, "spoof-peer", &[]);
    let try_it = format!(
        "ip addr add {victim}/32 dev selvedge0; ping -c 1 -W 1 {peer} >/dev/null && echo own; ping -c 1 -W 1 -I {victim} {peer} >/dev/null && echo spoofed; true"
    );
    let out = docker.run(&[
        "run",
        "--rm",
        "--cap-add",
        "NET_ADMIN",
        "--cap-add",
        "NET_RAW",
        "busybox",
        "sh",
        "-c",
        &try_it,
    ]);
    assert_eq!(out.ok(), "own", "{}", out.stderr);
    docker.remove(&["spoofed", "spoof-peer"]);
}

#[test]
fn what_the_user_says_about_names_stays() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    let options = [
        "--hostname",
        "box.example.org",
        "--add-host",
        "other:192.0.2.9",
        "--dns-search",
        "example.org",
        "--dns-opt",
        "ndots:3",
    ];
    let show = ["busybox", "sh", "-c", "hostname; cat /etc/hosts /etc/resolv.conf"];
    let out = docker.run(&[&["run", "--rm", "--name", "says"], &options[..], &show].concat());
    let text = out.ok();
    assert!(text.starts_with("box.example.org\n"), "{text}");
    assert!(text.lines().any(|line| line == "192.0.2.9\tother"), "{text}");
    assert!(text.lines().any(|line| line == "nameserver 169.254.1.1"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("search ") && line.contains("example.org")), "{text}");
    assert!(text.lines().any(|line| line.starts_with("options ") && line.contains("ndots:3")), "{text}");
    assert!(
        text.lines().any(|line| line.starts_with("10.32.") && line.contains("says.selvedge.internal")),
        "{text}"
    );
    // A hosts file of the user's is the user's.
    let own = lab.host.path("hosts");
    std::fs::write(&own, "192.0.2.8 mine\n").expect("a file can be made");
    let volume = format!("{}:/etc/hosts", own.display());
    let out = docker.run(&["run", "--rm", "-v", &volume, "busybox", "cat", "/etc/hosts"]);
    assert_eq!(out.ok(), "192.0.2.8 mine");
    assert_eq!(std::fs::read_to_string(&own).expect("the file"), "192.0.2.8 mine\n");
}
