//! Workers that are killed in certain moments, each of which once cost a client its answer.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use selvedge_tests::Lab;
use selvedge_tests::custody::chance::Chance;
use selvedge_tests::custody::cli::Call;
use selvedge_tests::custody::killer::{Killer, end, worker_of};
use selvedge_tests::custody::plugin::Plugin;
use selvedge_tests::custody::questions;
use selvedge_tests::custody::raw::Raw;
use selvedge_tests::custody::scene::Scene;
use selvedge_tests::engine::Engine;
use selvedge_tests::fleet::{Fleet, Plan, StoreKind};
use selvedge_tests::host::Host;
use selvedge_tests::http;
use selvedge_tests::selvedge::Selvedge;
use selvedge_tests::slow::Slow;
use selvedge_tests::wait::{until, until_true};

const SOON: Duration = Duration::from_secs(60);

/// Kills the worker that there is, or the next one.
fn kill(lab: &Lab) {
    end(until("a worker", SOON, || worker_of(lab.selvedge.keeper())));
}

/// Short runs, while workers are killed `apart` from each other.
fn short_runs(scene: &Scene, apart: Duration, runs: usize) {
    let seed = Chance::seed();
    let killer = Killer::start(scene.lab.selvedge.keeper(), seed, apart, || ());
    for nth in 0..runs {
        let docker = &scene.clis[nth % scene.clis.len()];
        let verdict = selvedge_tests::custody::cli_lives::run(scene, docker);
        assert!(verdict.is_ok(), "seed {seed}, run {nth}: {verdict:?}");
    }
    println!("{runs} runs, {} kills", killer.stop());
    assert!(scene.left_over().is_empty(), "{:?}", scene.left_over());
}

#[test]
fn short_runs_beside_kills_end_with_their_codes() {
    short_runs(&Scene::debian(), Duration::from_millis(700), 12);
    short_runs(&Scene::trixie(), Duration::from_millis(700), 12);
}

/// The worker is killed when the engine has the container: the answer to the create is on its way, or the start is.
fn killed_after_the_create(scene: &Scene) {
    for nth in 0..8 {
        let (name, docker) = (scene.name(), &scene.clis[nth % scene.clis.len()]);
        let label = format!("custody={name}");
        let run = Call::start(
            docker,
            &["run", "--rm", "-l", &label, "busybox", "sh", "-c", "echo ran; exit 3"],
            b"",
        );
        until_true("the engine has it", SOON, || scene.labelled(&name).is_ok_and(|found| !found.is_empty()));
        std::thread::sleep(Duration::from_millis(5 * nth as u64));
        kill(&scene.lab);
        let said = run.end().unwrap_or_else(|trouble| panic!("round {nth}: {trouble}"));
        assert_eq!((said.text().as_str(), said.code), ("ran\n", 3), "round {nth}: {}", said.stderr);
    }
}

#[test]
fn a_run_whose_worker_is_killed_right_after_its_create_hangs_on_no_engine() {
    killed_after_the_create(&Scene::debian());
    killed_after_the_create(&Scene::trixie());
}

/// The request that a line of the log is about.
fn request_of(line: &str) -> Option<&str> {
    line.split_once(" request=")?.1.split(' ').next()
}

/// All three workers have logged their part of one create under one id.
fn is_followed_by_one_id(scene: &Scene, container: &str) {
    let log = scene.lab.selvedge.log();
    let made = format!("created with a wire container={}", &container[..12]);
    let made = log.lines().find(|line| line.contains(&made)).expect("a line about the create");
    let id = request_of(made).unwrap_or_else(|| panic!("no id: {made}"));
    let taken_over = "an earlier worker's request is brought to its end";
    let of_it = log.lines().filter(|line| request_of(line) == Some(id));
    assert_eq!(of_it.filter(|line| line.contains(taken_over)).count(), 2, "{id}:\n{log}");
}

/// A create that takes a minute, in the hands of three workers.
fn slow_create(scene: &Scene, plugin: &Plugin, named: bool) {
    let (name, query) = (scene.name(), if named { "?name=slow" } else { "" });
    let mut body = scene.body(&name, "true");
    let driver = serde_json::json!({"DriverConfig": {"Name": plugin.name}});
    body["HostConfig"]["Mounts"] =
        serde_json::json!([{"Type": "volume", "Source": name, "Target": "/slow", "VolumeOptions": driver}]);
    let mut raw = Raw::new(&scene.lab.socket(), false);
    let told =
        raw.expect(201, "POST", &format!("/containers/create{query}"), Some(body.to_string().as_bytes()));
    let told = told.unwrap_or_else(|trouble| panic!("named: {named}: {trouble}")).json();
    let found = scene.labelled(&name).expect("the engine lists");
    assert_eq!(found.len(), 1, "named: {named}: {found:?}");
    assert_eq!(found[0]["Id"], told["Id"], "named: {named}");
    assert_eq!(plugin.made(&name), 1, "named: {named}");
    is_followed_by_one_id(scene, told["Id"].as_str().expect("an id"));
}

