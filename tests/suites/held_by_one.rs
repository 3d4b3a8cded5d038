//! An address, a name and a tenant belong to the container that Selvedge gave them to: whatever is slow, killed or stopped,
//! and whatever a label says that an image, a build, a commit or another client has brought along.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use selvedge_tests::Lab;
use selvedge_tests::docker::Docker;
use selvedge_tests::engine::Engine;
use selvedge_tests::host::Host;
use selvedge_tests::selvedge::Selvedge;
use selvedge_tests::shell::run;
use selvedge_tests::slow::Slow;
use selvedge_tests::wait::{until, until_true};

/// What is taken away from outside is back within this time; a machine under load is given more.
const SOON: Duration = Duration::from_secs(10);
/// Longer than a worker waits for an engine before it serves without.
const LONGER_THAN_A_FIRST_LOOK: Duration = Duration::from_secs(7);

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), signal).expect("it runs");
}

/// The addresses of all containers, by their names, as the engine and Selvedge have them.
fn addresses(selvedge: &Selvedge) -> Vec<(String, String)> {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    selvedge.ps().iter().map(|container| (text(&container["name"]), text(&container["address"]))).collect()
}

fn assert_all_differ(selvedge: &Selvedge, count: usize) {
    let all = addresses(selvedge);
    let different: HashSet<&String> = all.iter().map(|(_, address)| address).collect();
    assert_eq!((all.len(), different.len()), (count, count), "{all:?}");
}

/// Whether a running container has a wire.
fn has_wire(docker: &Docker, container: &str) -> bool {
    docker.run(&["exec", container, "ip", "addr"]).stdout.contains("selvedge0")
}

#[test]
fn an_engine_that_stands_still_gives_no_address_twice() {
    let lab = Lab::new();
    let docker = lab.selvedge.docker();
    for name in ["one", "two"] {
        docker.start(&["--name", name, "busybox", "sleep", "1000"]);
    }
    let engine = lab.engine.pid();
    signal(engine, Signal::SIGSTOP);
    lab.selvedge.kill_worker();
    // The worker serves by now, and has not seen the engine's containers.
    std::thread::sleep(LONGER_THAN_A_FIRST_LOOK);
    let third = docker.spawn(&["run", "-d", "--name", "three", "busybox", "sleep", "1000"]);
    signal(engine, Signal::SIGCONT);
    let third = third.wait_with_output().expect("it ends");
    assert!(third.status.success(), "{}", String::from_utf8_lossy(&third.stderr));
    assert_all_differ(&lab.selvedge, 3);
    // The same where nothing is left of the last worker but what the engine and the kernel have.
    lab.selvedge.stop();
    signal(engine, Signal::SIGSTOP);
    lab.selvedge.spawn();
    until_true("it listens", SOON, || lab.socket().exists() && lab.selvedge.ask(&["status"]).code == 0);
    let fourth = docker.spawn(&["run", "-d", "--name", "four", "busybox", "sleep", "1000"]);
    std::thread::sleep(Duration::from_secs(1));
    signal(engine, Signal::SIGCONT);
    let fourth = fourth.wait_with_output().expect("it ends");
    assert!(fourth.status.success(), "{}", String::from_utf8_lossy(&fourth.stderr));
    assert_all_differ(&lab.selvedge, 4);
    assert_eq!(lab.host.routes().len(), 4, "one route each");
}

#[test]
fn a_list_that_takes_twelve_seconds_gives_no_address_twice() {
    let host = Host::new();
    let engine = Engine::debian(&host, &[]);
    let slow =
        Slow::start(host.path("slow.sock"), &engine.socket, "GET /containers/json", Duration::from_secs(12));
    let selvedge = Selvedge::prepare(&host, &slow.socket, &[]);
    selvedge.start_again();
    let docker = selvedge.docker();
    let first = Instant::now();
    docker.start(&["--name", "one", "busybox", "sleep", "1000"]);
    assert!(first.elapsed() > Duration::from_secs(3), "no address before the list has been read");
    selvedge.kill_worker();
    let next = Instant::now();
    docker.start(&["--name", "two", "busybox", "sleep", "1000"]);
    assert!(
        next.elapsed() < Duration::from_secs(11),
        "the last worker's addresses are known without the list"
    );
    selvedge.stop();
    selvedge.spawn();
    docker.start(&["--name", "three", "busybox", "sleep", "1000"]);
    assert_all_differ(&selvedge, 3);
}

