//! Replacing workers while clients look on.

use crate::scene::{Client, Scene, alive, signal, until};
use selvedge_keeper::control::{UpgradeRequest, request_upgrade};
use selvedge_keeper::error::Error;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

pub(crate) const CASES: &[(&str, fn())] = &[
    ("an_upgrade_replaces_the_worker_and_clients_stay", upgrade),
    ("thousands_of_idle_connections_change_hands", thousands),
    ("no_client_notices_twenty_upgrades", twenty),
    ("a_hang_up_signal_upgrades", hang_up),
    ("whatever_is_wrong_with_the_new_binary_the_old_worker_goes_on", wrong_binaries),
    ("a_second_upgrade_at_once_is_refused", two_at_once),
    ("a_trial_that_is_killed_fails_the_upgrade", killed_trial),
    ("an_upgrade_heals_a_crash_loop", heals),
    ("a_serving_worker_that_dies_during_an_upgrade_is_replaced_once", dies_meanwhile),
    ("who_asked_may_leave", requester_leaves),
    ("nonsense_on_the_control_socket_is_answered", nonsense),
    ("a_parked_client_changes_hands_in_an_upgrade", parked),
];

impl Scene {
    pub(crate) fn upgrade(&self, request: &UpgradeRequest) -> Result<Vec<String>, Error> {
        let mut lines = Vec::new();
        let last = request_upgrade(self.dir.path(), request, |line| lines.push(line.to_owned()))?;
        lines.push(last);
        Ok(lines)
    }

    pub(crate) fn one_worker(&self) {
        until("one worker is left", || self.status().workers.len() == 1);
    }
}

pub(crate) fn binary(path: PathBuf) -> UpgradeRequest {
    UpgradeRequest { binary: Some(path), ..UpgradeRequest::default() }
}

fn upgrade() {
    let scene = Scene::new();
    let engine = scene.engine();
    let (mut client, mut far) = scene.stream(&engine);
    let mut idle: Vec<_> = (0..200).map(|_| scene.client()).collect();
    let old = idle[0].ask("pid");
    for client in &mut idle {
        assert_eq!(client.ask("pid"), old);
    }
    scene.mode("v2");
    let lines = scene.upgrade(&UpgradeRequest::default()).unwrap();
    assert!(lines[0].contains("worker 1 started"), "{lines:?}");
    assert!(lines.iter().any(|line| line == "worker 1 is version worker-v2"), "{lines:?}");
    assert_eq!(lines.last().unwrap(), "worker 1 serves, version worker-v2");
    for client in &mut idle {
        // The connection is the same, who answers is new.
        assert_eq!(client.line(), "half was read");
        assert_ne!(client.ask("pid"), old);
    }
    far.write("event");
    assert_eq!(client.read(5), "event");
    until("the old one is gone", || !alive(old.parse().unwrap()));
    let status = scene.status();
    assert_eq!((status.workers.len(), status.upgrades, status.worker_deaths), (1, 1, 0));
}

fn thousands() {
    let scene = Scene::new();
    let mut idle: Vec<_> = (0..3000).map(|_| scene.client()).collect();
    let old = idle[2999].ask("pid");
    scene.upgrade(&UpgradeRequest::default()).unwrap();
    // Those that ask before the old one hears of it are answered by the old one.
    for client in &mut idle {
        client.patient_pid();
    }
    scene.one_worker();
    for client in &mut idle {
        assert_ne!(client.patient_pid().to_string(), old);
    }
    let direct = selvedge_keeper::control::request_status(scene.dir.path()).unwrap();
    assert_eq!(direct.workers.len(), 1);
}

fn twenty() {
    let scene = Scene::new();
    let over = AtomicBool::new(false);
    scope(|threads| {
        let keep_alive = threads.spawn(|| {
            let mut client = scene.client();
            let mut asked = 0;
            while !over.load(Ordering::Relaxed) {
                client.patient_pid();
                asked += 1;
            }
            asked
        });
        let fresh = threads.spawn(|| {
            let mut worst = Duration::ZERO;
            while !over.load(Ordering::Relaxed) {
                let start = Instant::now();
                scene.worker_pid_patient();
                worst = worst.max(start.elapsed());
                sleep(Duration::from_millis(1));
            }
            worst
        });
        for _ in 0..20 {
            scene.upgrade(&UpgradeRequest::default()).unwrap();
        }
        over.store(true, Ordering::Relaxed);
        let worst = fresh.join().unwrap();
        println!("  {} requests; longest of a new connection: {worst:?}", keep_alive.join().unwrap());
    });
    scene.one_worker();
    assert_eq!(scene.status().upgrades, 20);
}

