//! Replacing the keeper itself, in place, under full load.

use crate::scene::{Client, Scene, alive, signal, until};
use crate::upgrade::binary;
use selvedge_keeper::control::UpgradeRequest;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

pub(crate) const CASES: &[(&str, fn())] = &[
    ("the_keeper_is_replaced_in_place", in_place),
    ("no_byte_is_lost_or_repeated_through_twenty_successions", no_byte_lost),
    ("a_keeper_that_cannot_take_over_changes_nothing", cannot),
    ("a_keeper_replaces_itself_while_workers_die", workers_die),
    ("a_blocked_stream_keeps_its_bytes_through_a_succession", blocked),
];

pub(crate) fn keeper() -> UpgradeRequest {
    UpgradeRequest { keeper: true, ..UpgradeRequest::default() }
}

fn in_place() {
    let scene = Scene::new();
    let engine = scene.engine();
    let (mut client, mut far) = scene.stream(&engine);
    // Half-closed both ways, and one with nothing to say.
    let (mut half, mut half_far) = scene.stream(&engine);
    half.stream.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    assert!(half_far.at_end());
    let (mut other, mut other_far) = scene.stream(&engine);
    other_far.stream.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    assert!(other.at_end());
    let mut parked = scene.client();
    assert_eq!(parked.ask("park"), "parked");
    let mut idle = scene.client();
    let worker = idle.ask("pid");
    let before = scene.descriptors();
    for count in 1..=3 {
        fs::write(scene.dir.path().join("keeper-mode"), "fine").unwrap();
        let lines = scene.upgrade(&keeper()).unwrap();
        assert!(lines.last().unwrap().contains("replaced in place: version keeper-2"), "{lines:?}");
        assert_eq!(idle.ask("pid"), worker);
        let status = scene.status();
        assert_eq!(
            (status.pid, status.reexecs, status.version.as_str()),
            (scene.keeper.id(), count, "keeper-2")
        );
        assert_eq!((status.streams.len(), status.parked, status.workers.len()), (3, 1, 1));
        far.write("event");
        assert_eq!(client.read(5), "event");
        half_far.write("out");
        assert_eq!(half.read(3), "out");
        other.write("in");
        assert_eq!(other_far.read(2), "in");
    }
    until("nothing leaks", || scene.descriptors() == before);
    // Still the same keeper in all it can do.
    drop((half, other));
    assert!(other_far.at_end());
    assert!(scene.stream(&engine).0.stream.get_ref().peer_addr().is_ok());
    signal(worker.parse().unwrap(), "KILL");
    assert!(parked.line().contains("parked by"));
    let other_worker = scene.worker_pid();
    scene.upgrade(&UpgradeRequest::default()).unwrap();
    until("the old one is gone", || !alive(other_worker));
}

/// Writes a known pattern until told to end, and tells how much.
pub(crate) fn pour(mut to: &UnixStream, over: &AtomicBool, chunk: usize) -> u64 {
    let bytes: Vec<u8> = (0..251_u32 * 1000).map(|at| (at % 251) as u8).collect();
    let mut sent = 0;
    while !over.load(Ordering::Relaxed) {
        let start = (sent % 251) as usize;
        sent += again(|| to.write(&bytes[start..start + chunk])) as u64;
    }
    to.shutdown(std::net::Shutdown::Write).unwrap();
    sent
}

/// A call on a socket with a time limit ends when this process hears of the end of a child.
pub(crate) fn again(mut call: impl FnMut() -> std::io::Result<usize>) -> usize {
    loop {
        match call() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            result => return result.unwrap(),
        }
    }
}

/// Reads that pattern to its end, and tells how much it was.
pub(crate) fn check(mut from: &UnixStream) -> u64 {
    let mut buffer = vec![0; 100_000];
    let mut got = 0_u64;
    loop {
        let read = again(|| from.read(&mut buffer));
        if read == 0 {
            return got;
        }
        for (at, byte) in buffer[..read].iter().enumerate() {
            assert_eq!(u64::from(*byte), (got + at as u64) % 251, "a byte is wrong at {got}+{at}");
        }
        got += read as u64;
    }
}

