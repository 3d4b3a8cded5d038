//! The keeper is killed at any instant, and its second goes on; the second is killed, and the keeper goes on.

use crate::custody::{held, how};
use crate::scene::{Scene, alive, keepers, signal, until};
use crate::succession::{again, keeper, pour_through};
use selvedge_keeper::control::UpgradeRequest;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

pub(crate) const CASES: &[(&str, fn())] = &[
    ("a_killed_keeper_leaves_everything_to_its_second", once),
    ("no_byte_is_lost_or_repeated_through_fifty_kills_of_the_keeper", no_byte_lost),
    ("positions_in_frames_are_exact_through_kills_of_the_keeper", positions),
    ("no_client_is_refused_or_left_alone_while_keepers_are_killed", no_client),
    ("clients_that_a_killed_keeper_had_accepted_are_served", accepted),
    ("a_second_that_is_killed_is_replaced", second_killed),
    ("an_upgrade_goes_on_when_the_keeper_is_killed", upgrade_goes_on),
    ("a_worker_that_dies_after_its_keeper_is_replaced", worker_after),
    ("a_blocked_stream_keeps_its_bytes_when_the_keeper_is_killed", blocked),
    ("nothing_is_left_open_by_kills", no_leak),
];

impl Scene {
    /// Kills the keeper, and waits until another process is the keeper.
    pub(crate) fn kill_keeper(&self) {
        let before = self.status();
        signal(before.pid, "KILL");
        until("the second is the keeper", || self.status().pid != before.pid);
    }

    /// The number of the keeper's process, by who is whose second; none while that changes.
    pub(crate) fn keeper_now(&self) -> Option<u32> {
        let second: u32 =
            std::fs::read_to_string(self.dir.path().join("second.pid")).ok()?.trim().parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{second}/stat")).ok()?;
        let parent = stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()?;
        keepers(self.dir.path()).contains(&parent).then_some(parent)
    }
}

/// A fixed sequence of numbers that look random.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Kills keepers at random instants, also one that has just taken over.
pub(crate) fn kill_at_random(scene: &Scene, kills: u32, seed: u64) {
    let mut dice = Dice(seed);
    let mut last = None;
    for _ in 0..kills {
        let mut victim = None;
        until("there is another keeper, and a second", || {
            victim = scene.keeper_now().filter(|pid| Some(*pid) != last);
            victim.is_some()
        });
        sleep(Duration::from_micros(dice.below(30_000)));
        signal(victim.unwrap(), "KILL");
        last = victim;
    }
}

fn once() {
    let mut scene = Scene::new();
    let inode = std::fs::metadata(scene.api()).unwrap().ino();
    let engine = scene.engine();
    let (mut client, mut far) = scene.stream(&engine);
    let (mut half, mut half_far) = scene.stream(&engine);
    half.stream.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    assert!(half_far.at_end());
    let mut parked = scene.client();
    assert_eq!(parked.ask("park"), "parked");
    let mut idle = scene.client();
    let worker = idle.ask("pid");
    for count in 1..=3 {
        let second = scene.status().second;
        scene.kill_keeper();
        let status = scene.status();
        assert_eq!((status.pid, status.takeovers, status.worker_deaths), (second, count, 0));
        assert_eq!((status.streams.len(), status.parked, status.workers.len()), (2, 1, 1));
        assert_eq!(idle.ask("pid"), worker);
        far.write("event");
        assert_eq!(client.read(5), "event");
        client.write("input");
        assert_eq!(far.read(5), "input");
        half_far.write("out");
        assert_eq!(half.read(3), "out");
    }
    assert_eq!(std::fs::metadata(scene.api()).unwrap().ino(), inode);
    scene.end();
    // The last one stops as any keeper does.
    let last = scene.status();
    signal(last.pid, "TERM");
    until("all are gone", || !alive(last.pid) && !alive(last.second) && !alive(worker.parse().unwrap()));
    assert!(client.at_end());
}

fn no_byte_lost() {
    let scene = Scene::new();
    let _open = pour_through(&scene, "50 kills", || kill_at_random(&scene, 50, 1));
    let status = scene.status();
    assert_eq!((status.takeovers, status.worker_deaths), (50, 0));
    until("all have ended", || scene.status().streams.is_empty());
}

