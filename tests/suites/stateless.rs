//! Nothing is remembered in a file: all that runs is recognised, and what is right is not touched.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
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

/// `ip monitor` in a network namespace: each line is a change that the kernel told of. It is only believed when it
/// says "nothing" if it has seen one change before and one after.
struct Watch {
    child: Child,
    enter: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Watch {
    fn new(netns: &str) -> Self {
        let enter = format!("--net={netns}");
        let mut command = Command::new("nsenter");
        // Neighbours change by themselves as traffic comes and goes, links and addresses and routes do not.
        command.args([&enter, "ip", "-o", "monitor", "link", "address", "route"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("ip is installed");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let sink = seen.clone();
        std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| sink.lock().expect("no panic here").push(line));
        });
        let watch = Self { child, enter, seen };
        watch.proves_itself(PROOFS[0]);
        watch
    }

    fn of_host(host: &Host) -> Self {
        Self::new(&format!("/run/netns/{}", host.netns))
    }

    fn of_container(pid: u64) -> Self {
        Self::new(&format!("/proc/{pid}/ns/net"))
    }

    /// Makes a change, again and again until it is seen: before `ip` listens, it cannot see one.
    fn proves_itself(&self, address: &str) {
        until_true("the watch sees a change", PATIENCE, || {
            for verb in ["add", "del"] {
                let change = ["ip", "address", verb, &format!("{address}/32"), "dev", "lo"];
                run(Command::new("nsenter").arg(&self.enter).args(change), b"").ok();
            }
            self.lines().iter().any(|line| line.contains(address))
        });
    }

    fn lines(&self) -> Vec<String> {
        self.seen.lock().expect("no panic here").clone()
    }

    /// What has changed besides the proofs.
    fn changes(mut self) -> Vec<String> {
        self.proves_itself(PROOFS[1]);
        let _ = self.child.kill();
        let _ = self.child.wait();
        // The engine's bridge and its ports go through states of their own for a while.
        let ours = |line: &String| !PROOFS.iter().chain(&["veth", "docker0"]).any(|not| line.contains(not));
        self.lines().into_iter().filter(ours).collect()
    }
}

/// Addresses that a watch sees come and go.
const PROOFS: [&str; 2] = ["198.51.100.1", "198.51.100.2"];

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
    assert_eq!(pids.len(), 3, "three containers are watched");

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
    until_true("all are recognised after a kill of keeper and second", PATIENCE, || shown(&lab) == before);
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
    assert_eq!(before.len(), 2);
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
    assert!(dir.join("docker.sock").exists(), "the directory is the right one");
    let kept: Vec<&str> = files.ok().lines().filter(|file| !file.ends_with("pid")).collect();
    assert!(kept.is_empty(), "{kept:?}");
}
