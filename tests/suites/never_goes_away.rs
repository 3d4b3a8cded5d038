//! Upgrades, crashes and kill -9 that no client notices.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use selvedge_tests::Lab;
use selvedge_tests::docker::Docker;
use selvedge_tests::http;
use selvedge_tests::selvedge::binary;
use selvedge_tests::wait::until_true;

/// A foreground `docker run` that counts, and ends with a code of its own.
struct Task(std::process::Child);

impl Task {
    fn start(docker: &Docker, seconds: u32) -> Self {
        let script =
            format!("i=0; while [ $i -lt {seconds} ]; do echo $i; i=$((i+1)); sleep 1; done; exit 7");
        Self(docker.spawn(&["run", "--rm", "busybox", "sh", "-c", &script]))
    }

    fn assert_ends_well(self, seconds: u32) {
        let output = self.0.wait_with_output().expect("it ends");
        let stderr = String::from_utf8_lossy(&output.stderr);
        let expected: String = (0..seconds).map(|number| format!("{number}\n")).collect();
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{stderr}");
        assert_eq!(output.status.code(), Some(7), "{stderr}");
    }
}

/// Does something over and over in a thread, and keeps what went wrong.
struct Steady {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u32, Vec<String>)>,
}

impl Steady {
    fn start(mut work: impl FnMut() -> Result<(), String> + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut rounds, mut failures) = (0, Vec::new());
            while !stopped.load(Relaxed) {
                rounds += 1;
                failures.extend(work().err());
            }
            (rounds, failures)
        });
        Self { stop, thread }
    }

    fn end(self) -> (u32, Vec<String>) {
        self.stop.store(true, Relaxed);
        self.thread.join().expect("the thread ends")
    }

    fn assert_never_failed(self, what: &str) {
        let (rounds, failures) = self.end();
        assert!(rounds > 0, "{what}: never tried");
        assert!(failures.is_empty(), "{what}: {} of {rounds} failed: {:?}", failures.len(), failures.first());
        println!("{what}: {rounds} times, none failed");
    }
}

/// A question for NAME's A record, by hand (RFC 1035, 4).
fn question(id: u16, name: &str) -> Vec<u8> {
    let mut out = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in name.split('.') {
        out.push(u8::try_from(label.len()).expect("a short label"));
        out.extend_from_slice(label.as_bytes());
    }
    out.extend_from_slice(&[0, 0, 1, 0, 1]);
    out
}

/// Asks a thousand times a second; how many were asked, and which never got an answer.
fn ask_names(lab: &Lab, name: &'static str) -> Steady {
    let socket = Arc::new(lab.host.udp("169.254.1.1:53"));
    // Longer than the keeper's pause before it starts a worker that keeps dying: what is asked meanwhile waits
    // in the socket, and is answered.
    socket.set_read_timeout(Some(Duration::from_secs(15))).expect("a timeout");
    let mut id = 0_u16;
    let waiting: Arc<Mutex<Option<String>>> = Arc::default();
    Steady::start(move || {
        id = id.wrapping_add(1);
        socket.send(&question(id, name)).map_err(|error| error.to_string())?;
        std::thread::sleep(Duration::from_micros(800));
        let result = answered(&socket, id);
        result.inspect_err(|error| {
            *waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
        })
    })
}

fn answered(socket: &UdpSocket, id: u16) -> Result<(), String> {
    let mut answer = [0; 512];
    loop {
        let len = socket.recv(&mut answer).map_err(|error| format!("query {id}: {error}"))?;
        if answer[..2] != id.to_be_bytes() {
            continue;
        }
        let answers = u16::from_be_bytes([answer[6], answer[7]]);
        return if len > 12 && answers == 1 { Ok(()) } else { Err(format!("query {id}: no address")) };
    }
}

fn api_calls(lab: &Lab) -> Steady {
    let socket = lab.socket();
    Steady::start(move || {
        let answer = http::get(&socket, "/containers/json").map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(()) } else { Err(format!("{}: {}", answer.status, answer.text())) }
    })
}

/// One client that keeps its connection: it must never read an end where it may send a request.
fn keep_alive(lab: &Lab) -> Steady {
    use std::io::{Read, Write};
    let mut stream = http::connect(&lab.socket()).expect("it listens");
    Steady::start(move || {
        stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n").map_err(|error| error.to_string())?;
        let (head, mut rest) = http::read_head(&mut stream).map_err(|error| error.to_string())?;
        while rest.len() < 2 {
            let mut byte = [0];
            stream.read_exact(&mut byte).map_err(|error| error.to_string())?;
            rest.push(byte[0]);
        }
        std::thread::sleep(Duration::from_millis(5));
        if http::status(&head) == 200 && rest == b"OK" { Ok(()) } else { Err(head) }
    })
}