#[test]
fn three_hundred_containers_need_no_other_settings() {
    let lab = Lab::new();
    let docker = lab.selvedge.docker();
    let create = |from: u32, to: u32| {
        let script =
            format!("for i in $(seq {from} {to}); do docker create --name c$i busybox true || exit; done");
        let made = docker.script(&script, b"");
        assert_eq!(made.code, 0, "{}", made.stderr);
    };
    create(1, 150);
    lab.selvedge.kill_worker();
    create(151, 300);
    assert_all_differ(&lab.selvedge, 300);
    let status = lab.selvedge.ask(&["status"]).ok().to_owned();
    assert!(status.contains("blocks 10.32.0.0/24 (") && status.contains("10.32.1.0/24 ("), "{status}");
    lab.selvedge.kill_worker();
    let runs = docker.start(&["--name", "runs", "busybox", "sleep", "1000"]);
    assert!(has_wire(&docker, &runs));
    assert_all_differ(&lab.selvedge, 301);
}

#[test]
fn a_full_pool_says_what_to_do() {
    let lab = Lab::with_selvedge(&["--pool", "10.32.0.0/28"]);
    let docker = lab.selvedge.docker();
    let script = "for i in $(seq 14); do docker create busybox true || exit; done";
    assert_eq!(docker.script(script, b"").code, 0);
    let refused = docker.run(&["create", "busybox", "true"]);
    let told = "no free address is left in the pool 10.32.0.0/28: remove containers";
    assert!(refused.code == 1 && refused.stderr.contains(told), "{}", refused.stderr);
    docker.script("docker container prune -f", b"").ok();
    until_true("there is room again", SOON, || docker.run(&["create", "busybox", "true"]).code == 0);
}

/// A label with which an image claims to be a container of Selvedge's.
fn forged(lab: &Lab, address: &str) -> String {
    format!(
        r#"{{"address":"{address}","runtime":"{}","wait":"/dev/.selvedge-wait","tenant":"bank","names":["victim"],"asked":7,"original":{{"entrypoint":null,"cmd":["sleep","1000"]}}}}"#,
        lab.host.path("run").display()
    )
}

/// A victim whose address and tenant others are after; its address, and the interface that has its route.
fn victim(lab: &Lab) -> (String, String) {
    let docker = lab.selvedge.docker();
    docker.start(&["--name", "victim", "--label", "selvedge.tenant=bank", "busybox", "sleep", "1000"]);
    let address = docker.address("victim");
    let route = lab.host.sh(&format!("ip route get {address}")).ok().to_owned();
    (address, route)
}

/// The victim is as it was: in the kernel, in the names, and as the only one who says so.
fn assert_unharmed(lab: &Lab, (address, route): &(String, String), how: &str) {
    let now = lab.host.sh(&format!("ip route get {address}")).ok().to_owned();
    assert_eq!(&now, route, "{how}: the route");
    assert_eq!(lab.host.resolve("victim"), std::slice::from_ref(address), "{how}: the name");
    let bank = lab.selvedge.ps().iter().filter(|container| container["tenant"] == "bank").count();
    assert_eq!(bank, 1, "{how}: {:?}", lab.selvedge.ps());
    assert!(lab.host.reaches(address), "{how}: it is reached");
}

