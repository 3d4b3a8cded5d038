//! A kill -9 of the keeper at any instant, or of its second, that no client notices.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use selvedge_tests::Lab;
use selvedge_tests::docker::Docker;
use selvedge_tests::http;
use selvedge_tests::wait::{until, until_true};

const LIMIT: Duration = Duration::from_secs(30);
/// How many bytes an exec carries each way.
const BULK: usize = 100 << 20;

/// Calls over new connections until it is ended.
struct Calls {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u32, Duration, Vec<String>)>,
}

impl Calls {
    fn start(socket: &Path, path: &'static str) -> Self {
        let (stop, socket) = (Arc::new(AtomicBool::new(false)), socket.to_owned());
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut count, mut longest, mut failures) = (0, Duration::ZERO, Vec::new());
            while !stopped.load(Relaxed) {
                let start = Instant::now();
                failures.extend(call(&socket, path).err());
                (count, longest) = (count + 1, longest.max(start.elapsed()));
            }
            (count, longest, failures)
        });
        Self { stop, thread }
    }

    fn assert_never_failed(self, what: &str) {
        self.stop.store(true, Relaxed);
        let (count, longest, failures) = self.thread.join().expect("the thread ends");
        println!("{what}: {count} calls, the longest took {longest:.1?}");
        assert!(failures.is_empty(), "{what}: {} of {count} failed: {:?}", failures.len(), failures.first());
        assert!(count > 100, "{what}: too few to mean anything: {count}");
    }
}

fn call(socket: &Path, path: &str) -> Result<(), String> {
    match http::get(socket, path) {
        Ok(answer) if answer.status == 200 => Ok(()),
        Ok(answer) => Err(format!("{}: {}", answer.status, answer.text())),
        Err(error) => Err(error.to_string()),
    }
}

/// `docker exec -i NAME cat`, with a file to read and a file to write.
struct Bulk {
    child: Child,
    out: PathBuf,
}

impl Bulk {
    fn start(docker: &Docker, name: &str, from: &Path, out: PathBuf) -> Self {
        let mut command = docker.command(&["exec", "-i", name, "cat"]);
        command.stdin(File::open(from).expect("a file"));
        command.stdout(File::create(&out).expect("a file")).stderr(Stdio::inherit());
        Self { child: command.spawn().expect("docker can be started"), out }
    }

    fn assert_same(mut self, expected: &[u8]) {
        assert!(self.child.wait().expect("it ends").success());
        let got = std::fs::read(&self.out).expect("a file");
        assert!(got == expected, "{} bytes came back, of {}", got.len(), expected.len());
    }
}

/// Prints numbers, and ends with a code of its own.
fn counting(count: u32, code: u32) -> String {
    format!("i=0; while [ $i -lt {count} ]; do echo $i; i=$((i+1)); sleep 0.02; done; exit {code}")
}

fn numbers(count: u32) -> String {
    (0..count).map(|number| format!("{number}\n")).collect()
}

fn kill_now(pid: u64) {
    kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), Signal::SIGKILL).expect("it lives");
}

/// The keeper, its second, and how often one took over.
fn keepers(lab: &Lab) -> Option<(u64, u64, u64)> {
    let output = lab.selvedge.ask(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&output.stdout).ok()?;
    let number = |name: &str| status["keeper"][name].as_u64();
    Some((number("pid")?, number("second")?, number("takeovers")?))
}

/// Kills the keeper that many times, each after a time that looks random.
fn kill_keepers(lab: &Lab, kills: u64) {
    let mut dice = 7_u64;
    for round in 1..=kills {
        let (keeper, ..) =
            until("a keeper with a second", LIMIT, || keepers(lab).filter(|(_, second, _)| *second > 0));
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        sleep(Duration::from_micros((dice >> 33) % 50_000));
        kill_now(keeper);
        until("the second is the keeper", LIMIT, || {
            keepers(lab).filter(|(pid, _, count)| *pid != keeper && *count == round)
        });
    }
}

#[test]
fn fifty_kills_of_the_keeper_are_noticed_by_nobody() {
    let lab = Lab::new();
    let docker = lab.selvedge.docker();
    let inode = std::fs::metadata(lab.socket()).expect("the socket").ino();
    docker.start(&["--name", "logged", "busybox", "sh", "-c", &format!("sleep 5; {}", counting(1000, 0))]);
    docker.start(&["--name", "echo", "busybox", "sleep", "1000"]);
    let bytes: Vec<u8> = (0..BULK).map(|at| (at % 251) as u8 ^ (at >> 16) as u8).collect();
    std::fs::write(lab.host.path("bulk"), &bytes).expect("a file");
    let logs: Vec<Child> = (0..10).map(|_| docker.spawn(&["logs", "-f", "logged"])).collect();
    let runs: Vec<Child> = (0..20)
        .map(|number| docker.spawn(&["run", "--rm", "busybox", "sh", "-c", &counting(1000, number + 3)]))
        .collect();
    until_true("all run", LIMIT, || docker.run(&["ps", "-q"]).ok().lines().count() == 22);
    let execs: Vec<Bulk> = (0..5)
        .map(|number| {
            Bulk::start(&docker, "echo", &lab.host.path("bulk"), lab.host.path(&format!("out{number}")))
        })
        .collect();
    let pings = Calls::start(&lab.socket(), "/_ping");
    let lists = Calls::start(&lab.socket(), "/containers/json");
    kill_keepers(&lab, 50);
    pings.assert_never_failed("/_ping");
    lists.assert_never_failed("/containers/json");
    for exec in execs {
        exec.assert_same(&bytes);
    }
    for (number, run) in (0..).zip(runs) {
        let output = run.wait_with_output().expect("it ends");
        assert_eq!(String::from_utf8_lossy(&output.stdout), numbers(1000));
        assert_eq!(output.status.code(), Some(number + 3), "{output:?}");
    }
    for log in logs {
        let output = log.wait_with_output().expect("it ends");
        assert_eq!(String::from_utf8_lossy(&output.stdout), numbers(1000));
    }
    assert_eq!(std::fs::metadata(lab.socket()).expect("the socket").ino(), inode);
    let status = lab.selvedge.status();
    assert_eq!((&status["keeper"]["takeovers"], &status["keeper"]["worker_deaths"]), (&50.into(), &0.into()));
}

#[test]
fn twenty_kills_of_the_second_change_nothing() {
    let lab = Lab::new();
    let docker = lab.selvedge.docker();
    let run = docker.spawn(&["run", "--rm", "busybox", "sh", "-c", &counting(500, 9)]);
    let pings = Calls::start(&lab.socket(), "/_ping");
    let (keeper, ..) = keepers(&lab).expect("it answers");
    let mut last = 0;
    for _ in 0..20 {
        let (_, second, _) = until("another second", LIMIT, || {
            keepers(&lab).filter(|(_, second, _)| ![0, last].contains(second))
        });
        kill_now(second);
        last = second;
    }
    pings.assert_never_failed("/_ping");
    let output = run.wait_with_output().expect("it ends");
    assert_eq!(
        (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code()),
        (numbers(500), Some(9))
    );
    let (same, _, takeovers) = keepers(&lab).expect("it answers");
    assert_eq!((same, takeovers), (keeper, 0));
}