impl Scene {
    /// Like `worker_pid`, where the connection may change hands before it asks.
    fn worker_pid_patient(&self) -> u32 {
        self.client().patient_pid()
    }
}

impl Client {
    fn patient_pid(&mut self) -> u32 {
        self.say("pid");
        loop {
            if let Ok(pid) = self.line().parse() {
                return pid;
            }
        }
    }
}

fn hang_up() {
    let scene = Scene::new();
    let old = scene.worker_pid();
    scene.signal("HUP");
    until("another serves", || scene.worker_pid_patient() != old);
    scene.one_worker();
    // And while one is under way, another is refused.
    scene.signal("HUP");
    until("a third serves", || scene.log().contains("worker 2 serves"));
}

fn wrong_binaries() {
    let scene = Scene::new();
    let old = scene.worker_pid();
    let engine = scene.engine();
    let (mut client, mut far) = scene.stream(&engine);
    let file = |name: &str, bytes: &[u8], mode: u32| {
        let path = scene.dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    };
    let mut foreign = fs::read("/proc/self/exe").unwrap();
    foreign.truncate(4096);
    // e_machine of AArch64, or of x86-64 on any other machine.
    foreign[18] = if foreign[18] == 183 { 62 } else { 183 };
    let cases = [
        (scene.dir.path().join("missing"), "No such file"),
        (scene.dir.path().to_owned(), "directory"),
        (file("plain", b"#!/bin/sh\n", 0o600), "ermission denied"),
        (file("foreign", &foreign, 0o700), "Exec format error"),
        (file("text", b"not a program", 0o700), "Exec format error"),
        (PathBuf::from("/bin/true"), "exited with code 0 before it was ready"),
        (
            file("dies", b"#!/bin/sh\necho why it died >&2\nexit 7\n", 0o700),
            "code 7 before it was ready: why it died",
        ),
        (file("sleeps", b"#!/bin/sh\nexec sleep 60\n", 0o700), "was not ready within 0.5 s"),
    ];
    for (path, reason) in cases {
        let request = UpgradeRequest { timeout_ms: Some(500), ..binary(path.clone()) };
        let error = scene.upgrade(&request).unwrap_err().to_string();
        assert!(error.contains(reason) && !error.contains('\n'), "{path:?}: {error}");
        assert_eq!(scene.worker_pid(), old);
    }
    for (mode, reason) in [
        ("refuse", "line 7 of the configuration is wrong"),
        ("protocol", "it speaks protocol 99, the keeper 3"),
        ("crash", "the reason is here"),
        ("hang", "was not ready within"),
    ] {
        scene.mode(mode);
        let error =
            scene.upgrade(&UpgradeRequest { timeout_ms: Some(500), ..Default::default() }).unwrap_err();
        assert!(error.to_string().contains(reason), "{mode}: {error}");
        assert_eq!(scene.worker_pid(), old);
    }
    far.write("event");
    assert_eq!(client.read(5), "event");
    assert_eq!(scene.status().workers.len(), 1);
    scene.mode("");
    scene.upgrade(&UpgradeRequest::default()).unwrap();
    scene.one_worker();
    assert_ne!(scene.worker_pid(), old);
}

fn two_at_once() {
    let scene = Scene::new();
    let old = scene.worker_pid();
    scene.mode("hang");
    scope(|threads| {
        let first =
            threads.spawn(|| scene.upgrade(&UpgradeRequest { timeout_ms: Some(800), ..Default::default() }));
        until("the first is under way", || scene.log().contains("worker 1 started"));
        for keeper in [false, true] {
            let error = scene.upgrade(&UpgradeRequest { keeper, ..Default::default() }).unwrap_err();
            assert_eq!(error.to_string(), "another upgrade is under way");
        }
        assert!(first.join().unwrap().is_err());
    });
    assert_eq!(scene.worker_pid(), old);
    scene.one_worker();
}

