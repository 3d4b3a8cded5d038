//! The engine, and others behind our back, start, stop, rename and remove containers; processes are killed.
//! Whatever happens: soon after both are up, each running container has its wire and its name, with the
//! address it had, and nothing is left of those that are gone.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use selvedge_tests::Lab;
use selvedge_tests::docker::Docker;
use selvedge_tests::engine::Engine;
use selvedge_tests::host::Host;
use selvedge_tests::selvedge::Selvedge;
use selvedge_tests::shell::sh;
use selvedge_tests::wait::until_true;

/// The promise: within two seconds of both being up.
const SOON: Duration = Duration::from_secs(2);
/// For what the engine does in its own time.
const PATIENCE: Duration = Duration::from_secs(40);

fn is_wired(lab: &Lab, name: &str, address: &str) -> bool {
    lab.host.resolve(name) == [address] && lab.host.reaches(address)
}

/// Waits until name and wire are there.
fn wired(lab: &Lab, name: &str, address: &str) {
    until_true(&format!("{name} has its name and {address}"), SOON, || is_wired(lab, name, address));
    let routes = lab.host.routes();
    assert_eq!(routes.iter().filter(|route| *route == address).count(), 1, "{routes:?}");
    assert_eq!(lab.selvedge.docker().address(name), address);
}

/// Waits until nothing is left of one that ended.
fn unwired(lab: &Lab, name: &str, address: &str, id: &str) {
    let interface = format!("sv{}", &id[..12]);
    let left = || {
        let mut left = Vec::new();
        left.extend(lab.host.resolve(name));
        left.extend(lab.host.routes().into_iter().filter(|route| route == address));
        left.extend(lab.host.wires().into_iter().filter(|wire| *wire == interface));
        left
    };
    until_true(&format!("nothing is left of {name}"), SOON, || left().is_empty());
    assert!(!lab.host.reaches(address), "{address} still answers");
}

/// A container that sleeps; its id and address.
fn sleeper(docker: &Docker, name: &str, options: &[&str]) -> (String, String) {
    let id = docker.start(&[&["--name", name], options, &["busybox", "sleep", "1000"]].concat());
    let address = docker.address(name);
    assert!(address.starts_with("10.32."), "{name} has the address {address:?}");
    (id, address)
}

/// The address that one has which has not started yet: a client is told of it only once it has.
fn promised(lab: &Lab, name: &str) -> String {
    let label = &lab.engine.docker().inspect(name)["Config"]["Labels"]["selvedge.internal.wire"];
    let note: serde_json::Value = serde_json::from_str(label.as_str().expect("a label")).expect("JSON");
    note["address"].as_str().expect("an address").to_owned()
}

// What a program sees at its first instruction: its wire, and its own name by DNS.
const LOOK: &str = "ip -4 -o addr show dev selvedge0 | awk '{print $4}' | tee -a /seen; \
                    nslookup $(hostname).selvedge.internal | awk '/^Address/ {a=$NF} END {print a}' | tee -a /seen";

fn seen(docker: &Docker, name: &str) -> Vec<String> {
    let tar = docker.script(&format!("docker cp {name}:/seen - | tar -xO"), b"");
    tar.ok().lines().map(str::to_owned).collect()
}

#[test]
fn a_restart_policy_brings_back_wire_name_and_address_before_the_program_runs() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    let look = format!("{LOOK}; exit 3");
    docker.start(&[
        "--name",
        "policy",
        "--hostname",
        "policy",
        "--restart",
        "on-failure:3",
        "busybox",
        "sh",
        "-c",
        &look,
    ]);
    let address = promised(lab, "policy");
    let field = |field: &str| docker.run(&["inspect", "--format", field, "policy"]).stdout.trim().to_owned();
    until_true("three restarts", PATIENCE, || {
        field("{{.RestartCount}} {{.State.Running}} {{.State.Restarting}}") == "3 false false"
    });
    assert_eq!(seen(&docker, "policy").join(" "), vec![format!("{address}/32 {address}"); 4].join(" "));
    assert_eq!(field("{{.State.ExitCode}}"), "3");
    docker.remove(&["policy"]);
}

#[test]
fn docker_restart_keeps_address_and_name() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    let (_, address) = sleeper(&docker, "restarted", &["--stop-signal", "KILL"]);
    for _ in 0..3 {
        docker.run(&["restart", "-t", "5", "restarted"]).ok();
        // At once: the answer comes after the wire.
        assert!(is_wired(lab, "restarted", &address), "{:?}", lab.host.resolve("restarted"));
    }
    wired(lab, "restarted", &address);
    docker.remove(&["restarted"]);
}