#[test]
fn twenty_upgrades_are_noticed_by_nobody() {
    let lab = Lab::new();
    let docker = lab.selvedge.docker();
    docker.start(&["--name", "asked", "busybox", "sleep", "1000"]);
    let task = Task::start(&docker, 12);
    let exec = docker.spawn(&["exec", "asked", "sh", "-c", "sleep 6; exit 3"]);
    let names = ask_names(&lab, "asked.selvedge.internal");
    let (calls, kept) = (api_calls(&lab), keep_alive(&lab));
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        let began = Instant::now();
        let upgrade = lab.selvedge.ask(&["upgrade"]);
        assert_eq!(upgrade.code, 0, "{}{}", upgrade.stdout, upgrade.stderr);
        longest = longest.max(began.elapsed());
    }
    println!("20 upgrades, the longest took {longest:?}");
    names.assert_never_failed("DNS queries");
    calls.assert_never_failed("API calls on new connections");
    kept.assert_never_failed("API calls on one connection");
    let exec = exec.wait_with_output().expect("it ends");
    assert_eq!(exec.status.code(), Some(3), "{}", String::from_utf8_lossy(&exec.stderr));
    task.assert_ends_well(12);
    let out =
        docker.run(&["run", "--rm", "busybox", "ping", "-c", "1", "-W", "2", "asked.selvedge.internal"]);
    out.ok();
    assert_eq!(lab.selvedge.status()["keeper"]["upgrades"], 20);
}

#[test]
fn a_worker_that_is_killed_breaks_no_stream_and_refuses_nobody() {
    let lab = Lab::new();
    let docker = lab.selvedge.docker();
    docker.start(&["--name", "asked", "busybox", "sleep", "1000"]);
    let task = Task::start(&docker, 10);
    let socket = lab.socket();
    // New connections wait in the queue; only those in the dying worker's hands may break.
    let connects = Steady::start(move || {
        std::thread::sleep(Duration::from_millis(2));
        http::connect(&socket).map(drop).map_err(|error| error.to_string())
    });
    let names = ask_names(&lab, "asked.selvedge.internal");
    for _ in 0..10 {
        lab.selvedge.kill_worker();
        docker.run(&["run", "--rm", "busybox", "ping", "-c", "1", "-W", "2", "asked.selvedge.internal"]).ok();
    }
    connects.assert_never_failed("connections");
    let (asked, lost) = names.end();
    println!("DNS: {asked} queries, {} lost in 10 kills", lost.len());
    assert!(lost.len() <= 10, "at most the query in a dying worker's hands: {lost:?}");
    task.assert_ends_well(10);
}

#[test]
fn a_worker_that_stands_still_is_replaced_and_its_clients_are_served() {
    let lab = Lab::new();
    let docker = lab.selvedge.docker();
    docker.start(&["--name", "asked", "busybox", "sleep", "1000"]);
    let task = Task::start(&docker, 10);
    let socket = lab.socket();
    let hung = lab.selvedge.worker();
    kill(Pid::from_raw(i32::try_from(hung).expect("a pid")), Signal::SIGSTOP).expect("it lives");
    // Both wait in queues of the kernel, and are answered when another worker reads them.
    let names = ask_names(&lab, "asked.selvedge.internal");
    let ping = http::get(&socket, "/_ping").expect("an answer");
    assert_eq!(ping.status, 200);
    assert_ne!(lab.selvedge.worker(), hung);
    names.assert_never_failed("DNS queries");
    assert!(lab.selvedge.log().contains("has not answered for 5s: killed"), "{}", lab.selvedge.log());
    task.assert_ends_well(10);
}

#[test]
fn a_worker_whose_dns_hangs_is_replaced_and_its_clients_are_served() {
    let lab = Lab::new();
    let docker = lab.selvedge.docker();
    docker.start(&["--name", "asked", "busybox", "sleep", "1000"]);
    let task = Task::start(&docker, 10);
    let hung = lab.selvedge.worker();
    selvedge_tests::still::thread_of(hung, "dns");
    let names = ask_names(&lab, "asked.selvedge.internal");
    until_true("another worker", Duration::from_secs(20), || lab.selvedge.worker() != hung);
    names.assert_never_failed("DNS queries");
    assert!(lab.selvedge.log().contains("the DNS thread has not answered"), "{}", lab.selvedge.log());
    task.assert_ends_well(10);
}