fn killed_trial() {
    let scene = Scene::new();
    let old = scene.worker_pid();
    scene.mode("hang");
    scope(|threads| {
        let asked = threads.spawn(|| scene.upgrade(&UpgradeRequest::default()));
        until("it is on trial", || scene.status().workers.len() == 2);
        let trial = scene.status().workers[1].clone();
        assert_eq!(trial.state, "trial");
        signal(trial.pid, "KILL");
        let error = asked.join().unwrap().unwrap_err().to_string();
        assert!(error.contains("was killed by signal 9 before it was ready"), "{error}");
    });
    assert_eq!(scene.worker_pid(), old);
}

fn heals() {
    let scene = Scene::new();
    let old = scene.worker_pid();
    scene.mode("crash");
    signal(old, "KILL");
    sleep(Duration::from_millis(1500));
    scene.mode("");
    let start = Instant::now();
    scene.upgrade(&UpgradeRequest::default()).unwrap();
    scene.worker_pid();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    scene.one_worker();
    // The pause that was running must not bring another one.
    sleep(Duration::from_secs(2));
    scene.one_worker();
}

fn dies_meanwhile() {
    let scene = Scene::new();
    let old = scene.worker_pid();
    scene.mode("hang");
    scope(|threads| {
        let asked =
            threads.spawn(|| scene.upgrade(&UpgradeRequest { timeout_ms: Some(1000), ..Default::default() }));
        until("it is on trial", || scene.log().contains("worker 1 started"));
        sleep(Duration::from_millis(100));
        scene.mode("");
        signal(old, "KILL");
        assert_ne!(scene.worker_pid(), old);
        assert!(asked.join().unwrap().is_err());
    });
    scene.one_worker();
}

fn requester_leaves() {
    let scene = Scene::new();
    let old = scene.worker_pid();
    use std::io::Write;
    let mut asking = std::os::unix::net::UnixStream::connect(scene.dir.path().join("keeper.sock")).unwrap();
    asking.write_all(b"upgrade {}\n").unwrap();
    drop(asking);
    until("another serves", || scene.worker_pid_patient() != old);
}

fn nonsense() {
    let scene = Scene::new();
    use std::io::{Read, Write};
    let mode = fs::metadata(scene.dir.path().join("keeper.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    scene.worker_pid();
    let before = scene.descriptors();
    for (text, answer) in [
        (&b"hello\n"[..], "failed: not understood"),
        (b"upgrade {\n", "failed: not understood"),
        (b"upgrade [7]\n", "failed: not understood"),
        (&[b'x'; 200_000], ""),
        (&[0xff, 0, b'\n'], "failed: not understood"),
    ] {
        let mut asking =
            std::os::unix::net::UnixStream::connect(scene.dir.path().join("keeper.sock")).unwrap();
        let _ = asking.write_all(text);
        let mut got = String::new();
        let _ = asking.read_to_string(&mut got);
        assert!(got.starts_with(answer), "{got}");
    }
    let many: Vec<_> = (0..50)
        .map(|_| std::os::unix::net::UnixStream::connect(scene.dir.path().join("keeper.sock")).unwrap())
        .collect();
    sleep(Duration::from_millis(50));
    drop(many);
    until("all are gone", || scene.descriptors() == before);
    assert_eq!(selvedge_keeper::control::request_status(scene.dir.path()).unwrap().pid, scene.keeper.id());
}

fn parked() {
    let scene = Scene::new();
    let mut client = scene.client();
    assert_eq!(client.ask("park"), "parked");
    for _ in 0..3 {
        let old = scene.worker_pid_patient();
        scene.upgrade(&UpgradeRequest::default()).unwrap();
        let line = client.line();
        assert!(line.contains(", now with ") && !line.contains(&format!("with {old}")), "{line}");
    }
    scene.client().say("unpark");
    until("it is served", || scene.status().parked == 0);
}