#[test]
fn one_started_restarted_and_killed_behind_our_back_is_followed() {
    let lab = Lab::shared();
    let (docker, raw) = (lab.selvedge.docker(), lab.engine.docker());
    let id = docker
        .run(&[
            "create",
            "--name",
            "behind",
            "--hostname",
            "behind",
            "busybox",
            "sh",
            "-c",
            &format!("{LOOK}; sleep 1000"),
        ])
        .ok()
        .to_owned();
    let address = promised(lab, "behind");
    raw.run(&["start", "behind"]).ok();
    wired(lab, "behind", &address);
    until_true("the program ran", SOON, || seen(&docker, "behind").len() == 2);
    assert_eq!(seen(&docker, "behind"), [format!("{address}/32"), address.clone()]);
    raw.run(&["restart", "-t", "0", "behind"]).ok();
    wired(lab, "behind", &address);
    raw.run(&["kill", "behind"]).ok();
    unwired(lab, "behind", &address, &id);
    // It keeps its address while it exists, also while it does not run.
    assert_eq!(docker.address("behind"), "", "a stopped container shows no address");
    docker.run(&["start", "behind"]).ok();
    wired(lab, "behind", &address);
    raw.run(&["rm", "-f", "behind"]).ok();
    unwired(lab, "behind", &address, &id);
    until_true("it is shown no more", SOON, || lab.selvedge.shown("behind").is_none());
}

#[test]
fn one_renamed_behind_our_back_answers_by_its_new_name_only() {
    let lab = Lab::shared();
    let (docker, raw) = (lab.selvedge.docker(), lab.engine.docker());
    let (_, address) = sleeper(&docker, "renamed-a", &[]);
    raw.run(&["rename", "renamed-a", "renamed-b"]).ok();
    wired(lab, "renamed-b", &address);
    assert!(lab.host.resolve("renamed-a").is_empty());
    until_true("its own /etc/hosts has the new name, and the old one no more", SOON, || {
        let hosts = raw.run(&["exec", "renamed-b", "cat", "/etc/hosts"]).stdout;
        hosts.contains("renamed-b.selvedge.internal") && !hosts.contains("renamed-a.selvedge.internal")
    });
    docker.remove(&["renamed-b"]);
}

#[test]
fn a_wire_that_somebody_cut_is_mended() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    let (id, address) = sleeper(&docker, "cut", &[]);
    lab.host.sh(&format!("ip link del sv{}", &id[..12])).ok();
    until_true("the wire is back", SOON + SOON, || lab.host.reaches(&address));
    wired(lab, "cut", &address);
    docker.remove(&["cut"]);
}

#[test]
fn dockerd_restarted_brings_its_containers_back_with_what_they_had() {
    let lab = Lab::new();
    let docker = lab.selvedge.docker();
    let (_, always) = sleeper(&docker, "always", &["--restart", "always", "--stop-signal", "KILL"]);
    let (id, once) = sleeper(&docker, "once", &["--stop-signal", "KILL"]);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        lab.engine.end(signal);
        lab.engine.start_again();
        until_true("the policy works", PATIENCE, || {
            lab.engine.docker().run(&["ps", "--format", "{{.Names}}"]).stdout.trim() == "always"
        });
        wired(&lab, "always", &always);
        unwired(&lab, "once", &once, &id);
    }
    docker.run(&["start", "once"]).ok();
    wired(&lab, "once", &once);
}

#[test]
fn dockerd_restarted_with_live_restore_is_not_noticed_by_containers() {
    let lab = Lab::with_engine(&["--live-restore"]);
    let docker = lab.selvedge.docker();
    let (_, lives) = sleeper(&docker, "lives", &[]);
    let (id, dies) = sleeper(&docker, "dies", &[]);
    let pid = docker.inspect("dies")["State"]["Pid"].to_string();
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let before = lab.host.wires();
        lab.engine.end(signal);
        assert!(is_wired(&lab, "lives", &lives), "the engine's end reached the network");
        sh(&format!("kill -9 {pid} 2>/dev/null"));
        lab.engine.start_again();
        wired(&lab, "lives", &lives);
        unwired(&lab, "dies", &dies, &id);
        assert!(lab.host.wires().iter().all(|wire| before.contains(wire)), "a wire was made anew");
    }
    assert_eq!(docker.run(&["exec", "lives", "ping", "-c", "1", "169.254.1.1"]).code, 0);
}

