//! `docker run -it` over an engine's restart: prompts come at once, and all that was said meanwhile comes before them.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use selvedge_tests::Lab;
use selvedge_tests::engine::Engine;
use selvedge_tests::host::Host;
use selvedge_tests::selvedge::Selvedge;
use selvedge_tests::wait::until_true;

const SOON: Duration = Duration::from_secs(20);

/// A foreground run in a terminal, by `script`, which makes one.
fn run(lab: &Lab, script: &str) -> Child {
    let docker = lab.selvedge.docker().command(&[]);
    let line = format!("{} run -it --name tty busybox sh -c '{script}'", docker.get_program().display());
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    command.envs(docker.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script can be started")
}

/// What comes out of it, from now on.
fn follow(mut from: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let got = Arc::new(Mutex::new(String::new()));
    let all = Arc::clone(&got);
    std::thread::spawn(move || {
        let mut buffer = [0; 65536];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            all.lock().expect("no panic").push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    });
    got
}

#[test]
fn a_terminal_gets_all_that_was_said_and_then_a_prompt_without_an_end() {
    let host = Host::new();
    let engine = Engine::debian(&host, &["--live-restore"]);
    let selvedge = Selvedge::start(&host, &engine, &["--worker-timeout", "60s"]);
    let lab = Lab { selvedge, engine, host };
    let script = "read go; sleep 1; seq 1000000 1199999; read name; printf \"name? \"; read name; exit 4";
    let mut child = run(&lab, script);
    let mut stdin = child.stdin.take().expect("piped");
    let got = follow(child.stdout.take().expect("piped"));
    let ends_with = |end: &str| got.lock().expect("no panic").ends_with(end);
    let docker = lab.engine.docker();
    until_true("it runs", SOON, || {
        docker.run(&["inspect", "--format", "{{.State.Running}}", "tty"]).stdout == "true\n"
    });
    stdin.write_all(b"go\n").expect("it reads");
    until_true("it is echoed", SOON, || ends_with("go\r\n"));
    // All is said, and that is much more than is held for any client, before the worker looks.
    let worker = Pid::from_raw(i32::try_from(lab.selvedge.worker()).expect("a pid"));
    kill(worker, Signal::SIGSTOP).expect("it lives");
    lab.engine.end(Signal::SIGKILL);
    lab.engine.start_again();
    until_true("all is said", SOON, || docker.run(&["logs", "--tail", "1", "tty"]).stdout == "1199999\r\n");
    kill(worker, Signal::SIGCONT).expect("it lives");
    until_true("all is read", SOON, || ends_with("1199999\r\n"));
    assert!(*got.lock().expect("no panic") == docker.run(&["logs", "tty"]).stdout);
    // It is in no log before its line ends.
    stdin.write_all(b"ask\n").expect("it reads");
    until_true("it asks", SOON, || ends_with("ask\r\nname? "));
    stdin.write_all(b"x\n").expect("it reads");
    assert_eq!(child.wait().expect("it ends").code(), Some(4));
}