/// Pours bytes both ways through eight streams while something happens, and finds each of them at the other end, once. Gives
/// back the ends, which are still open.
pub(crate) fn pour_through(scene: &Scene, what: &str, happens: impl FnOnce()) -> Vec<(Client, Client)> {
    let engine = scene.engine();
    let pairs: Vec<(Client, Client)> = (0..8).map(|_| scene.stream(&engine)).collect();
    let over = AtomicBool::new(false);
    scope(|threads| {
        let mut runs = Vec::new();
        for (number, (client, far)) in pairs.iter().enumerate() {
            let (client, far) = (client.stream.get_ref(), far.stream.get_ref());
            // Bulk one way, small pieces the other way.
            let chunk = if number % 2 == 0 { 100_000 } else { 700 };
            let over = &over;
            runs.push((threads.spawn(move || pour(far, over, chunk)), threads.spawn(move || check(client))));
            runs.push((
                threads.spawn(move || pour(client, over, 800 - chunk / 1000)),
                threads.spawn(move || check(far)),
            ));
        }
        happens();
        over.store(true, Ordering::Relaxed);
        let mut total = 0;
        for (sent, got) in runs {
            let sent = sent.join().unwrap();
            assert_eq!(sent, got.join().unwrap());
            total += sent;
        }
        println!("  {} MB through {what}", total >> 20);
    });
    pairs
}

fn no_byte_lost() {
    let scene = Scene::new();
    let _open = pour_through(&scene, "20 successions", || {
        for _ in 0..20 {
            scene.upgrade(&keeper()).unwrap();
            sleep(Duration::from_millis(20));
        }
    });
    let status = scene.status();
    assert_eq!((status.reexecs, status.worker_deaths), (20, 0));
    until("all have ended", || scene.status().streams.is_empty());
}

fn cannot() {
    let scene = Scene::new();
    let engine = scene.engine();
    let (mut client, mut far) = scene.stream(&engine);
    let before = scene.descriptors();
    let mode = |text: &str| fs::write(scene.dir.path().join("keeper-mode"), text).unwrap();
    for (path, reason) in [
        ("/nowhere", "No such file"),
        ("/bin/true", "without reporting that it can take over"),
        ("/etc/passwd", "Exec format error"),
    ] {
        let error = scene.upgrade(&UpgradeRequest { keeper: true, ..binary(path.into()) }).unwrap_err();
        assert!(error.to_string().contains(reason), "{path}: {error}");
    }
    mode("broken");
    let error = scene.upgrade(&keeper()).unwrap_err().to_string();
    assert!(error.contains("the configuration is broken"), "{error}");
    mode("hang");
    let error = scene.upgrade(&UpgradeRequest { timeout_ms: Some(300), ..keeper() }).unwrap_err().to_string();
    assert!(error.contains("too long"), "{error}");
    far.write("event");
    assert_eq!(client.read(5), "event");
    let status = scene.status();
    assert_eq!((status.reexecs, status.version.as_str()), (0, "keeper-1"));
    assert_eq!(scene.descriptors(), before);
    mode("");
    scene.upgrade(&keeper()).unwrap();
    far.write("event");
    assert_eq!(client.read(5), "event");
}

fn workers_die() {
    let scene = Scene::new();
    let engine = scene.engine();
    let (mut client, mut far) = scene.stream(&engine);
    for round in 0..6 {
        let old = scene.worker_pid();
        scope(|threads| {
            let asked = threads.spawn(|| scene.upgrade(&keeper()));
            sleep(Duration::from_millis(round * 2));
            signal(old, "KILL");
            asked.join().unwrap().unwrap();
        });
        assert_ne!(scene.worker_pid(), old);
        far.write("event");
        assert_eq!(client.read(5), "event");
        assert_eq!(scene.status().workers.len(), 1);
    }
}

fn blocked() {
    let scene = Scene::new();
    let engine = scene.engine();
    let (client, far) = scene.stream(&engine);
    scene.status();
    let pipes = scene.pipes();
    let far = far.stream.into_inner();
    far.set_nonblocking(true).unwrap();
    let bytes: Vec<u8> = (0..16_u32 << 20).map(|at| (at % 251) as u8).collect();
    let mut sent = 0;
    for _ in 0..200 {
        if let Ok(written) = (&far).write(&bytes[sent..]) {
            sent += written;
        }
        sleep(Duration::from_millis(1));
    }
    assert_eq!(scene.pipes(), pipes + 2, "the stream is not blocked with bytes in its pipe");
    for _ in 0..3 {
        scene.upgrade(&keeper()).unwrap();
    }
    assert_eq!(scene.pipes(), pipes + 2);
    drop(far);
    let mut got = Vec::new();
    client.stream.into_inner().read_to_end(&mut got).unwrap();
    assert!(got == bytes[..sent], "{} of {sent}", got.len());
    until("it has ended", || scene.status().streams.is_empty());
}