#[test]
fn a_label_that_an_image_brings_along_is_nobodys_word() {
    let lab = Lab::with_selvedge(&["--policy", "tenant"]);
    let (docker, raw) = (lab.selvedge.docker(), lab.engine.docker());
    let held = victim(&lab);
    for (how, address) in [("its address", held.0.as_str()), ("a free address", "10.32.0.77")] {
        let label = forged(&lab, address);
        // A build, whose RUN is a container of the engine's own making, and what is run from it.
        let dockerfile =
            format!("FROM busybox\nLABEL selvedge.internal.wire='{label}'\nRUN ip addr > /addresses\n");
        let mut build = docker.command(&["build", "-q", "-t", "forged", "-"]);
        let built = run(build.env("DOCKER_BUILDKIT", "0"), dockerfile.as_bytes());
        assert_eq!(built.code, 0, "{}{}", built.stdout, built.stderr);
        let inside = docker.run(&["run", "--rm", "forged", "cat", "/addresses"]).ok().to_owned();
        assert!(
            inside.contains("eth0") && !inside.contains("selvedge0"),
            "{how}: a build has no wire: {inside}"
        );
        assert_unharmed(&lab, &held, how);
        // An import, and an image that was saved and loaded.
        let change = format!("LABEL selvedge.internal.wire='{label}'");
        let import = "docker export $(docker create busybox true) | docker import -c \"$CHANGE\" - imported; docker save forged | docker load";
        let mut shell = Command::new("sh");
        shell.args(["-c", import]).env("CHANGE", &change);
        shell.env("DOCKER_HOST", format!("unix://{}", lab.socket().display()));
        assert_eq!(run(&mut shell, b"").code, 0);
        for image in ["forged", "imported"] {
            // Honest use of such an image: an address of its own, and the tenant that the create says.
            docker.start(&["--name", "honest", image, "sleep", "1000"]);
            let honest = lab.selvedge.shown("honest").expect("it has a wire");
            assert_eq!(
                (honest["tenant"].as_str(), honest["state"].as_str()),
                (Some("default"), Some("wired"))
            );
            assert_ne!(honest["address"], address, "{how}");
            // Past us it is a container like any other.
            raw.start(&["--name", "past", image, "sleep", "1000"]);
            assert!(!has_wire(&raw, "past"), "{how}");
            assert_unharmed(&lab, &held, how);
            docker.remove(&["honest", "past"]);
        }
    }
}

#[test]
fn a_label_given_past_us_is_nobodys_word_and_a_copy_does_not_take_the_original_over() {
    let lab = Lab::with_selvedge(&["--policy", "tenant"]);
    let (docker, raw) = (lab.selvedge.docker(), lab.engine.docker());
    let held = victim(&lab);
    for address in [held.0.as_str(), "10.32.0.77"] {
        let label = format!("selvedge.internal.wire={}", forged(&lab, address));
        raw.start(&["--name", "past", "--label", &label, "busybox", "sleep", "1000"]);
        assert!(!has_wire(&raw, "past"));
        assert_unharmed(&lab, &held, "a label");
        raw.remove(&["past"]);
    }
    // The same container once more, to the letter, as a tool on the engine's own socket would make it.
    let found = raw.inspect("victim");
    let label = found["Config"]["Labels"]["selvedge.internal.wire"].as_str().expect("ours").to_owned();
    let label = format!("selvedge.internal.wire={label}");
    let wait = lab.host.path("wait").display().to_string();
    let mount = format!("type=bind,source={wait},target=/dev/.selvedge-wait,readonly");
    let copy =
        ["--name", "copy", "--label", &label, "--mount", &mount, "--entrypoint", "/dev/.selvedge-wait"];
    raw.run(&[&["run", "-d"], &copy[..], &["busybox", "sleep", "1000"]].concat()).ok();
    until_true("the copy is ended", SOON, || raw.inspect("copy")["State"]["Running"] == false);
    assert_unharmed_but_shown(&lab, &held);
    lab.selvedge.kill_worker();
    assert_unharmed_but_shown(&lab, &held);
    let refused = docker.run(&["start", "copy"]);
    assert!(refused.code == 1 && refused.stderr.contains("is taken by container"), "{}", refused.stderr);
    assert_unharmed_but_shown(&lab, &held);
    raw.remove(&["copy"]);
    assert_unharmed(&lab, &held, "the copy is gone");
}

/// The copy claims the address; `status` says so, and the victim has it.
fn assert_unharmed_but_shown(lab: &Lab, (address, route): &(String, String)) {
    assert_eq!(lab.host.sh(&format!("ip route get {address}")).ok(), route);
    assert_eq!(lab.host.resolve("victim"), std::slice::from_ref(address));
    let status = lab.selvedge.ask(&["status"]).ok().to_owned();
    assert!(
        status.contains("(copy)") && status.contains(&format!("{address} is taken by container")),
        "{status}"
    );
}