/// Frames of all lengths; the position that a worker is told must be exactly what the client has.
fn positions() {
    let scene = Scene::new();
    let engine = scene.engine();
    for round in 0..10 {
        let mut client = scene.client();
        client.say(&format!("resumable {}/engine.sock", scene.dir.path().display()));
        let far = engine.accept().unwrap().0;
        let over = AtomicBool::new(false);
        let client = client.stream.into_inner();
        let (sent, got, told) = scope(|threads| {
            let (over, far_end) = (&over, &far);
            let writer = threads.spawn(move || frames(far_end, over, round));
            let reader = threads.spawn(|| read_all(&client));
            kill_at_random(&scene, 4, 100 + round);
            over.store(true, Ordering::Relaxed);
            let sent = writer.join().unwrap();
            far.shutdown(std::net::Shutdown::Both).unwrap();
            // The worker tells the next upstream how far the client has come.
            let mut told = String::new();
            engine.accept().unwrap().0.read_to_string(&mut told).unwrap();
            let next = engine.accept().unwrap().0;
            client.shutdown(std::net::Shutdown::Both).unwrap();
            drop(next);
            (sent, reader.join().unwrap(), told)
        });
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        assert_eq!((told["moved"].as_u64().unwrap(), got), (sent.0, sent.0), "round {round}: {told}");
        assert_eq!(told["frames"]["passed"][1].as_u64().unwrap(), sent.1, "round {round}: {told}");
        assert_eq!(told["frames"]["left"], 0, "round {round}: {told}");
    }
}

/// All bytes, and those of the payloads.
fn frames(mut to: &UnixStream, over: &AtomicBool, seed: u64) -> (u64, u64) {
    let mut dice = Dice(seed);
    let (mut all, mut payload) = (0, 0);
    while !over.load(Ordering::Relaxed) {
        let length = match dice.below(8) {
            0 => dice.below(200_000),
            1 => 0,
            _ => dice.below(3000),
        };
        let mut frame = vec![1, 0, 0, 0];
        frame.extend((length as u32).to_be_bytes());
        frame.resize(8 + length as usize, 7);
        to.write_all(&frame).unwrap();
        (all, payload) = (all + frame.len() as u64, payload + length);
    }
    (all, payload)
}

fn read_all(mut from: &UnixStream) -> u64 {
    let (mut buffer, mut got) = (vec![0; 100_000], 0);
    loop {
        match again(|| from.read(&mut buffer)) {
            0 => return got,
            read => got += read as u64,
        }
    }
}

fn no_client() {
    let scene = Scene::new();
    let engine = scene.engine();
    let (over, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut longest = Duration::ZERO;
    scope(|threads| {
        let mut all = Vec::new();
        for _ in 0..4 {
            all.push(threads.spawn(|| ask_on(&scene, &over, &asked)));
        }
        let streams = threads.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let (mut client, mut far) = scene.stream(&engine);
                client.write("up");
                far.write("down");
                assert_eq!((far.read(2), client.read(4)), ("up".to_owned(), "down".to_owned()));
                drop(far);
                assert!(client.at_end());
                asked.fetch_add(1, Ordering::Relaxed);
            }
        });
        kill_at_random(&scene, 50, 7);
        over.store(true, Ordering::Relaxed);
        longest = all.into_iter().map(|thread| thread.join().unwrap()).max().unwrap();
        streams.join().unwrap();
    });
    println!("  {} clients through 50 kills, the longest wait {longest:.1?}", asked.into_inner());
    let status = scene.status();
    assert_eq!((status.takeovers, status.worker_deaths), (50, 0));
    // The last client has read its end before the keeper hears of it.
    until("all have ended", || scene.status().streams.is_empty());
}

fn accepted() {
    let scene = Scene::new();
    let (over, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut kept, mut given_on) = (held(&scene), held(&scene));
    let (worker, _) = how(&mut kept);
    scope(|threads| {
        let ask = || {
            while !over.load(Ordering::Relaxed) {
                let (pid, told) = how(&mut held(&scene));
                assert_eq!((pid, told.as_str()), (worker, "at once, left by none, read \"\""));
                asked.fetch_add(1, Ordering::Relaxed);
            }
        };
        let all = [threads.spawn(ask), threads.spawn(ask), threads.spawn(ask)];
        kill_at_random(&scene, 50, 21);
        over.store(true, Ordering::Relaxed);
        all.into_iter().for_each(|thread| thread.join().unwrap());
    });
    println!("  {} accepted clients through 50 kills", asked.into_inner());
    assert_eq!((how(&mut kept).0, how(&mut given_on).0), (worker, worker));
    until("those that left are forgotten", || {
        let clients = scene.status().clients;
        assert!(clients >= 2, "{clients}");
        clients == 2
    });
    // What the worker had is still known.
    given_on.say("abort");
    until("it is dead", || !alive(worker));
    assert_eq!(how(&mut kept).1, format!("first, left by {worker}, read \"\""));
    scene.kill_keeper();
    assert_ne!(how(&mut kept).0, worker);
}

