//! Streams whose client's bytes go to another socket than the one that it is answered from, through all that can happen to
//! keepers.

use crate::killed::kill_at_random;
use crate::scene::{Scene, until};
use crate::succession::{check, keeper, pour};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

pub(crate) const CASES: &[(&str, fn())] = &[
    ("no_byte_of_input_or_output_is_lost_through_kills_and_successions", no_byte_lost),
    ("an_input_goes_with_its_output_to_the_next_upstream", next_upstream),
    ("what_an_input_had_not_taken_comes_first_in_the_next", not_taken),
    ("nothing_of_an_input_is_left_open", no_leak),
];

/// The ends of a stream: the client's, its upstream's, its input's.
fn split(scene: &Scene, engine: &UnixListener) -> [UnixStream; 3] {
    let mut client = scene.client();
    let path = scene.dir.path().join("engine.sock");
    client.say(&format!("resumable {0} {0}", path.display()));
    [client.stream.into_inner(), engine.accept().unwrap().0, engine.accept().unwrap().0]
}

fn no_byte_lost() {
    let scene = Scene::new();
    let engine = scene.engine();
    let streams: Vec<_> = (0..4).map(|_| split(&scene, &engine)).collect();
    let (typed, said) = (AtomicBool::new(false), AtomicBool::new(false));
    scope(|threads| {
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        for (number, [client, upstream, input]) in streams.iter().enumerate() {
            let (typed, said, chunk) = (&typed, &said, if number % 2 == 0 { 100_000 } else { 700 });
            outputs.push((
                threads.spawn(move || pour(upstream, said, chunk)),
                threads.spawn(move || check(client)),
            ));
            inputs.push((
                threads.spawn(move || pour(client, typed, 800 - chunk / 1000)),
                threads.spawn(move || check(input)),
            ));
        }
        for round in 0..10 {
            kill_at_random(&scene, 2, round);
            scene.upgrade(&keeper()).unwrap();
            sleep(Duration::from_millis(20));
        }
        // The end of an input comes while its output goes on.
        typed.store(true, Ordering::Relaxed);
        for (sent, got) in inputs {
            assert_eq!(sent.join().unwrap(), got.join().unwrap());
        }
        said.store(true, Ordering::Relaxed);
        // The worker is told of each when its client has got all, and finds it another upstream.
        let next: Vec<_> = streams
            .iter()
            .map(|_| {
                engine.accept().unwrap().0.read_to_string(&mut String::new()).unwrap();
                (engine.accept().unwrap().0, engine.accept().unwrap().0)
            })
            .collect();
        streams.iter().for_each(|[client, ..]| client.shutdown(Shutdown::Both).unwrap());
        drop(next);
        for (sent, got) in outputs {
            assert_eq!(sent.join().unwrap(), got.join().unwrap());
        }
    });
}

fn next_upstream() {
    let scene = Scene::new();
    let engine = scene.engine();
    let [mut client, mut upstream, mut input] = split(&scene, &engine);
    let mut buffer = [0; 16];
    for (word, end) in [(b"one", false), (b"two", true)] {
        client.write_all(word).unwrap();
        input.read_exact(&mut buffer[..3]).unwrap();
        assert_eq!(&buffer[..3], word);
        let frame = [&[1, 0, 0, 0, 0, 0, 0, 3], &word[..]].concat();
        upstream.write_all(&frame).unwrap();
        client.read_exact(&mut buffer[..11]).unwrap();
        assert_eq!(&buffer[..11], frame);
        if end {
            break;
        }
        scene.kill_keeper();
        upstream.shutdown(Shutdown::Both).unwrap();
        let mut told = String::new();
        engine.accept().unwrap().0.read_to_string(&mut told).unwrap();
        assert!(told.contains("\"passed\":[0,3,0]"), "{told}");
        assert_eq!(input.read(&mut buffer).unwrap(), 0, "it ends with its upstream");
        (upstream, input) = (engine.accept().unwrap().0, engine.accept().unwrap().0);
    }
    scene.kill_keeper();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(input.read(&mut buffer).unwrap(), 0);
    upstream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(upstream.read(&mut buffer).is_err(), "it is not told of the half-close");
}

fn not_taken() {
    let scene = Scene::new();
    let engine = scene.engine();
    let bytes: Vec<u8> = (0..16_u32 << 20).map(|at| (at % 251) as u8).collect();
    // By way of the buffer, by way of a pipe.
    for chunk in [9000, 100_000] {
        let [client, upstream, mut input] = split(&scene, &engine);
        client.set_nonblocking(true).unwrap();
        let mut sent = 0;
        for _ in 0..200 {
            sent += (&client).write(&bytes[sent..sent + chunk]).unwrap_or(0);
            sleep(Duration::from_millis(1));
        }
        scene.kill_keeper();
        if chunk > 9000 {
            scene.upgrade(&keeper()).unwrap();
        }
        // The client is parked before this one is killed, or after.
        upstream.shutdown(Shutdown::Both).unwrap();
        scene.kill_keeper();
        engine.accept().unwrap().0.read_to_string(&mut String::new()).unwrap();
        let (next, mut other) = (engine.accept().unwrap().0, engine.accept().unwrap().0);
        client.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        input.read_to_end(&mut got).unwrap();
        let taken = got.len();
        other.read_to_end(&mut got).unwrap();
        assert!(taken < sent && got == bytes[..sent], "{taken} and then {} of {sent}", got.len());
        client.shutdown(Shutdown::Both).unwrap();
        drop(next);
    }
}

fn no_leak() {
    let scene = Scene::new();
    let engine = scene.engine();
    let _kept = split(&scene, &engine);
    let open = || {
        let keeper = scene.status().pid;
        std::fs::read_dir(format!("/proc/{keeper}/fd")).unwrap().count()
    };
    scene.kill_keeper();
    until("the first keeper's own are closed", || scene.keeper_now().is_some());
    let before = open();
    for _ in 0..3 {
        let all = split(&scene, &engine);
        scene.kill_keeper();
        drop(all);
        until("nothing leaks", || scene.status().streams.len() == 1 && open() == before);
    }
}
