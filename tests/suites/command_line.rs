//! What users type, and what they read.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use std::time::Duration;

use selvedge_tests::Lab;
use selvedge_tests::host::Host;
use selvedge_tests::selvedge::{Selvedge, binary};
use selvedge_tests::shell::{Output, run, timed};
use selvedge_tests::wait::until_true;

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
fn an_error_in_a_setting_names_the_flag_the_variable_or_the_file_that_holds_it() {
    let host = Host::new();
    let file = host.path("selvedge.toml");
    std::fs::write(&file, "pool = \"10.32.0.1/12\"\n").expect("a file can be made");
    let by_file = selvedge(&["check", "--config", file.to_str().expect("a plain path")]);
    let by_flag = selvedge(&["check", "--pool", "10.32.0.1/12"]);
    let by_environment = run(Command::new(binary()).arg("check").env("SELVEDGE_POOL", "10.32.0.1/12"), b"");
    let reason = "\"10.32.0.1/12\": must be a network address with a prefix length of 4 to 28\n";
    assert_eq!((by_flag.code, &by_flag.stderr), (2, &format!("selvedge: --pool {reason}")));
    assert_eq!(
        (by_environment.code, &by_environment.stderr),
        (2, &format!("selvedge: SELVEDGE_POOL {reason}"))
    );
    assert_eq!(
        (by_file.code, &by_file.stderr),
        (2, &format!("selvedge: {}: pool = {reason}", file.display()))
    );
    // What clap itself reads, too.
    let number = run(Command::new(binary()).arg("check").env("SELVEDGE_BLOCK_SIZE", "big"), b"");
    assert_eq!(number.code, 2);
    assert_eq!(number.stderr, "selvedge: SELVEDGE_BLOCK_SIZE \"big\": invalid digit found in string\n");
    let by_flag = selvedge(&["check", "--block-size", "big"]);
    assert!(by_flag.stderr.contains("'--block-size <BITS>'"), "{}", by_flag.stderr);
}

#[test]
fn a_typing_error_in_the_file_is_answered_in_one_line_with_what_was_meant() {
    let host = Host::new();
    let file = host.path("selvedge.toml");
    let say = |text: &str| {
        std::fs::write(&file, text).expect("a file can be made");
        selvedge(&["check", "--config", file.to_str().expect("a plain path")])
    };
    let told = say("pool = \"10.64.0.0/16\"\ndns-lisen = \"169.254.1.1:53\"\n");
    let reason = "line 2: there is no key dns-lisen; did you mean dns-listen?";
    assert_eq!(
        (told.code, told.stderr),
        (2, format!("selvedge: cannot read {}: {reason}\n", file.display()))
    );
    let told = say("pool = 10.64.0.0/16\n");
    assert!(told.stderr.ends_with("line 1: pool wants quotes: pool = \"10.64.0.0/16\"\n"), "{}", told.stderr);
}

#[test]
fn a_log_that_goes_to_a_file_has_one_grammar_and_no_colours() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    let id = docker.start(&["--name", "cli-logged", "busybox", "sleep", "1000"]);
    docker.remove(&["cli-logged"]);
    let log = lab.selvedge.log();
    let wired = log.lines().find(|line| line.contains("wired") && line.contains("cli-logged"));
    let wired = wired.expect("a line about the wire");
    assert!(wired.contains(&format!(" container={} name=cli-logged ", &id[..12])), "{wired}");
    assert!(wired.contains(" request=") && wired.matches("container=").count() == 1, "{wired}");
    assert!(log.lines().any(|line| line.contains(" INFO keeper: worker 0 ")), "the keeper's lines are alike");
    assert!(!log.contains('\u{1b}') && !log.contains("=[]") && !log.contains("container=\""), "{log}");
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
    let (request, container) = (&line["fields"]["request"], &line["fields"]["container"]);
    // From the thread that enters the container's namespace, too.
    for message in ["looked after its wire", "its names are answered", "its program may run"] {
        let fields = || log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let mut of_it = fields().filter(|line| line["fields"]["container"] == *container);
        let told =
            of_it.find(|line| line["fields"]["message"] == message).unwrap_or_else(|| panic!("{message}"));
        assert_eq!(told["fields"]["request"], *request, "{told}");
    }
    let of_keeper =
        log.lines().find(|line| line.contains("keeper: worker 0 ")).expect("a line of the keeper's");
    let line: serde_json::Value = serde_json::from_str(of_keeper).expect("a line of JSON, too");
    assert_eq!(line["level"], "INFO");
    selvedge.stop();
}

