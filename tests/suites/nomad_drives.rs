//! Nomad's docker driver in front of Selvedge, by its own calls in its own order: jobs of every kind have the outcome that they
//! have without us, while the worker is replaced and killed, and its tasks have names and tenants.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use selvedge_tests::Lab;
use selvedge_tests::nomad::driver::Driver;
use selvedge_tests::nomad::jobs;
use selvedge_tests::nomad::task::Task;
use selvedge_tests::wait::until_true;
use serde_json::json;

const ALLOC: &str = "5b1c0f2e-1111-4222-8333-444455556666";

/// For how long jobs are run, and how often the worker goes meanwhile.
const LONG: Duration = Duration::from_secs(24);
const EVERY: Duration = Duration::from_secs(2);

#[test]
fn jobs_of_every_kind_have_the_same_outcome_under_upgrades_and_kills() {
    let lab = Lab::new();
    jobs::prepare(&lab.engine.docker());
    let dir = lab.host.path("nomad").display().to_string();
    let alone = jobs::run(&Driver::new(&lab.engine.socket), &dir, 0);
    let done = AtomicBool::new(false);
    let (rounds, kills) = std::thread::scope(|scope| {
        let fate = scope.spawn(|| strike(&lab, &done));
        let driver = Driver::new(&lab.selvedge.socket());
        let (began, mut rounds) = (Instant::now(), 0);
        while began.elapsed() < LONG {
            rounds += 1;
            let fingerprint = driver.fingerprint();
            let through = jobs::run(&driver, &dir, rounds);
            if through != alone || fingerprint.is_err() {
                done.store(true, Ordering::Relaxed);
            }
            assert_eq!(through, alone, "round {rounds}\n{}", alone.join("\n"));
            assert_eq!(fingerprint, Ok(()));
        }
        done.store(true, Ordering::Relaxed);
        (rounds, fate.join().expect("it ends"))
    });
    println!(
        "{} jobs in {rounds} rounds, {kills} upgrades and kills\n{}",
        rounds * alone.len(),
        alone.join("\n")
    );
    assert!(kills >= 8, "{kills}");
    until_true("no wire is left", Duration::from_secs(20), || lab.host.wires().is_empty());
}

/// An upgrade, a kill, an upgrade...
fn strike(lab: &Lab, done: &AtomicBool) -> usize {
    let mut count = 0;
    while !done.load(Ordering::Relaxed) {
        std::thread::sleep(EVERY);
        count += 1;
        match count % 2 {
            0 => drop(lab.selvedge.ask(&["upgrade"])),
            _ => lab.selvedge.kill_worker(),
        }
    }
    count
}

fn task(lab: &Lab, name: &str, line: &str) -> Task {
    let dir = lab.host.path(&format!("nomad/{name}")).display().to_string();
    for folder in ["alloc/logs", "local", "secrets"] {
        std::fs::create_dir_all(format!("{dir}/{folder}")).expect("a folder can be made");
    }
    Task { dir, ..Task::of(ALLOC, name, line) }
}

/// The resolver of the host sees all names.
fn until_resolved(lab: &Lab, name: &str, expected: &[String]) {
    until_true(&format!("{name} is {expected:?}"), Duration::from_secs(10), || {
        lab.host.resolve(name) == expected
    });
}

#[test]
fn a_group_s_tasks_have_names_at_the_address_of_its_pause_container() {
    let lab = Lab::with_selvedge(&["--policy", "tenant", "--vip-range", "10.46.0.0/16"]);
    jobs::prepare(&lab.engine.docker());
    let driver = Driver::new(&lab.selvedge.socket());
    let docker = lab.selvedge.docker();
    let pause = driver.create_network(ALLOC).expect("a network");
    let address = docker.address(&format!("nomad_init_{ALLOC}"));
    assert!(address.starts_with("10.32."), "{address}");
    let there = std::slice::from_ref(&address);
    let labels = json!({"selvedge.name": "www", "selvedge.vip": "front:80:8080"});
    let web = Task {
        group: Some(pause.clone()),
        labels,
        ..task(&lab, "web", "echo served >/tmp/page; exec httpd -f -p 8080 -h /tmp")
    };
    let side = Task { group: Some(pause.clone()), ..task(&lab, "side", "exec sleep 1000") };
    let web = driver.start(&web).expect("web starts");
    // They are answered when the start is.
    for name in ["web.front.shop", "www", &format!("web-{ALLOC}")] {
        assert_eq!(lab.host.resolve(name), there, "{name}");
    }
    assert!(lab.host.resolve("side.front.shop").is_empty());
    let side = driver.start(&side).expect("side starts");
    assert_eq!(lab.host.resolve("side.front.shop"), there);
    assert_eq!(lab.selvedge.shown(&format!("nomad_init_{ALLOC}")).expect("it is shown")["tenant"], "shop");

    // Tenants: the job's own containers may call it, others not.
    let get = |tenant: &str, name: &str| {
        let label = format!("selvedge.tenant={tenant}");
        let url = format!("http://{name}.selvedge.internal/page");
        docker
            .run(&["run", "--rm", "--label", &label, "busybox", "wget", "-qO-", &url])
            .stdout
            .trim()
            .to_owned()
    };
    until_true("its virtual address", Duration::from_secs(10), || get("shop", "front.vip") == "served");
    assert_eq!(get("bank", "front.vip"), "");

    // A later worker, and one after a kill.
    assert_eq!(lab.selvedge.ask(&["upgrade"]).code, 0);
    until_resolved(&lab, "web.front.shop", there);
    lab.selvedge.kill_worker();
    until_resolved(&lab, "side.front.shop", there);
    until_true("its virtual address", Duration::from_secs(10), || get("shop", "front.vip") == "served");

    // An end takes the task's names, and no other's.
    web.stop(Duration::from_secs(1), None).expect("it stops");
    until_resolved(&lab, "web.front.shop", &[]);
    until_resolved(&lab, "www", &[]);
    assert_eq!(lab.host.resolve("side.front.shop"), there);
    web.destroy().expect("it goes");
    side.stop(Duration::from_secs(1), None).expect("it stops");
    side.destroy().expect("it goes");
    driver.destroy_network(&pause).expect("it goes");
    until_true("no wire is left", Duration::from_secs(10), || lab.host.wires().is_empty());
}

#[test]
fn a_task_with_a_network_of_its_own_has_its_own_address_and_its_namespace_s_tenant() {
    let lab = Lab::new();
    jobs::prepare(&lab.engine.docker());
    let driver = Driver::new(&lab.selvedge.socket());
    let own = Task { namespace: "bank".to_owned(), ..task(&lab, "db", "exec sleep 1000") };
    let db = driver.start(&own).expect("it starts");
    let address = lab.selvedge.docker().address(&own.container());
    assert_eq!(lab.host.resolve("db.front.shop"), [address]);
    assert_eq!(lab.selvedge.shown(&own.container()).expect("it is shown")["tenant"], "bank");
    db.stop(Duration::from_secs(1), None).expect("it stops");
    assert!(lab.host.resolve("db.front.shop").is_empty());
    db.destroy().expect("it goes");
}
