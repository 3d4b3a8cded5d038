//! The engine restarts, and its clients do not notice: docker run, wait, attach, logs -f and events go on.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Output};
use std::time::Duration;

use nix::sys::signal::Signal;
use selvedge_tests::Lab;
use selvedge_tests::custody::killer::{end, worker_of};
use selvedge_tests::docker::Docker;
use selvedge_tests::http;
use selvedge_tests::selvedge::Selvedge;
use selvedge_tests::wait::until_true;

const SOON: Duration = Duration::from_secs(20);

/// Counts on stdout and stderr in turn, some ten lines a second, and ends with code 7.
fn counter(lines: u32) -> String {
    format!(
        "i=0; while [ $i -lt {lines} ]; do echo out $i; echo err $i >&2; i=$((i+1)); sleep 0.1; done; exit 7"
    )
}

fn expected(stream: &str, lines: u32) -> String {
    (0..lines).map(|number| format!("{stream} {number}\n")).collect()
}

fn both(output: &Output) -> (String, String) {
    (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// A client must have what the engine has logged, in order and once. An engine may get a line before the other one does
/// who should have it: what it had sent and not yet logged when it ended, only the client has; what it had taken from the
/// container and neither sent nor logged, nobody has.
fn has_what_was_logged(client: &str, logged: &str, all: &str) {
    let place: HashMap<&str, usize> = all.lines().zip(0..).collect();
    let places = |text: &str| -> Vec<usize> {
        text.lines()
            .map(|line| *place.get(line).unwrap_or_else(|| panic!("{line:?} was never said")))
            .collect()
    };
    let (has, should) = (places(client), places(logged));
    assert!(has.is_sorted_by(|one, next| one < next), "in order, and once: {client}");
    let lacks: Vec<_> = should.iter().filter(|line| has.binary_search(line).is_err()).collect();
    assert!(lacks.is_empty(), "logged, and not sent: {lacks:?} of {client}");
    assert!(place.len() - has.len() <= 4, "an engine that ends loses a line, not so many: {client}");
}

/// Whether one is the other but for one piece that it lacks.
fn lacks_one_piece(lacking: &[u8], whole: &[u8]) -> bool {
    let same = |(one, other): &(&u8, &u8)| one == other;
    let before = lacking.iter().zip(whole).take_while(same).count();
    let after = lacking.iter().rev().zip(whole.iter().rev()).take_while(same).count();
    lacking.len() <= whole.len() && before + after >= lacking.len()
}

/// The engine goes and comes back, by turns in order and by kill -9.
fn restart(lab: &Lab, times: usize) {
    for signal in [Signal::SIGTERM, Signal::SIGKILL].into_iter().cycle().take(times) {
        lab.engine.end(signal);
        std::thread::sleep(Duration::from_millis(300));
        lab.engine.start_again();
        std::thread::sleep(Duration::from_millis(1500));
    }
}

/// A foreground run, when its container is there.
fn run(docker: &Docker, name: &str, options: &[&str], script: &str) -> Child {
    let child = docker.spawn(&[&["run", "--name", name], options, &["busybox", "sh", "-c", script]].concat());
    until_true("it runs", SOON, || docker.run(&["inspect", name]).code == 0 && is_running(docker, name));
    child
}

fn is_running(docker: &Docker, name: &str) -> bool {
    docker.inspect(name)["State"]["Running"] == true
}

#[test]
fn a_foreground_run_lives_through_three_restarts_and_loses_nothing() {
    let lab = Lab::with_engine(&["--live-restore"]);
    for program in Docker::programs() {
        let docker = lab.selvedge.docker().with_program(program);
        let child = run(&docker, "steady", &[], &counter(120));
        restart(&lab, 3);
        let output = child.wait_with_output().expect("it ends");
        let (stdout, stderr) = both(&output);
        let logged = docker.run(&["logs", "steady"]);
        has_what_was_logged(&stdout, &logged.stdout, &expected("out", 120));
        has_what_was_logged(&stderr, &logged.stderr, &expected("err", 120));
        assert_eq!(output.status.code(), Some(7));
        docker.remove(&["steady"]);
    }
}

#[test]
fn a_run_that_ends_while_the_engine_is_away_ends_with_its_code_and_what_was_logged() {
    let lab = Lab::with_engine(&["--live-restore"]);
    let docker = lab.selvedge.docker();
    let child = run(&docker, "short", &[], "echo first; sleep 3; echo last; exit 5");
    until_true("its first words are logged", SOON, || docker.run(&["logs", "short"]).stdout == "first\n");
    lab.engine.end(Signal::SIGKILL);
    std::thread::sleep(Duration::from_secs(4));
    lab.engine.start_again();
    let output = child.wait_with_output().expect("it ends");
    let (stdout, stderr) = both(&output);
    // An engine does not read the pipe of a container that it finds dead: its last words are not in its log either.
    let logged = docker.run(&["logs", "short"]).stdout;
    assert!(logged.starts_with("first\n"), "{logged}");
    assert_eq!((stdout, stderr.as_str(), output.status.code()), (logged, "", Some(5)));
}

#[test]
fn without_live_restore_the_code_is_that_of_the_engines_kill() {
    let lab = Lab::new();
    let docker = lab.selvedge.docker();
    let child = run(&docker, "killed", &[], "trap 'exit 9' TERM; while :; do sleep 0.1; done");
    lab.engine.end(Signal::SIGTERM);
    lab.engine.start_again();
    let output = child.wait_with_output().expect("it ends");
    let code = docker.inspect("killed")["State"]["ExitCode"].as_i64();
    assert_eq!(output.status.code().map(i64::from), code, "{:?}", both(&output));
}

#[test]
fn a_terminal_and_stdin_go_on() {
    let lab = Lab::with_engine(&["--live-restore"]);
    let docker = lab.selvedge.docker();
    // An engine that came back does not close a container's stdin any more, so this one ends by itself.
    let script = "read line; echo got $line; read line; echo got $line; exit 4";
    let mut child = run(&docker, "reads", &["-i"], script);
    let mut stdin = child.stdin.take().expect("piped");
    // It has said nothing yet.
    restart(&lab, 1);
    stdin.write_all(b"one\n").expect("it reads");
    until_true("it has read", SOON, || docker.run(&["logs", "reads"]).stdout == "got one\n");
    restart(&lab, 1);
    stdin.write_all(b"two\n").expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((both(&output).0.as_str(), output.status.code()), ("got one\ngot two\n", Some(4)));
    let child = run(&docker, "tty", &["-t"], &counter(60));
    restart(&lab, 1);
    let output = child.wait_with_output().expect("it ends");
    let lines: String = (0..60).map(|number| format!("out {number}\r\nerr {number}\r\n")).collect();
    assert_eq!((both(&output).0, output.status.code()), (lines, Some(7)));
}

#[test]
fn logs_and_events_go_on_without_loss_or_repetition() {
    let lab = Lab::with_engine(&["--live-restore"]);
    let docker = lab.selvedge.docker();
    docker.start(&["--name", "talks", "busybox", "sh", "-c", &counter(150)]);
    let logs = docker.spawn(&["logs", "-f", "talks"]);
    let stamped = docker.spawn(&["logs", "-f", "-t", "talks"]);
    let events = docker.spawn(&[
        "events",
        "--filter",
        "type=container",
        "--format",
        "{{.Action}} {{.Actor.Attributes.name}}",
    ]);
    // When it hears, it hears all.
    until_true("events are followed", SOON, || {
        lab.selvedge.status()["keeper"]["streams"].as_array().is_some_and(|all| all.len() >= 3)
    });
    docker.run(&["create", "--name", "before", "busybox", "true"]).ok();
    restart(&lab, 2);
    docker.run(&["create", "--name", "after", "busybox", "true"]).ok();
    for (child, skip) in [(logs, 0), (stamped, 31)] {
        let output = child.wait_with_output().expect("it ends with its container");
        let (stdout, stderr) = both(&output);
        let bare: String = stdout.lines().map(|line| format!("{}\n", &line[skip..])).collect();
        assert_eq!(bare, expected("out", 150), "{stderr}");
        assert_eq!(stderr.lines().count(), 150);
    }
    std::thread::sleep(Duration::from_secs(1));
    let pid = i32::try_from(events.id()).expect("a pid");
    // Not SIGINT, which a shell in the background has its children ignore.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM).expect("it lives");
    let (heard, _) = both(&events.wait_with_output().expect("it ends"));
    assert_eq!(heard.lines().filter(|line| *line == "create before").count(), 1, "{heard}");
    assert_eq!(heard.lines().filter(|line| *line == "create after").count(), 1, "{heard}");
    assert_eq!(heard.lines().filter(|line| *line == "die talks").count(), 1, "{heard}");
}

#[test]
fn a_wait_is_answered_for_whatever_happened_meanwhile() {
    let lab = Lab::with_engine(&["--live-restore"]);
    let docker = lab.selvedge.docker();
    docker.start(&["--name", "early", "busybox", "sh", "-c", "sleep 2; exit 11"]);
    docker.start(&["--name", "late", "busybox", "sh", "-c", "sleep 9; exit 12"]);
    docker.start(&["--name", "gone", "busybox", "sleep", "1000"]);
    let waits: Vec<_> = ["early", "late", "gone"].map(|name| (name, docker.spawn(&["wait", name]))).into();
    std::thread::sleep(Duration::from_millis(500));
    lab.engine.end(Signal::SIGKILL);
    std::thread::sleep(Duration::from_secs(2));
    lab.engine.start_again();
    until_true("early has ended", SOON, || !is_running(&docker, "early"));
    docker.run(&["rm", "-f", "gone"]).ok();
    for ((name, child), code) in waits.into_iter().zip(["11", "12", "137"]) {
        let output = child.wait_with_output().expect("it ends");
        let told = both(&output).0.trim().to_owned();
        // Of what ended while it was away this engine may itself not find out the code: under load it says 255.
        let engines = lab.engine.docker().run(&["inspect", "--format", "{{.State.ExitCode}}", name]).stdout;
        let expected = if engines.trim() == "255" { "255" } else { code };
        assert_eq!(told, expected, "{name}: {:?}", both(&output));
    }
}

#[test]
fn workers_that_come_and_go_meanwhile_change_nothing() {
    let lab = Lab::with_engine(&["--live-restore"]);
    let docker = lab.selvedge.docker();
    let child = run(&docker, "steady", &[], &counter(120));
    for round in 0..3 {
        lab.engine.end(Signal::SIGKILL);
        // The one that was told of the end is not the one that goes on.
        std::thread::sleep(Duration::from_millis(300));
        match round {
            0 => lab.selvedge.kill_worker(),
            1 => drop(lab.selvedge.ask(&["upgrade", "--keeper"])),
            _ => lab.engine.start_again(),
        }
        if round < 2 {
            lab.engine.start_again();
        }
        std::thread::sleep(Duration::from_millis(1200));
    }
    lab.selvedge.kill_worker();
    let output = child.wait_with_output().expect("it ends");
    let (stdout, stderr) = both(&output);
    let logged = docker.run(&["logs", "steady"]);
    has_what_was_logged(&stdout, &logged.stdout, &expected("out", 120));
    has_what_was_logged(&stderr, &logged.stderr, &expected("err", 120));
    assert_eq!(output.status.code(), Some(7));
}

#[test]
fn bulk_output_goes_on_at_the_byte() {
    let lab = Lab::with_engine(&["--live-restore"]);
    let docker = lab.selvedge.docker();
    // More than any buffer on the way holds, and a client that does not read: the engine goes away in mid-frame.
    let script = "i=10; while [ $i -lt 3000 ]; do seq ${i}000 ${i}099; i=$((i+1)); done";
    let said: String =
        (10..3000).flat_map(|i| (0..100).map(move |n| format!("{}\n", i * 1000 + n))).collect();
    let child = run(&docker, "bulk", &[], script);
    restart(&lab, 1);
    let (stdout, stderr) = both(&child.wait_with_output().expect("it ends"));
    let logged = docker.run(&["logs", "bulk"]).stdout;
    // An engine that ends loses up to a megabyte that it has sent and not logged yet.
    assert!(logged.len() > 500_000, "{} bytes logged: {stderr}", logged.len());
    assert!(lacks_one_piece(logged.as_bytes(), stdout.as_bytes()), "{} of {}", stdout.len(), logged.len());
    assert!(lacks_one_piece(stdout.as_bytes(), said.as_bytes()), "{} of {}", stdout.len(), said.len());
}

/// Says 80,000 lines on stdout, and on stderr what it reads, until it reads "end".
const READS_AND_SAYS: &str = r#"
    (i=10; while [ $i -lt 90 ]; do
        awk -v i=$i 'BEGIN { for (n = 0; n < 1000; n++) printf "%d%03d and so on, up to half a hundred bytes\n", i, n }'
        i=$((i+1)); sleep 0.05
    done) &
    while read line; do echo got $line >&2; [ "$line" = end ] && break; done; wait; exit 4"#;

/// Sends a line, and waits until the container has read it.
fn types(lab: &Lab, name: &str, stdin: &mut ChildStdin, line: &str) {
    stdin.write_all(format!("{line}\n").as_bytes()).expect("it reads");
    let docker = lab.selvedge.docker();
    until_true(&format!("{line} is read"), SOON, || {
        docker.run(&["logs", name]).stderr.lines().any(|read| read == format!("got {line}"))
    });
}

#[test]
fn input_goes_on_beside_bulk_output_of_which_no_byte_is_lost() {
    let labs = [Lab::with_engine(&["--live-restore"]), Lab::of_trixie(&["--live-restore"])];
    let rounds = [(0, Signal::SIGKILL, false), (0, Signal::SIGTERM, true), (1, Signal::SIGKILL, true)];
    for (lab, signal, kills_worker) in rounds.map(|(at, signal, kills)| (&labs[at], signal, kills)) {
        let docker = lab.selvedge.docker();
        let mut child = run(&docker, "both", &["-i"], READS_AND_SAYS);
        let mut stdin = child.stdin.take().expect("piped");
        // A client that does not read its output has its input held up, too, until it has got what the last engine said.
        let reader = std::thread::spawn(|| child.wait_with_output());
        types(lab, "both", &mut stdin, "before");
        lab.engine.end(signal);
        stdin.write_all(b"meanwhile\n").expect("there is room");
        lab.engine.start_again();
        types(lab, "both", &mut stdin, "after");
        // Now its output comes from the log, of which an engine sends nothing that is not in it.
        lab.engine.end(Signal::SIGKILL);
        if kills_worker {
            lab.selvedge.kill_worker();
        }
        lab.engine.start_again();
        types(lab, "both", &mut stdin, "again");
        if kills_worker {
            lab.selvedge.kill_worker();
        }
        types(lab, "both", &mut stdin, "end");
        let output = reader.join().expect("no panic").expect("it ends");
        let logged = docker.run(&["logs", "both"]);
        let (got, all, stderr) = (&output.stdout, logged.stdout.as_bytes(), both(&output).1);
        assert!(all.len() > 1_000_000 && lacks_one_piece(all, got), "{} of {}", got.len(), all.len());
        assert_eq!((stderr.as_str(), output.status.code()), (logged.stderr.as_str(), Some(4)));
        assert_eq!(stderr, "got before\ngot meanwhile\ngot after\ngot again\ngot end\n");
        docker.remove(&["both"]);
    }
}

#[test]
fn a_client_is_told_where_output_may_be_missing() {
    let lab = Lab::with_engine(&["--live-restore"]);
    let docker = lab.selvedge.docker();
    let script = "echo one; read line; echo got $line; exit 4";
    let mut child = run(&docker, "mute", &["-i", "--log-driver", "none"], script);
    let mut stdin = child.stdin.take().expect("piped");
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("it speaks");
    restart(&lab, 1);
    stdin.write_all(b"two\n").expect("it reads");
    stdout.read_to_string(&mut line).expect("it ends");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((line.as_str(), output.status.code()), ("one\ngot two\n", Some(4)));
    let told = both(&output).1;
    assert!(told.starts_with("selvedge: the engine restarted, and output may be missing"), "{told}");
}

#[test]
fn an_engine_that_stays_away_is_told_after_the_wait() {
    let lab = Lab::with_engine(&["--live-restore"]);
    lab.engine.end(Signal::SIGTERM);
    lab.selvedge.stop();
    let quick = Selvedge::prepare(&lab.host, &lab.engine.socket, &["--engine-wait", "1s"]);
    quick.spawn();
    until_true("it serves", SOON, || http::connect(&quick.socket()).is_ok());
    for path in ["/_ping", "/v1.41/containers/json", "/v1.41/containers/x/wait"] {
        let method = if path.ends_with("wait") { "POST" } else { "GET" };
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = http::send(&quick.socket(), request.as_bytes()).expect("an answer");
        assert_eq!(answer.status, 503, "{path}");
        assert!(answer.text().contains("cannot connect to the Docker engine"), "{path}: {}", answer.text());
    }
}

/// Asks for something while the engine stands still, lets something happen, and gives the answer.
fn asked_meanwhile(lab: &Lab, path: &str, body: &str, happens: impl FnOnce()) -> http::Answer {
    let socket = lab.selvedge.socket();
    std::thread::scope(|scope| {
        let paused = lab.engine.paused();
        let asks = scope.spawn(|| http::post(&socket, path, body));
        std::thread::sleep(Duration::from_millis(400));
        happens();
        drop(paused);
        asks.join().expect("no panic").expect("an answer")
    })
}

fn create_and_start_are_done_once(lab: &Lab, happens: impl Fn()) {
    let docker = lab.selvedge.docker();
    let body = r#"{"Image":"busybox","Cmd":["sh","-c","echo began; sleep 1000"]}"#;
    for (name, query) in [("named", "?name=named"), ("", "")] {
        let before = docker.run(&["ps", "-aq"]).stdout.lines().count();
        let answer = asked_meanwhile(lab, &format!("/containers/create{query}"), body, &happens);
        assert_eq!(answer.status, 201, "{name}: {}", answer.text());
        let text = answer.text();
        let id = text.split('"').nth(3).expect("an id").to_owned();
        assert_eq!(docker.run(&["ps", "-aq"]).stdout.lines().count(), before + 1, "{name}");
        let answer = asked_meanwhile(lab, &format!("/containers/{id}/start"), "", &happens);
        assert_eq!(answer.status, 204, "{name}: {}", answer.text());
        until_true("it began", SOON, || docker.run(&["logs", &id]).stdout.contains("began"));
        assert_eq!(docker.run(&["logs", &id]).stdout, "began\n", "{name}: it ran twice");
        assert!(docker.address(&id).starts_with("10.32."), "{name}");
    }
}

#[test]
fn what_a_killed_worker_had_in_its_hands_is_done_once_and_answered() {
    let lab = Lab::new();
    let killed = || {
        let worker = || worker_of(lab.selvedge.keeper());
        let old = worker().expect("a worker");
        end(old);
        until_true("another worker", SOON, || worker().is_some_and(|pid| pid != old));
        std::thread::sleep(Duration::from_millis(300));
    };
    create_and_start_are_done_once(&lab, killed);
}

#[test]
fn what_a_killed_engine_had_in_its_hands_is_done_once_and_answered() {
    let lab = Lab::with_engine(&["--live-restore"]);
    create_and_start_are_done_once(&lab, || {
        lab.engine.end(Signal::SIGKILL);
        lab.engine.start_again();
    });
}