#[test]
fn a_commit_past_us_is_an_image_like_any_other() {
    let lab = Lab::with_selvedge(&["--policy", "tenant"]);
    let (docker, raw) = (lab.selvedge.docker(), lab.engine.docker());
    let held = victim(&lab);
    raw.run(&["commit", "victim", "committed"]).ok();
    docker.start(&["--name", "honest", "committed", "sleep", "1000"]);
    let honest = lab.selvedge.shown("honest").expect("it has a wire");
    assert_eq!(honest["tenant"], "default");
    assert_unharmed(&lab, &held, "a commit");
    // Past us its entrypoint is not there; with everything that was mounted, it is a container that waits for nobody.
    let past = ["run", "-d", "--name", "past", "--volumes-from", "victim", "committed"];
    raw.run(&past);
    until_true("it is ended, or never ran", SOON, || raw.inspect("past")["State"]["Running"] == false);
    assert_eq!(lab.host.resolve("victim"), std::slice::from_ref(&held.0));
    assert_eq!(lab.host.sh(&format!("ip route get {}", held.0)).ok(), held.1);
}

/// Creates containers while their image's tag comes and goes, or moves from one image to another.
fn create_while(docker: &Docker, tagging: &str, count: u32) -> Vec<String> {
    let script = format!(
        "(while :; do {tagging}; done) >/dev/null 2>&1 & looped=$!
         for i in $(seq {count}); do docker create --name flap$i flapping 2>/dev/null; done; kill $looped; wait $looped 2>/dev/null; true"
    );
    docker.script(&script, b"").ok().lines().map(str::to_owned).collect()
}

#[test]
fn an_image_that_appears_and_vanishes_makes_no_container_without_a_wire() {
    let host = Host::new();
    let engine = Engine::trixie(&host, &[]);
    let selvedge = Selvedge::start(&host, &engine, &[]);
    let docker = engine.docker_at(&selvedge.socket());
    let made = create_while(&docker, "docker tag busybox flapping; docker rmi flapping", 40);
    let wires: HashSet<String> =
        selvedge.ps().iter().filter_map(|container| container["id"].as_str().map(str::to_owned)).collect();
    assert!(!made.is_empty(), "some creates must meet the image");
    for id in &made {
        assert!(wires.contains(id), "{id} of {} has no wire", made.len());
    }
    let all = engine.docker().run(&["ps", "-aq", "--no-trunc"]).ok().lines().count();
    assert_eq!(all, made.len(), "nothing is left of those that were refused");
    docker.script("docker rm -f $(docker ps -aq)", b"").ok();
    // A tag that moves: the program must be that of the image which the container has.
    let images = "for n in a b; do printf 'FROM busybox\\nENTRYPOINT [\"echo\", \"%s\"]\\nLABEL n=%s\\n' $n $n | docker build -q -t image-$n -; done";
    docker.script(images, b"").ok();
    docker.script("docker tag image-a flapping", b"").ok();
    let made = create_while(&docker, "docker tag image-a flapping; docker tag image-b flapping", 40);
    assert_eq!(made.len(), 40);
    for id in &made {
        let found = docker.inspect(id);
        let (label, entrypoint) = (&found["Config"]["Labels"]["n"], &found["Config"]["Entrypoint"][1]);
        assert_eq!(label, entrypoint, "{found}");
    }
}

#[test]
fn a_second_selvedge_on_the_same_pool_is_refused() {
    let lab = Lab::shared();
    let beside = Host::beside(&lab.host);
    for pool in ["10.32.0.0/12", "10.40.0.0/16"] {
        let runtime = beside.path("run").display().to_string();
        let engine = format!("unix://{}", lab.engine.socket.display());
        let arguments = [
            "run",
            "--engine",
            &engine,
            "--runtime-dir",
            &runtime,
            "--pool",
            pool,
            "--dns-listen",
            "169.254.1.9:53",
        ];
        let refused = run(&mut lab.selvedge.command(&arguments), b"");
        let pid = format!("(pid {})", lab.selvedge.keeper());
        assert_eq!((refused.code, refused.stderr.lines().count()), (1, 1), "{}", refused.stderr);
        assert!(refused.stderr.contains(&pid) && refused.stderr.contains("--pool"), "{}", refused.stderr);
    }
    assert!(lab.selvedge.ask(&["upgrade"]).code == 0 && lab.selvedge.ask(&["upgrade", "--keeper"]).code == 0);
}

