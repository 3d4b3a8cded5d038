//! Nothing is remembered in a file: all that runs is recognised, and what is right is not touched.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use selvedge_tests::Lab;
use selvedge_tests::host::Host;
use selvedge_tests::shell::{run, timed};
use selvedge_tests::wait::until_true;

const MANY: usize = 200;
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts containers from several clients at once, as an agent does; their names.
fn many(lab: &Lab) -> Vec<String> {
    let names: Vec<String> = (0..MANY).map(|number| format!("many-{number}")).collect();
    let start = |part: &[String]| {
        let docker = lab.selvedge.docker();
        part.iter().for_each(|name| drop(docker.start(&["--name", name, "busybox", "sleep", "100000"])));
    };
    std::thread::scope(|scope| {
        names.chunks(MANY.div_ceil(4)).for_each(|part| drop(scope.spawn(move || start(part))));
    });
    names
}

/// `ip monitor` in a network namespace: each line is a change that the kernel told of.
struct Watch(Child);

impl Watch {
    fn new(command: &mut Command) -> Self {
        // Neighbours change by themselves as traffic comes and goes, links and addresses and routes do not.
        command.args(["ip", "-o", "monitor", "link", "address", "route"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        Self(command.spawn().expect("ip is installed"))
    }

    fn of_host(host: &Host) -> Self {
        Self::new(Command::new("nsenter").arg(format!("--net=/run/netns/{}", host.netns)))
    }

    fn of_container(pid: u64) -> Self {
        Self::new(Command::new("nsenter").arg(format!("--net=/proc/{pid}/ns/net")))
    }

    fn changes(mut self) -> Vec<String> {
        let _ = self.0.kill();
        let output = self.0.wait_with_output().expect("ip ends");
        // The engine's bridge and its ports go through states of their own for a while.
        let ours = |line: &&str| !line.contains("veth") && !line.contains("docker0");
        String::from_utf8_lossy(&output.stdout).lines().filter(ours).map(str::to_owned).collect()
    }
}

/// What each of ours has: name, address and state, sorted.
fn shown(lab: &Lab) -> Vec<(String, String, String)> {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let mut all: Vec<_> = lab
        .selvedge
        .ps()
        .iter()
        .map(|one| (text(&one["name"]), text(&one["address"]), text(&one["state"])))
        .collect();
    all.sort();
    all
}

#[test]
fn two_hundred_running_containers_are_recognised_and_no_wire_is_touched() {
    let lab = Lab::new();
    let (names, took) = timed(|| many(&lab));
    println!("{MANY} containers started in {took:?}");
    let docker = lab.selvedge.docker();
    let before = shown(&lab);
    assert_eq!(before.len(), MANY);
    assert!(before.iter().all(|(_, _, state)| state == "wired"), "{before:?}");
    let mut addresses: Vec<_> = before.iter().map(|(_, address, _)| address).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), MANY, "an address was given twice");

    let pids: Vec<u64> = ["many-0", "many-100", "many-199"]
        .iter()
        .filter_map(|name| docker.inspect(name)["State"]["Pid"].as_u64())
        .collect();
    let watches: Vec<Watch> = pids.iter().map(|&pid| Watch::of_container(pid)).collect();
    let host_watch = Watch::of_host(&lab.host);
    std::thread::sleep(Duration::from_millis(300));

    lab.selvedge.stop();
    assert!(!lab.selvedge.socket().exists() || std::fs::remove_file(lab.selvedge.socket()).is_ok());
    // All of ours that is on disk, but for the wait binary.
    std::fs::remove_dir_all(lab.host.path("run")).expect("the runtime directory");
    let ((), took) = timed(|| lab.selvedge.start_again());
    println!("ready {took:?} after the start, with {MANY} containers");
    until_true("all are recognised", PATIENCE, || shown(&lab) == before);
    lab.selvedge.kill_worker();
    until_true("all are recognised by the next worker", PATIENCE, || shown(&lab) == before);
    lab.selvedge.end(Signal::SIGKILL);
    lab.selvedge.start_again();
    until_true("all are recognised after a kill of the keeper", PATIENCE, || shown(&lab) == before);
    // Longer than any sweep of ours takes to come round.
    std::thread::sleep(Duration::from_secs(4));

    for watch in watches {
        assert_eq!(watch.changes(), Vec::<String>::new(), "something was changed in a container");
    }
    assert_eq!(host_watch.changes(), Vec::<String>::new(), "something was changed on the host");
    for (name, address, _) in before.iter().step_by(20) {
        assert_eq!(lab.host.resolve(name), [address.as_str()]);
        assert!(lab.host.reaches(address));
    }
    // Some at a time: dockerd takes half a second for each, and a command of a suite has its limit.
    for some in names.chunks(40) {
        docker.remove(&some.iter().map(String::as_str).collect::<Vec<_>>());
    }
    until_true("nothing is left", PATIENCE, || lab.host.wires().is_empty() && lab.host.routes().is_empty());
    assert!(shown(&lab).is_empty());
}

#[test]
fn everything_stopped_and_started_is_as_it_was() {
    let lab = Lab::new();
    let docker = lab.selvedge.docker();
    for name in ["again-a", "again-b"] {
        docker.start(&[
            "--name",
            name,
            "--restart",
            "always",
            "--stop-signal",
            "KILL",
            "busybox",
            "sleep",
            "1000",
        ]);
    }
    let before = shown(&lab);
    // Reboots end all at once; the engine comes back first, and containers before us.
    lab.selvedge.end(Signal::SIGKILL);
    lab.engine.end(Signal::SIGTERM);
    std::fs::remove_dir_all(lab.host.path("run")).expect("the runtime directory");
    assert!(lab.host.path("wait").exists(), "the wait binary outlives everything");
    lab.engine.start_again();
    lab.selvedge.start_again();
    until_true("all are as they were", PATIENCE, || shown(&lab) == before);
    for (name, address, _) in &before {
        assert_eq!(lab.host.resolve(name), [address.as_str()]);
        assert!(lab.host.reaches(address));
    }
}

#[test]
fn no_file_of_ours_holds_state() {
    let lab = Lab::new();
    lab.selvedge.docker().start(&["--name", "filed", "busybox", "sleep", "1000"]);
    let dir = lab.host.path("run");
    let files = run(Command::new("find").arg(&dir).args(["-type", "f", "-size", "+0"]), b"");
    let kept: Vec<&str> = files.ok().lines().filter(|file| !file.ends_with("pid")).collect();
    assert!(kept.is_empty(), "{kept:?}");
}
