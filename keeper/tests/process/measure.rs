//! Figures, printed and not judged. Run by name only: `cargo test --release --test process -- measure`.
//!
//! It must never be part of the ordinary tests: what it finds depends on the machine.

use crate::scene::{Client, Scene, signal};
use crate::succession::keeper;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use selvedge_keeper::control::UpgradeRequest;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

pub(crate) const CASES: &[(&str, fn())] = &[("measure_crowds", crowds)];

/// KiB of the keeper that are its own.
fn memory(scene: &Scene) -> i64 {
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", scene.keeper.id())).unwrap();
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Ticks of 10 ms.
fn cpu(scene: &Scene) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", scene.keeper.id())).unwrap();
    stat.rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|tick| tick.parse::<u64>().unwrap())
        .sum()
}

fn crowds() {
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard }).unwrap();
    // Each stream has two descriptors there and two here; often the hard limit is 20,000.
    for size in [0, 500, 1000, 9_000] {
        let scene = Scene::new();
        let engine = scene.engine();
        let (mut client, mut far) = scene.stream(&engine);
        let before = memory(&scene);
        let start = Instant::now();
        let crowd: Vec<_> = (0..size).map(|_| scene.stream(&engine)).collect();
        println!("{size} streams: made in {:.1?}, {} KiB more", start.elapsed(), memory(&scene) - before);
        let ticks = cpu(&scene);
        sleep(Duration::from_secs(1));
        println!("  idle for 1 s: {} ms of CPU", 10 * (cpu(&scene) - ticks));
        let quiet = gaps(&mut client, &mut far, || sleep(Duration::from_millis(500)));
        println!("  stream round trip, quiet: {quiet}");
        let upgrade = gaps(&mut client, &mut far, || {
            time("upgrade", || drop(scene.upgrade(&UpgradeRequest::default()).unwrap()))
        });
        println!("  stream round trip, upgrade: {upgrade}");
        let killed = gaps(&mut client, &mut far, || {
            let pid = scene.status().workers[0].pid;
            time("kill -9 to answer", || {
                signal(pid, "KILL");
                scene.client().ask("pid");
            });
        });
        println!("  stream round trip, kill -9: {killed}");
        let succession =
            gaps(&mut client, &mut far, || time("succession", || drop(scene.upgrade(&keeper()).unwrap())));
        println!("  stream round trip, succession: {succession}");
        drop(crowd);
    }
}

fn time(what: &str, work: impl FnOnce()) {
    let start = Instant::now();
    work();
    println!("  {what}: {:.1?}", start.elapsed());
}

/// Round trips through one stream while something else goes on.
fn gaps(client: &mut Client, far: &mut Client, work: impl FnOnce()) -> String {
    let over = AtomicBool::new(false);
    scope(|threads| {
        let trips = threads.spawn(|| {
            let mut times = Vec::new();
            while times.is_empty() || !over.load(Ordering::Relaxed) {
                let start = Instant::now();
                client.write("x");
                far.read(1);
                times.push(start.elapsed());
                sleep(Duration::from_micros(200));
            }
            times.sort();
            times
        });
        work();
        over.store(true, Ordering::Relaxed);
        let times = trips.join().unwrap();
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
        format!("p50 {:.1?}, p99 {:.1?}, longest {:.1?} of {}", at(0.5), at(0.99), at(1.0), times.len())
    })
}