#[test]
fn addresses_of_another_selvedges_containers_are_not_given_when_that_one_is_gone() {
    let lab = Lab::new();
    let docker = lab.selvedge.docker();
    docker.start(&["--name", "old", "busybox", "sleep", "1000"]);
    let address = docker.address("old");
    lab.selvedge.stop();
    // Its containers run on, and their wires are there.
    let beside = Host::beside(&lab.host);
    let second = Selvedge::start(&beside, &lab.engine, &[]);
    second.docker().start(&["--name", "new", "busybox", "sleep", "1000"]);
    assert_ne!(second.docker().address("new"), address);
    let fixed = format!("selvedge.ip={address}");
    let refused = second.docker().run(&["run", "-d", "--label", &fixed, "busybox", "sleep", "9"]);
    assert!(
        refused.code != 0 && refused.stderr.contains(&format!("{address} is taken by")),
        "{}",
        refused.stderr
    );
    assert!(lab.host.reaches(&address));
}

#[test]
fn what_is_taken_away_from_the_host_is_back_and_status_says_so_meanwhile() {
    let lab = Lab::new();
    let docker = lab.selvedge.docker();
    docker.start(&["--name", "runs", "busybox", "sleep", "1000"]);
    let address = docker.address("runs");
    // A worker that stands still mends nothing: so it is seen what status says in the meantime.
    lab.host.sh("ip addr del 169.254.1.1/32 dev lo; echo 0 > /proc/sys/net/ipv4/ip_forward").ok();
    let said = until("status says so, or it is right again", SOON, || {
        let status = lab.selvedge.ask(&["status"]).stdout;
        let right = lab.host.sh("ip addr show dev lo").stdout.contains("169.254.1.1");
        (right || status.contains("lo lacks the address 169.254.1.1")).then_some(status)
    });
    println!("{said}");
    until_true("the gateway's address is back", SOON, || {
        let forwards = lab.host.sh("cat /proc/sys/net/ipv4/ip_forward").stdout.trim() == "1";
        forwards && lab.host.sh("ip addr show dev lo").stdout.contains("169.254.1.1")
    });
    until_true("names are answered", SOON, || lab.host.resolve("runs") == [address.clone()]);
    docker.run(&["run", "--rm", "busybox", "true"]).ok();
    // Its route deleted, or led elsewhere.
    let own = lab.host.sh(&format!("ip route show {address}")).ok().to_owned();
    for spoil in [format!("ip route del {address}/32"), format!("ip route replace {address}/32 dev docker0")]
    {
        lab.host.sh(&spoil).ok();
        until_true(&spoil, SOON, || lab.host.sh(&format!("ip route show {address}")).stdout.trim() == own);
        assert!(lab.host.reaches(&address), "{spoil}");
    }
    assert!(lab.selvedge.log().contains("restored"));
}

#[test]
fn a_chosen_address_moves_to_the_container_that_replaces_the_old_one() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    let fixed = ["--label", "selvedge.ip=10.40.7.7", "busybox", "sleep", "1000"];
    docker.start(&[&["--name", "web-old"][..], &fixed].concat());
    // As Compose does it: the new one is made while the old one runs.
    docker.run(&[&["create", "--name", "web-new"][..], &fixed].concat()).ok();
    let refused = docker.run(&["start", "web-new"]);
    let told = "address 10.40.7.7 is taken by container";
    assert!(refused.code == 1 && refused.stderr.contains(told), "{}", refused.stderr);
    assert_eq!(docker.inspect("web-new")["State"]["Status"], "created", "it never ran");
    docker.run(&["stop", "-t", "0", "web-old"]).ok();
    docker.run(&["start", "web-new"]).ok();
    assert_eq!(docker.address("web-new"), "10.40.7.7");
    lab.selvedge.kill_worker();
    assert_eq!(docker.run(&["start", "web-old"]).code, 1, "it is the new one's now");
    docker.run(&["rm", "web-old"]).ok();
    assert_eq!(lab.host.resolve("web-new"), ["10.40.7.7"]);
    for wrong in ["10.99.0.1", "10.32.0.0"] {
        let label = format!("selvedge.ip={wrong}");
        assert_eq!(docker.run(&["create", "--label", &label, "busybox"]).code, 1, "not lawful: {wrong}");
    }
    docker.remove(&["web-new"]);
    assert!(Path::new(&lab.socket()).exists());
}
