//! What users type, and what they read.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use selvedge_tests::Lab;
use selvedge_tests::host::Host;
use selvedge_tests::selvedge::{Selvedge, binary};
use selvedge_tests::shell::{Output, run};

fn selvedge(arguments: &[&str]) -> Output {
    run(Command::new(binary()).args(arguments), b"")
}

#[test]
fn wrong_usage_ends_with_two_and_one_line() {
    for arguments in [
        &["run", "--pool", "10.0.0.1/8"][..],
        &["run", "--listen", "tcp://0.0.0.0:2375"],
        &["run", "--engine-wait", "soon"],
        &["run", "--config", "/nonexistent.toml"],
        &["run", "--dns-listen", "127.0.0.1:53"],
        &["check", "--compat", "kubernetes"],
    ] {
        let output = selvedge(arguments);
        assert_eq!(output.code, 2, "{arguments:?}: {}", output.stderr);
        assert_eq!(output.stderr.lines().count(), 1, "{arguments:?}: {}", output.stderr);
        assert!(output.stderr.starts_with("selvedge: "), "{}", output.stderr);
    }
    assert_eq!(selvedge(&["run", "--no-such-flag"]).code, 2);
    assert_eq!(selvedge(&[]).code, 2);
}

#[test]
fn help_tells_every_setting_with_its_environment_variable() {
    let help = selvedge(&["run", "--help"]);
    for flag in [
        "listen",
        "engine",
        "runtime-dir",
        "wait-path",
        "pool",
        "block-size",
        "domain",
        "dns-listen",
        "engine-wait",
        "compat",
        "config",
        "log",
    ] {
        let variable = format!("SELVEDGE_{}", flag.to_uppercase().replace('-', "_"));
        assert!(help.stdout.contains(&format!("--{flag}")), "{flag}");
        assert!(help.stdout.contains(&variable), "{variable}");
    }
}

#[test]
fn nobody_there_is_told_in_one_line_and_one() {
    for verb in ["status", "ps"] {
        let output = selvedge(&[verb, "--runtime-dir", "/nonexistent"]);
        assert_eq!(output.code, 1);
        assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
        assert!(output.stderr.contains("/nonexistent/admin.sock"), "{}", output.stderr);
    }
}

#[test]
fn status_and_ps_tell_what_runs() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    docker.start(&["--name", "cli-shown", "--label", "selvedge.tenant=shop", "busybox", "sleep", "1000"]);
    let shown = lab.selvedge.shown("cli-shown").expect("it is shown");
    assert_eq!(shown["state"], "wired");
    assert_eq!(shown["tenant"], "shop");
    assert_eq!(shown["address"].as_str(), Some(docker.address("cli-shown").as_str()));
    assert_eq!(shown["names"][0], "cli-shown.selvedge.internal");
    let table = lab.selvedge.ask(&["ps"]);
    assert!(
        table.ok().lines().next().is_some_and(|head| head.starts_with("CONTAINER ID")),
        "{}",
        table.stdout
    );
    assert!(table.stdout.contains("cli-shown"));
    let status = lab.selvedge.status();
    assert_eq!(status["engine"]["up"], true);
    assert_eq!(status["engine"]["api"], "1.41");
    assert!(status["worker"]["pid"].as_u64().is_some_and(|pid| pid > 1));
    let text = lab.selvedge.ask(&["status"]);
    for word in ["version", "worker", "keeper", "engine", "dns"] {
        assert!(text.ok().lines().any(|line| line.starts_with(word)), "{word}: {}", text.stdout);
    }
    docker.remove(&["cli-shown"]);
}

#[test]
fn check_finds_this_machine_fit_and_a_bad_one_not() {
    let lab = Lab::shared();
    let engine = format!("unix://{}", lab.engine.socket.display());
    let wait = lab.host.path("wait").display().to_string();
    let runtime = lab.host.path("run").display().to_string();
    let own = ["check", "--engine", &engine, "--wait-path", &wait, "--runtime-dir", &runtime];
    let fit = run(&mut lab.selvedge.command(&own), b"");
    assert_eq!(fit.code, 0, "{}{}", fit.stdout, fit.stderr);
    lab.host.sh("ip route add 10.96.5.0/24 dev lo").ok();
    let clash = run(&mut lab.selvedge.command(&[&own[..], &["--pool", "10.96.0.0/16"]].concat()), b"");
    assert_eq!(clash.code, 1);
    assert!(clash.stdout.contains("FAIL") && clash.stdout.contains("10.96.5.0/24"), "{}", clash.stdout);
    let absent = run(
        &mut lab.selvedge.command(&["check", "--engine", "unix:///nonexistent.sock", "--wait-path", &wait]),
        b"",
    );
    assert_eq!(absent.code, 1);
    assert!(absent.stdout.contains("/nonexistent.sock"), "{}", absent.stdout);
}