/// Asks until told to end, each time over a new connection; how long the longest wait was.
fn ask_on(scene: &Scene, over: &AtomicBool, asked: &AtomicU64) -> Duration {
    let mut longest = Duration::ZERO;
    while !over.load(Ordering::Relaxed) {
        let start = Instant::now();
        scene.client().ask("pid");
        longest = longest.max(start.elapsed());
        asked.fetch_add(1, Ordering::Relaxed);
    }
    longest
}

fn second_killed() {
    let scene = Scene::new();
    let engine = scene.engine();
    let (mut client, mut far) = scene.stream(&engine);
    let keeper = scene.status().pid;
    for _ in 0..5 {
        let second = scene.status().second;
        signal(second, "KILL");
        far.write("event");
        assert_eq!(client.read(5), "event");
        until("there is another second", || ![0, second].contains(&scene.status().second));
    }
    let status = scene.status();
    assert_eq!((status.pid, status.takeovers, status.worker_deaths), (keeper, 0, 0));
    scene.kill_keeper();
    far.write("event");
    assert_eq!(client.read(5), "event");
}

fn upgrade_goes_on() {
    let scene = Scene::new();
    let old = scene.worker_pid();
    scene.mode("hang");
    scope(|threads| {
        let asked =
            threads.spawn(|| scene.upgrade(&UpgradeRequest { timeout_ms: Some(2000), ..Default::default() }));
        until("the upgrade is under way", || scene.status().workers.len() == 2);
        scene.kill_keeper();
        let error = asked.join().unwrap().unwrap_err().to_string();
        assert!(error.contains("not ready within"), "{error}");
    });
    assert_eq!((scene.worker_pid(), scene.status().workers.len()), (old, 1));
    scene.mode("");
    scene.upgrade(&UpgradeRequest::default()).unwrap();
    scene.one_worker();
    std::fs::write(scene.dir.path().join("keeper-mode"), "hang").unwrap();
    scope(|threads| {
        let asked = threads.spawn(|| scene.upgrade(&keeper()));
        until("the trial is under way", || scene.log().contains("trying the new keeper"));
        std::fs::write(scene.dir.path().join("keeper-mode"), "").unwrap();
        scene.kill_keeper();
        let error = asked.join().unwrap().unwrap_err().to_string();
        assert!(error.contains("the keeper was killed meanwhile"), "{error}");
    });
    scene.upgrade(&keeper()).unwrap();
    assert_eq!(scene.status().reexecs, 1);
}

fn worker_after() {
    let scene = Scene::new();
    for round in 0..3 {
        let worker = scene.worker_pid();
        scene.kill_keeper();
        // It is no child of this keeper.
        signal(worker, "KILL");
        assert_ne!(scene.worker_pid(), worker, "round {round}");
        assert!(!alive(worker));
    }
    // Both at once.
    let worker = scene.worker_pid();
    let before = scene.status();
    signal(worker, "KILL");
    signal(before.pid, "KILL");
    assert_ne!(scene.worker_pid(), worker);
    assert_eq!(scene.status().pid, before.second);
}

fn blocked() {
    let scene = Scene::new();
    let engine = scene.engine();
    let (client, far) = scene.stream(&engine);
    let far = far.stream.into_inner();
    far.set_nonblocking(true).unwrap();
    let bytes: Vec<u8> = (0..16_u32 << 20).map(|at| (at % 251) as u8).collect();
    let mut sent = 0;
    for round in 0..4 {
        let chunk = if round % 2 == 0 { 9000 } else { 100_000 };
        for _ in 0..200 {
            let end = bytes.len().min(sent + chunk);
            sent += (&far).write(&bytes[sent..end]).unwrap_or(0);
        }
        scene.kill_keeper();
    }
    drop(far);
    let mut got = Vec::new();
    client.stream.into_inner().read_to_end(&mut got).unwrap();
    assert!(got == bytes[..sent], "{} of {sent}", got.len());
    until("it has ended", || scene.status().streams.is_empty());
}

fn no_leak() {
    let scene = Scene::new();
    let engine = scene.engine();
    let _kept = scene.stream(&engine);
    scene.kill_keeper();
    let open = || std::fs::read_dir(format!("/proc/{}/fd", scene.status().pid)).unwrap().count();
    until("the first keeper's own are closed", || scene.keeper_now().is_some());
    let before = open();
    for _ in 0..5 {
        scene.kill_keeper();
    }
    until("nothing leaks", || open() == before);
}