/// `selvedge check` in a host that has no engine, with these options.
fn check(host: &Host, arguments: &[&str]) -> Output {
    let runtime = host.path("run").display().to_string();
    let wait = host.path("wait").display().to_string();
    let own = ["--runtime-dir", &runtime, "--wait-path", &wait, "--engine", "unix:///nonexistent.sock"];
    let mut command = host.command(binary());
    let own = own.chunks(2).filter(|pair| !arguments.contains(&pair[0])).flatten();
    run(command.arg("check").args(own).args(arguments), b"")
}

#[track_caller]
fn says(output: &Output, line: &str) {
    let found =
        output.stdout.lines().any(|one| one.split_whitespace().collect::<Vec<_>>().join(" ").contains(line));
    assert!(found, "no {line:?} in:\n{}{}", output.stdout, output.stderr);
}

#[test]
fn check_and_run_say_who_has_port_53_and_what_to_do() {
    let host = Host::new();
    let listen = ["-u", "UDP4-RECV:53,bind=0.0.0.0", "OPEN:/dev/null"];
    let mut other = host.command("socat").args(listen).spawn().expect("socat is installed");
    let is_there = || host.sh("cat /proc/net/udp").stdout.contains(":0035 ");
    until_true("socat listens", Duration::from_secs(5), is_there);
    let pid = other.id();
    let line = format!("UDP port 53 of 169.254.1.1 is taken by socat (pid {pid}): stop it");
    let checked = check(&host, &[]);
    says(&checked, &format!("FAIL {line}"));
    let started = run(host.command(binary()).args(["run", "--runtime-dir"]).arg(host.path("run")), b"");
    let _ = other.kill();
    let _ = other.wait();
    assert_eq!(started.code, 1, "{}", started.stderr);
    let last = started.stderr.lines().last().unwrap_or_default();
    assert!(
        last.starts_with(&format!("selvedge: {line}")) && last.contains("--dns-listen"),
        "{}",
        started.stderr
    );
    let free = check(&host, &[]);
    assert!(!free.stdout.contains("port 53"), "{}", free.stdout);
}

#[test]
fn check_says_within_seconds_that_engine_or_registry_do_not_answer() {
    let host = Host::new();
    let socket = host.path("hung.sock");
    let _hung = std::os::unix::net::UnixListener::bind(&socket).expect("a socket can be made");
    let engine = format!("unix://{}", socket.display());
    let (checked, took) = timed(|| {
        check(&host, &["--engine", &engine, "--registry", "etcd://127.0.0.1:1", "--host-name", "h"])
    });
    assert!(took < Duration::from_secs(13), "{took:?}");
    assert_eq!(checked.code, 1);
    says(&checked, "the engine takes connections and does not answer within 10s");
    says(&checked, "FAIL the registry etcd://127.0.0.1:1 cannot be reached (127.0.0.1:1: Connection refused");
}

#[test]
fn check_says_that_nft_is_missing_as_what_it_is() {
    let host = Host::new();
    let runtime = host.path("run").display().to_string();
    let of = |policy: &str| {
        let mut command = host.command("unshare");
        let hidden = "mount --bind /dev/null $(PATH=$PATH:/usr/sbin command -v nft) && exec \"$0\" \"$@\"";
        command.args(["--mount", "--propagation", "private", "sh", "-ec", hidden]).arg(binary());
        run(command.args(["check", "--runtime-dir", &runtime, "--policy", policy]), b"")
    };
    says(&of("open"), "warn nft is missing, so virtual addresses");
    says(&of("tenant"), "FAIL nft is missing, which --policy tenant needs: install nftables");
}