#[test]
fn a_client_waits_while_dockerd_restarts() {
    let lab = Lab::with_engine(&["--live-restore"]);
    let docker = lab.selvedge.docker();
    sleeper(&docker, "patient", &[]);
    lab.engine.end(Signal::SIGTERM);
    let asked = docker.spawn(&["inspect", "--format", "{{.Name}}", "patient"]);
    lab.engine.start_again();
    let answer = asked.wait_with_output().expect("the CLI ends");
    assert_eq!(String::from_utf8_lossy(&answer.stdout).trim(), "/patient", "{answer:?}");
}

#[test]
fn a_selvedge_that_starts_later_finds_everything() {
    let lab = Lab::new();
    let (docker, raw) = (lab.selvedge.docker(), lab.engine.docker());
    let (_, runs) = sleeper(&docker, "runs", &[]);
    let (renamed_id, renamed) = sleeper(&docker, "old-name", &[]);
    let (stopped_id, stopped) = sleeper(&docker, "stopped", &[]);
    let (removed_id, removed) = sleeper(&docker, "removed", &[]);
    docker.run(&["create", "--name", "waits", "--hostname", "waits", "busybox", "sh", "-c", LOOK]).ok();
    let waits = promised(&lab, "waits");
    lab.selvedge.stop();
    assert!(lab.host.reaches(&runs), "wires outlive Selvedge");
    raw.run(&["kill", "stopped"]).ok();
    raw.remove(&["removed"]);
    raw.run(&["rename", "old-name", "new-name"]).ok();
    raw.run(&["start", "waits"]).ok();
    assert_eq!(raw.run(&["logs", "waits"]).ok(), "", "it ran without a wire");
    lab.selvedge.start_again();
    wired(&lab, "runs", &runs);
    wired(&lab, "new-name", &renamed);
    assert!(lab.host.resolve("old-name").is_empty());
    unwired(&lab, "stopped", &stopped, &stopped_id);
    unwired(&lab, "removed", &removed, &removed_id);
    until_true("the one that waited ran", SOON, || seen(&docker, "waits").len() == 2);
    assert_eq!(seen(&docker, "waits"), [format!("{waits}/32"), waits]);
    assert!(lab.host.wires().contains(&format!("sv{}", &renamed_id[..12])));
    // An address that was given once is not given to another while its container exists.
    let (_, fresh) = sleeper(&docker, "fresh", &[]);
    assert!(![&runs, &renamed, &stopped].contains(&&fresh), "{fresh} was given twice");
}

#[test]
fn a_killed_worker_costs_no_stream_and_misses_no_event() {
    let lab = Lab::new();
    let (docker, raw) = (lab.selvedge.docker(), lab.engine.docker());
    let (_, address) = sleeper(&docker, "worked", &[]);
    docker.run(&["create", "--name", "meanwhile", "busybox", "sleep", "1000"]).ok();
    let other = promised(&lab, "meanwhile");
    let mut run = docker.spawn(&[
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.5; done; exit 9",
    ]);
    let mut out = run.stdout.take().expect("a pipe");
    let mut first = [0; 2];
    out.read_exact(&mut first).expect("the program speaks");
    lab.selvedge.kill_worker();
    raw.run(&["start", "meanwhile"]).ok();
    wired(&lab, "meanwhile", &other);
    wired(&lab, "worked", &address);
    lab.selvedge.kill_worker();
    let mut rest = String::new();
    out.read_to_string(&mut rest).expect("the stream ends");
    assert_eq!(rest, "2\n3\n4\n5\n6\n7\n8\n");
    assert_eq!(run.wait().expect("the CLI ends").code(), Some(9));
}

#[test]
fn a_worker_killed_in_the_middle_of_a_start_leaves_a_container_that_runs() {
    let lab = Lab::new();
    let docker = lab.selvedge.docker();
    for round in 0..5 {
        let name = format!("midway-{round}");
        docker.run(&["create", "--name", &name, "busybox", "sleep", "1000"]).ok();
        let address = promised(&lab, &name);
        let mut start = docker.spawn(&["start", &name]);
        std::thread::sleep(Duration::from_millis(100 * round));
        lab.selvedge.kill_worker();
        let _ = start.wait();
        // The client may have been told of a broken connection; the engine knows whether it started.
        lab.engine.docker().run(&["start", &name]).ok();
        wired(&lab, &name, &address);
    }
}