#[test]
fn a_start_that_a_killed_worker_left_is_finished_by_the_next() {
    let lab = Lab::new();
    let docker = lab.selvedge.docker();
    for round in 0..8 {
        let name = format!("left-{round}");
        docker
            .run(&["create", "--name", &name, "busybox", "sh", "-c", "ip addr show selvedge0 && sleep 1000"])
            .ok();
        let start = docker.spawn(&["start", &name]);
        std::thread::sleep(Duration::from_millis(20 * round));
        let worker = i32::try_from(lab.selvedge.worker()).expect("a pid");
        let _ = kill(Pid::from_raw(worker), Signal::SIGKILL);
        let start = start.wait_with_output().expect("it ends");
        assert!(start.status.success(), "round {round}: {}", String::from_utf8_lossy(&start.stderr));
        let out = || docker.run(&["logs", &name]).stdout.contains("10.32.0.");
        until_true("its program runs with its wire", Duration::from_secs(5), out);
    }
}

#[test]
fn the_keeper_is_replaced_in_place_under_running_streams() {
    let lab = Lab::new();
    let docker = lab.selvedge.docker();
    docker.start(&["--name", "asked", "busybox", "sleep", "1000"]);
    let task = Task::start(&docker, 8);
    let bulk =
        docker.spawn(&["run", "--rm", "busybox", "sh", "-c", "head -c 200000000 /dev/zero | tr '\\0' x"]);
    let names = ask_names(&lab, "asked.selvedge.internal");
    let pid = lab.selvedge.status()["keeper"]["pid"].clone();
    for _ in 0..10 {
        let replaced = lab.selvedge.ask(&["upgrade", "--keeper"]);
        assert_eq!(replaced.code, 0, "{}{}", replaced.stdout, replaced.stderr);
    }
    assert_eq!(lab.selvedge.status()["keeper"]["pid"], pid);
    names.assert_never_failed("DNS queries");
    let bulk = bulk.wait_with_output().expect("it ends");
    assert_eq!(bulk.stdout.len(), 200_000_000, "{}", String::from_utf8_lossy(&bulk.stderr));
    assert!(bulk.stdout.iter().all(|byte| *byte == b'x'), "a byte was changed");
    task.assert_ends_well(8);
}

#[test]
fn a_binary_that_is_no_good_changes_nothing() {
    let lab = Lab::new();
    let worker = lab.selvedge.worker();
    let text = lab.host.path("text");
    std::fs::write(&text, "not a program").expect("a file can be made");
    let cases =
        ["/nonexistent", "/etc/passwd", "/bin/true", "/bin/false", text.to_str().expect("a plain path")];
    for bad in cases {
        let refused = lab.selvedge.ask(&["upgrade", "--binary", bad]);
        assert_eq!(refused.code, 1, "{bad}: {}", refused.stdout);
        assert_eq!(refused.stderr.lines().count(), 1, "{bad}: {}", refused.stderr);
    }
    let hangs = lab.host.path("hangs");
    std::fs::write(&hangs, "#!/bin/sh\nexec sleep 1000\n").expect("a file can be made");
    lab.host.sh(&format!("chmod +x {}", hangs.display())).ok();
    let refused =
        lab.selvedge.ask(&["upgrade", "--timeout", "1s", "--binary", hangs.to_str().expect("a plain path")]);
    assert_eq!(refused.code, 1, "{}", refused.stdout);
    assert_eq!(lab.selvedge.worker(), worker, "the old worker goes on");
    let good = binary();
    let done = lab.selvedge.ask(&["upgrade", "--binary", good.to_str().expect("a plain path")]);
    assert_eq!(done.code, 0, "{}{}", done.stdout, done.stderr);
    assert_ne!(lab.selvedge.worker(), worker);
}

#[test]
fn status_is_answered_throughout_upgrades() {
    let lab = Lab::new();
    let over = AtomicBool::new(false);
    let ask = || {
        while !over.load(Relaxed) {
            lab.selvedge.ask(&["status", "--json"]).ok();
        }
    };
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        for _ in 0..6 {
            lab.selvedge.ask(&["upgrade"]).ok();
        }
        over.store(true, Relaxed);
        asking.into_iter().for_each(|thread| thread.join().expect("status is answered each time"));
    });
}