#[test]
fn check_says_that_another_selvedge_has_the_pool() {
    let lab = Lab::shared();
    let checked =
        check(&lab.host, &["--runtime-dir", "/run/selvedge-second", "--dns-listen", "169.254.1.9:53"]);
    says(&checked, &format!("FAIL another Selvedge (pid {}) gives out addresses", lab.selvedge.keeper()));
}

#[test]
fn status_begins_with_a_verdict_and_check_ends_with_it() {
    let lab = Lab::new();
    let first = |output: &Output| output.stdout.lines().next().unwrap_or_default().to_owned();
    let well = lab.selvedge.ask(&["status", "--check"]);
    assert_eq!((first(&well).as_str(), well.code), ("OK", 0), "{}", well.stdout);
    assert_eq!(lab.selvedge.status()["verdict"], "OK");

    lab.host.sh("ip route add 10.40.5.0/24 dev lo").ok();
    let clash = |output: &Output| output.stdout.contains("10.40.5.0/24") && output.code == 2;
    until_true("a route in the pool is shown", Duration::from_secs(15), || {
        clash(&lab.selvedge.ask(&["status", "--check"]))
    });
    assert_eq!(lab.selvedge.ask(&["status"]).code, 0, "only with --check");
    lab.selvedge.stop();
    let gone = lab.selvedge.ask(&["status", "--check"]);
    assert_eq!((first(&gone).as_str(), gone.code), ("TROUBLE: 1", 2), "{}{}", gone.stdout, gone.stderr);
    std::fs::remove_file(lab.selvedge.log_path()).expect("the log of the first");
    lab.selvedge.start_again();
    until_true("run says it too", Duration::from_secs(15), || {
        lab.selvedge.log().lines().any(|line| line.contains("ERROR check: ") && line.contains("10.40.5.0/24"))
    });
    lab.host.sh("ip route del 10.40.5.0/24 dev lo").ok();

    lab.engine.pause();
    let hung = lab.selvedge.ask(&["status", "--check"]);
    lab.engine.go_on();
    assert!(first(&hung).starts_with("TROUBLE: ") && hung.code == 2, "{}", hung.stdout);
    assert!(hung.stdout.contains("does not answer: look at dockerd's log"), "{}", hung.stdout);
}

#[test]
fn labels_on_a_container_without_a_wire_are_told_in_ps_and_in_the_log() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    docker.run(&["network", "create", "cli-net"]).ok();
    docker.start(&[
        "--name",
        "cli-bare",
        "--network",
        "cli-net",
        "--label",
        "selvedge.tenant=x",
        "busybox",
        "sleep",
        "99",
    ]);
    docker.start(&["--name", "cli-plain", "--network", "cli-net", "busybox", "sleep", "99"]);
    let shown = lab.selvedge.shown("cli-bare").expect("it is shown");
    assert_eq!((&shown["state"], &shown["address"]), (&"no wire".into(), &"-".into()));
    let reason = "user-defined network cli-net: only with --wire-user-networks or label selvedge.network=default at its create";
    assert_eq!(shown["reason"], reason);
    assert!(lab.selvedge.ask(&["ps"]).ok().contains(&format!("({reason})")));
    assert!(lab.selvedge.shown("cli-plain").is_none(), "it asked for nothing");
    let log = lab.selvedge.log();
    let told = log.lines().find(|line| line.contains("created without a wire")).expect("a line");
    assert!(told.contains(&format!("name=cli-bare reason=\"{reason}\"")), "{told}");
    docker.remove(&["cli-bare", "cli-plain"]);
    docker.run(&["network", "rm", "cli-net"]).ok();
}