#[test]
fn keeper_and_second_killed_take_their_worker_along_and_the_next_keeper_takes_over() {
    let lab = Lab::new();
    let docker = lab.selvedge.docker();
    let (id, address) = sleeper(&docker, "kept", &[]);
    let wires = lab.host.wires();
    lab.selvedge.end(Signal::SIGKILL);
    assert!(lab.host.reaches(&address), "wires outlive Selvedge");
    lab.selvedge.start_again();
    wired(&lab, "kept", &address);
    assert_eq!(lab.host.wires(), wires);
    docker.remove(&["kept"]);
    unwired(&lab, "kept", &address, &id);
}

/// A Selvedge that sees /proc/sys read-only, as in a container without rights: no wire can be made then.
struct Crippled(u32);

impl Crippled {
    fn new(lab: &Lab) -> Self {
        lab.host.sh("sysctl -qw net.ipv4.conf.default.rp_filter=0 net.ipv4.conf.all.rp_filter=0").ok();
        let keeper = lab.selvedge.keeper();
        let enter = format!("nsenter --mount=/proc/{keeper}/ns/mnt");
        sh(&format!(
            "{enter} mount --bind /proc/sys /proc/sys && {enter} mount -o remount,bind,ro /proc/sys"
        ))
        .ok();
        Self(keeper)
    }

    fn heal(&self) {
        sh(&format!("nsenter --mount=/proc/{}/ns/mnt umount /proc/sys", self.0)).ok();
    }
}

fn lab_in_own_mounts() -> Lab {
    let host = Host::new();
    let engine = Engine::debian(&host, &[]);
    let selvedge = Selvedge::prepare(&host, &engine.socket, &[]).in_own_mounts();
    selvedge.start_again();
    Lab { host, engine, selvedge }
}

#[test]
fn a_failed_attach_is_told_to_the_client_and_leaves_nothing() {
    let lab = lab_in_own_mounts();
    let docker = lab.selvedge.docker();
    let mark = lab.host.path("mark");
    std::fs::create_dir(&mark).expect("a directory can be made");
    let volume = format!("{}:/mark", mark.display());
    let crippled = Crippled::new(&lab);
    for options in [&[][..], &["--restart", "always"]] {
        let create =
            [&["create", "--name", "failed", "-v", &volume], options, &["busybox", "touch", "/mark/ran"]];
        let id = docker.run(&create.concat()).ok().to_owned();
        let address = promised(&lab, "failed");
        let start = docker.run(&["start", "failed"]);
        assert_eq!(start.code, 1);
        assert!(
            start.stderr.contains("Error response from daemon: selvedge: cannot connect container")
                && start.stderr.contains("ead-only file system"),
            "{}",
            start.stderr
        );
        unwired(&lab, "failed", &address, &id);
        let state = docker.inspect("failed")["State"].clone();
        assert_eq!(state["Running"], false, "{state}");
        assert!(!Path::new(&mark.join("ran")).exists(), "the program ran");
        let run = docker.run(&["run", "--rm", "-v", &volume, "busybox", "touch", "/mark/ran"]);
        assert_eq!(run.code, 125, "{}", run.stderr);
        assert!(!Path::new(&mark.join("ran")).exists(), "the program ran");
        docker.remove(&["failed"]);
    }
    assert!(lab.host.wires().is_empty() && lab.host.routes().is_empty());
    crippled.heal();
    docker.run(&["run", "--rm", "-v", &volume, "busybox", "touch", "/mark/ran"]).ok();
    assert!(Path::new(&mark.join("ran")).exists());
}

#[test]
fn a_failed_attach_of_one_that_the_engine_started_ends_its_process_and_the_policy_goes_on() {
    let lab = lab_in_own_mounts();
    let (docker, raw) = (lab.selvedge.docker(), lab.engine.docker());
    docker
        .run(&[
            "create",
            "--name",
            "tries",
            "--restart",
            "always",
            "busybox",
            "sh",
            "-c",
            "echo ran; sleep 1000",
        ])
        .ok();
    let address = promised(&lab, "tries");
    let crippled = Crippled::new(&lab);
    raw.run(&["start", "tries"]).ok();
    let count = || raw.run(&["inspect", "--format", "{{.RestartCount}}", "tries"]).ok().parse::<u32>();
    until_true("the policy restarts it", PATIENCE, || count().is_ok_and(|count| count >= 2));
    assert_eq!(raw.run(&["logs", "tries"]).ok(), "", "the program ran without a wire");
    crippled.heal();
    until_true("it runs in the end", PATIENCE, || raw.run(&["logs", "tries"]).stdout.contains("ran"));
    wired(&lab, "tries", &address);
}