#[test]
fn the_socket_takes_owner_and_mode_from_the_engines() {
    let lab = Lab::shared();
    let ours = std::fs::metadata(lab.socket()).expect("our socket");
    let engines = std::fs::metadata(&lab.engine.socket).expect("the engine's socket");
    assert_eq!(ours.permissions().mode() & 0o777, engines.permissions().mode() & 0o777);
    assert_eq!((ours.uid(), ours.gid()), (engines.uid(), engines.gid()));
}

#[test]
fn a_second_selvedge_on_the_same_runtime_directory_is_refused() {
    let lab = Lab::shared();
    let engine = format!("unix://{}", lab.engine.socket.display());
    let runtime = lab.host.path("run").display().to_string();
    let wait = lab.host.path("wait").display().to_string();
    let second = ["run", "--engine", &engine, "--runtime-dir", &runtime, "--wait-path", &wait];
    let output = run(&mut lab.selvedge.command(&second), b"");
    assert_eq!(output.code, 1, "{}", output.stderr);
    assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
    assert_eq!(lab.selvedge.docker().run(&["version", "--format", "{{.Server.APIVersion}}"]).ok(), "1.41");
}

#[test]
fn several_selvedges_run_on_one_machine() {
    let lab = Lab::shared();
    // Another directory and socket; the same engine, the same namespace.
    let beside = Host::beside(&lab.host);
    let second = Selvedge::prepare(
        &beside,
        &lab.engine.socket,
        &["--pool", "10.112.0.0/16", "--dns-listen", "169.254.1.2:53"],
    );
    second.start_again();
    let (first, second_docker) = (lab.selvedge.docker(), second.docker());
    first.start(&["--name", "cli-of-first", "busybox", "sleep", "1000"]);
    second_docker.start(&["--name", "cli-of-second", "busybox", "sleep", "1000"]);
    assert!(first.address("cli-of-first").starts_with("10.32."));
    assert!(second_docker.address("cli-of-second").starts_with("10.112."));
    assert!(lab.selvedge.shown("cli-of-second").is_none() && second.shown("cli-of-first").is_none());
    second.stop();
    second.start_again();
    // Long enough for several rounds of looking after wires.
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert_eq!(lab.host.wires().len(), 2 + usize::from(lab.selvedge.shown("cli-shown").is_some()));
    first.remove(&["cli-of-first", "cli-of-second"]);
}

#[test]
fn flags_environment_and_file_say_the_same() {
    let host = Host::new();
    let file = host.path("selvedge.toml");
    std::fs::write(&file, "pool = \"10.32.0.1/12\"\n").expect("a file can be made");
    let by_file = selvedge(&["check", "--config", file.to_str().expect("a plain path")]);
    let by_flag = selvedge(&["check", "--pool", "10.32.0.1/12"]);
    let by_environment = run(Command::new(binary()).arg("check").env("SELVEDGE_POOL", "10.32.0.1/12"), b"");
    assert_eq!(by_flag.code, 2);
    assert_eq!((by_file.code, &by_file.stderr), (2, &by_flag.stderr));
    assert_eq!((by_environment.code, &by_environment.stderr), (2, &by_flag.stderr));
}

#[test]
fn logs_can_be_json_and_hold_no_environment() {
    let lab = Lab::new();
    lab.selvedge.stop();
    drop(lab.engine.docker().run(&["version"]));
    let selvedge =
        Selvedge::prepare(&lab.host, &lab.engine.socket, &["--log-format", "json", "--log", "trace"]);
    std::fs::remove_file(selvedge.log_path()).expect("the log of the first");
    selvedge.start_again();
    let docker = selvedge.docker();
    docker
        .run(&["run", "--rm", "--name", "cli-secret", "-e", "TOKEN=xyzzy-4711", "busybox", "sleep", "1"])
        .ok();
    let log = selvedge.log();
    assert!(!log.contains("xyzzy-4711"), "a value of the environment is in the log");
    let wired = log.lines().find(|line| line.contains("\"wired\"")).expect("a line about the wire");
    let line: serde_json::Value = serde_json::from_str(wired).expect("a line of JSON");
    assert_eq!(line["fields"]["name"], "cli-secret");
    selvedge.stop();
}