#[test]
fn a_create_that_takes_a_minute_is_done_once_whichever_worker_is_killed() {
    let scene = Scene::debian();
    let plugin = Plugin::start(&scene.lab.host.dir, SOON);
    std::thread::scope(|scope| {
        let (scene, plugin) = (&scene, &plugin);
        let creates = [true, false].map(|named| scope.spawn(move || slow_create(scene, plugin, named)));
        for after in [500, 1000] {
            std::thread::sleep(Duration::from_millis(after));
            kill(&scene.lab);
        }
        creates.into_iter().for_each(|create| create.join().expect("it is answered"));
    });
}

/// How long a client waits for the next worker, at best.
fn next_worker(selvedge: &Selvedge) -> Duration {
    let once = || {
        end(until("a worker", SOON, || worker_of(selvedge.keeper())));
        let began = Instant::now();
        let ping = http::get(&selvedge.socket(), "/_ping").expect("an answer");
        assert_eq!(ping.status, 200);
        began.elapsed()
    };
    (0..4).map(|_| once()).min().expect("some")
}

#[test]
fn a_worker_is_there_as_quickly_without_the_registry() {
    let fleet = Fleet::new(&Plan { hosts: 1, store: Some(StoreKind::Zookeeper), ..Plan::default() });
    let selvedge = &fleet.members[0].selvedge;
    let with = next_worker(selvedge);
    fleet.store.as_ref().expect("a registry").kill_all();
    let without = next_worker(selvedge);
    // Beside each other, as a machine may be busy; a registry would be waited for for seconds.
    assert!(without < with * 3 + Duration::from_millis(300), "{without:?} without it, {with:?} with it");
}

#[test]
fn twelve_kills_a_second_apart_are_followed_by_no_pause() {
    let scene = Scene::debian();
    let over = AtomicBool::new(false);
    let longest = std::thread::scope(|scope| {
        let asks = scope.spawn(|| {
            let (mut longest, mut raw) = (Duration::ZERO, Raw::new(&scene.lab.socket(), false));
            while !over.load(Relaxed) {
                let began = Instant::now();
                questions::ping(&scene, &mut raw).expect("an answer");
                longest = longest.max(began.elapsed());
            }
            longest
        });
        for _ in 0..12 {
            kill(&scene.lab);
            std::thread::sleep(Duration::from_secs(1));
        }
        over.store(true, Relaxed);
        asks.join().expect("all are answered")
    });
    println!("the longest wait was {longest:?}");
    assert!(longest < Duration::from_secs(3), "{longest:?}");
}

#[test]
fn a_question_in_a_dying_workers_hands_is_answered_by_the_next() {
    let scene = Scene::debian();
    let mut chance = Chance::of(Chance::seed());
    for round in 0..60 {
        let pause = Duration::from_micros(chance.draw() % 4000);
        let keeper = scene.lab.selvedge.keeper();
        let worker = until("a worker", SOON, || worker_of(keeper));
        let ask = if round % 2 == 0 { questions::ping } else { questions::inspect };
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| ask(&scene, &mut Raw::new(&scene.lab.socket(), true)));
            std::thread::sleep(pause);
            end(worker);
            let verdict = asked.join().expect("no panic");
            assert!(verdict.is_ok(), "round {round}, killed after {pause:?}: {verdict:?}");
        });
    }
}

#[test]
fn an_engine_that_works_is_waited_for_as_long_as_the_client_waits() {
    let host = Host::new();
    let engine = Engine::debian(&host, &[]);
    let slow = Slow::start(host.path("slow.sock"), &engine.socket, "/start HTTP", Duration::from_secs(40));
    let selvedge = Selvedge::prepare(&host, &slow.socket, &[]);
    selvedge.start_again();
    let began = Instant::now();
    let run =
        Call::start(&selvedge.docker(), &["run", "--rm", "busybox", "sh", "-c", "echo ran; exit 3"], b"");
    let said = run.end().expect("it ends");
    assert_eq!((said.text().as_str(), said.code), ("ran\n", 3), "{}", said.stderr);
    assert!(began.elapsed() > Duration::from_secs(40));
}
