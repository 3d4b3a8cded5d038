//! A Mesos-shaped agent, at the size of a test, while Selvedge and the engine are replaced and killed under it.

use std::process::{Command, Stdio};
use std::time::Duration;

use selvedge_tests::Lab;
use selvedge_tests::mesos::scenario::{self, Size};
use selvedge_tests::wait::until_true;

#[test]
fn no_task_notices_upgrades_kills_and_engine_restarts() {
    let lab = Lab::with_engine(&["--live-restore"]);
    let size = Size {
        tasks: 10,
        at_once: 5,
        upgrades: 10,
        kills: 10,
        keepers: 2,
        keeper_kills: 2,
        engines: 1,
        merciless: false,
    };
    let outcome = scenario::run(&lab, &lab, size);
    println!("{}: {:?}, {} struck in their launch", outcome.verdicts(), outcome.table(), outcome.struck());
    assert_eq!(outcome.reports.len(), 10);
    assert!(outcome.database.was_answered && outcome.database.containers == 1, "{:?}", outcome.database);
    let wrong: Vec<_> = outcome.table().into_iter().filter(|(_, count)| *count > 0).collect();
    assert!(wrong.is_empty(), "{wrong:?}\n{}", outcome.complaints().join("\n"));
    assert!(outcome.reports.iter().all(|one| one.address.starts_with("10.32.")), "not our addresses");
}

/// As with `--docker_mesos_image`: the CLI is in a mount namespace into which the socket's file was bound once.
#[test]
fn an_executor_with_the_sockets_file_bound_into_its_mounts_lives_on() {
    let lab = Lab::new();
    let bound = lab.host.path("bound.sock");
    std::fs::write(&bound, b"").expect("it can be written");
    let script = format!(
        "mount --bind {} {bound} && exec docker -H unix://{bound} run --name mesos-bound busybox sh -c \
         'i=0; while [ $i -lt 60 ]; do echo $i; i=$((i+1)); sleep 0.1; done; exit 6'",
        lab.selvedge.socket().display(),
        bound = bound.display()
    );
    let executor = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", &script])
        .env("DOCKER_CONFIG", "/nonexistent")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("unshare can be started");
    let docker = lab.selvedge.docker();
    until_true("it runs", Duration::from_secs(20), || docker.run(&["top", "mesos-bound"]).code == 0);
    for what in [&["upgrade"][..], &["upgrade", "--keeper"]] {
        assert_eq!(lab.selvedge.ask(what).code, 0);
    }
    // A new connection by the old inode.
    let inside = format!("/proc/{}/root{}", executor.id(), bound.display());
    assert!(std::path::Path::new(&inside).exists());
    let asked = Command::new("nsenter")
        .arg(format!("--mount=/proc/{}/ns/mnt", executor.id()))
        .args(["docker", "-H", &format!("unix://{}", bound.display()), "inspect", "mesos-bound"])
        .output()
        .expect("nsenter can be started");
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    lab.selvedge.kill_worker();
    let output = executor.wait_with_output().expect("it ends");
    let expected: String = (0..60).map(|number| format!("{number}\n")).collect();
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{output:?}");
    assert_eq!(output.status.code(), Some(6));
}
