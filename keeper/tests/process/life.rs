//! A keeper's ordinary life: workers come, die and are replaced; streams and sockets stay.

use crate::scene::{Client, Scene, alive, signal, start, start_with, until};
use crate::succession::keeper;
use selvedge_keeper::control::UpgradeRequest;
use selvedge_keeper::position::Position;
use std::fs;
use std::io::{BufRead, Read};
use std::os::unix::fs::MetadataExt;
use std::thread::sleep;
use std::time::{Duration, Instant};

pub(crate) const CASES: &[(&str, fn())] = &[
    ("a_worker_gets_all_sockets_also_very_many", all_sockets),
    ("a_killed_worker_is_replaced_and_no_client_is_refused", killed_worker),
    ("a_worker_that_stands_still_is_replaced_and_its_clients_are_served", stands_still),
    ("one_that_stands_still_while_it_leaves_is_ended_too", stands_still_while_it_leaves),
    ("a_worker_that_keeps_dying_is_started_ever_more_slowly", crash_loop),
    ("workers_that_served_are_replaced_at_once_however_many_die", served_and_died),
    ("a_worker_that_hangs_before_ready_is_replaced", hanging_worker),
    ("a_refused_configuration_at_the_start_ends_the_keeper", refused_at_start),
    ("a_binary_that_is_not_there_ends_the_keeper_at_the_start", missing_at_start),
    ("a_second_keeper_is_refused", second_keeper),
    ("garbage_on_the_control_channel_does_no_harm", garbage),
    ("a_worker_that_dies_in_mid_message_does_no_harm", mid_message),
    ("a_stop_gives_streams_a_grace_and_leaves_the_socket_file", stop),
    ("a_second_stop_ends_at_once", stop_twice),
    ("a_worker_leaves_when_keeper_and_second_are_killed", keeper_killed),
    ("status_tells_of_streams_and_workers", status),
    ("a_thousand_streams_leave_nothing_behind", no_leak),
    ("when_descriptors_run_out_new_streams_end_and_old_ones_go_on", exhaustion),
    ("a_small_limit_of_descriptors_refuses_new_streams_in_time", small_limit),
    ("a_parked_client_is_given_to_the_next_worker", || parked(0)),
    ("a_parked_client_whose_request_was_large_is_given_to_the_next_worker_too", || parked(20_000_000)),
    ("a_stream_goes_on_with_another_upstream", resumed),
];

fn all_sockets() {
    for extra in [0, 1, 199, 200, 450] {
        assert_eq!(Scene::with("", extra).client().ask("sockets"), (extra + 1).to_string());
    }
}

fn killed_worker() {
    let scene = Scene::new();
    let engine = scene.engine();
    let (mut client, mut far) = scene.stream(&engine);
    let inode = fs::metadata(scene.api()).unwrap().ino();
    for _ in 0..3 {
        let old = scene.worker_pid();
        signal(old, "KILL");
        // These wait in the queue until the next worker is there.
        let mut waiting: Vec<Client> = (0..20).map(|_| scene.client()).collect();
        far.write("event");
        assert_eq!(client.read(5), "event");
        for client in &mut waiting {
            assert_ne!(client.ask("pid"), old.to_string());
        }
    }
    assert_eq!(fs::metadata(scene.api()).unwrap().ino(), inode);
    assert_eq!(scene.status().worker_deaths, 3);
}

fn stands_still() {
    let scene = Scene::new();
    let engine = scene.engine();
    let (mut client, mut far) = scene.stream(&engine);
    let mut parked = scene.client();
    assert_eq!(parked.ask("park note"), "parked");
    let old = scene.worker_pid();
    // Longer than a worker may owe an answer: asked, it answers.
    sleep(Duration::from_secs(3));
    assert_eq!(scene.worker_pid(), old);
    signal(old, "STOP");
    let stopped = Instant::now();
    assert_ne!(scene.client().ask("pid"), old.to_string());
    assert!(stopped.elapsed() < Duration::from_secs(4), "{:?}", stopped.elapsed());
    assert!(scene.log().contains("has not answered for 2s: killed"), "{}", scene.log());
    far.write("event");
    assert_eq!(client.read(5), "event");
    assert!(!alive(old));
}

fn stands_still_while_it_leaves() {
    let scene = Scene::new();
    let old = scene.worker_pid();
    signal(old, "STOP");
    scene.upgrade(&UpgradeRequest::default()).unwrap();
    until("the old one is ended", || !alive(old));
    scene.one_worker();
}

fn crash_loop() {
    let scene = Scene::new();
    let old = scene.worker_pid();
    scene.mode("crash");
    signal(old, "KILL");
    sleep(Duration::from_secs(2));
    let starts = scene.log().matches(" started: ").count();
    // The first one, ten at once, and then with pauses.
    assert!((12..=16).contains(&starts), "{starts} starts in 2 s");
    assert!(scene.log().contains("exited with code 3 before it was ready: the reason is here"));
    scene.mode("");
    assert_ne!(scene.worker_pid(), old);
}

fn served_and_died() {
    let scene = Scene::new();
    let began = Instant::now();
    for _ in 0..25 {
        // An answer to this is an answer of one that is ready.
        signal(scene.worker_pid(), "KILL");
    }
    scene.worker_pid();
    // Pauses after the tenth would add up to more than a minute.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

fn hanging_worker() {
    let scene = Scene::with("hang", 0);
    sleep(Duration::from_millis(500));
    scene.mode("");
    let start = Instant::now();
    scene.worker_pid();
    assert!(start.elapsed() > Duration::from_secs(1));
    assert!(scene.log().contains("was not ready within 3.0 s"), "{}", scene.log());
}

fn refused_at_start() {
    let mut scene = Scene::with("refuse", 0);
    assert_eq!(scene.end().code(), Some(1));
    assert!(scene.log().contains("did not start: line 7 of the configuration is wrong"));
}

fn missing_at_start() {
    let mut scene = Scene::new();
    scene.end_both();
    fs::remove_file(scene.dir.path().join("worker-exe")).unwrap();
    scene.keeper = start(&scene.dir, "", 0);
    assert_eq!(scene.end().code(), Some(1));
    assert!(scene.log().contains("worker-exe: No such file"), "{}", scene.log());
}

fn second_keeper() {
    let mut scene = Scene::new();
    scene.worker_pid();
    let mut second = start(&scene.dir, "", 0);
    assert_eq!(second.wait().unwrap().code(), Some(1));
    assert!(scene.log().contains("another keeper is running in"));
    scene.worker_pid();
    // After a kill -9 the next one replaces the stale socket file.
    scene.end_both();
    scene.keeper = start(&scene.dir, "", 0);
    until("it serves", || std::os::unix::net::UnixStream::connect(scene.api()).is_ok());
    scene.worker_pid();
}

fn garbage() {
    let scene = Scene::new();
    let engine = scene.engine();
    let (mut client, mut far) = scene.stream(&engine);
    let before = scene.descriptors();
    let mut flooder = scene.client();
    flooder.say("flood");
    flooder.ask("pid");
    until("all was read", || scene.status().garbled >= 4000);
    assert_eq!(scene.status().streams_refused, 1000);
    assert!(scene.log().lines().count() < 100, "a flood of log lines");
    far.write("event");
    assert_eq!(client.read(5), "event");
    assert!(scene.descriptors() <= before + 1, "descriptors leaked");
}

fn mid_message() {
    let scene = Scene::new();
    let engine = scene.engine();
    let (mut client, mut far) = scene.stream(&engine);
    for word in ["half", "abort", "half"] {
        let mut victim = scene.client();
        victim.say(word);
        assert!(victim.at_end());
        far.write("event");
        assert_eq!(client.read(5), "event");
        scene.worker_pid();
    }
}

fn stop() {
    let mut scene = Scene::new();
    let engine = scene.engine();
    let (mut client, mut far) = scene.stream(&engine);
    let worker = scene.worker_pid();
    let asked = Instant::now();
    scene.signal("TERM");
    until("the worker is gone", || !alive(worker));
    far.write("late");
    assert_eq!(client.read(4), "late");
    assert!(client.at_end());
    assert_eq!(scene.end().code(), Some(0));
    assert!(asked.elapsed() >= Duration::from_millis(1400), "{:?}", asked.elapsed());
    assert!(scene.api().exists());
}

fn stop_twice() {
    let mut scene = Scene::new();
    let engine = scene.engine();
    let (_client, _far) = scene.stream(&engine);
    let asked = Instant::now();
    scene.signal("TERM");
    sleep(Duration::from_millis(100));
    scene.signal("INT");
    assert_eq!(scene.end().code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(1));
}

fn keeper_killed() {
    let mut scene = Scene::new();
    let worker = scene.worker_pid();
    scene.end_both();
    until("the worker leaves", || !alive(worker));
}

fn status() {
    let scene = Scene::new();
    let engine = scene.engine();
    let mut streams: Vec<_> = (0..1000).map(|_| scene.stream(&engine)).collect();
    streams[7].1.write("12345");
    assert_eq!(streams[7].0.read(5), "12345");
    let status = scene.status();
    assert_eq!(status.pid, scene.keeper.id());
    assert_eq!((status.version.as_str(), status.protocol), ("keeper-1", 3));
    assert_eq!(status.workers.len(), 1);
    assert_eq!((status.workers[0].state.as_str(), status.workers[0].pid), ("ready", scene.worker_pid()));
    assert_eq!(status.streams.len(), 1000);
    assert_eq!(status.streams[7].label, "test stream");
    assert_eq!((status.streams[7].to_upstream, status.streams[7].to_client), (5, 11));
    drop(streams);
    until("all have ended", || scene.status().streams_finished == 1000);
}

fn no_leak() {
    let scene = Scene::new();
    let engine = scene.engine();
    drop(scene.stream(&engine));
    until("it has ended", || scene.status().streams_finished == 1);
    let before = scene.descriptors();
    for number in 0..1000 {
        let (client, far) = scene.stream(&engine);
        // Either side may be the first to go.
        if number % 2 == 0 { drop(client) } else { drop(far) }
    }
    until("all have ended", || scene.status().streams_finished == 1001);
    assert_eq!(scene.descriptors(), before);
}

fn exhaustion() {
    let scene = Scene::new();
    let engine = scene.engine();
    scene.worker_pid();
    let (mut client, mut far) = scene.stream(&engine);
    let open = scene.descriptors();
    let limit = format!("--nofile={0}:{0}", open + 21);
    let pid = scene.keeper.id().to_string();
    assert!(std::process::Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
    let mut ended = 0;
    let mut kept = Vec::new();
    for _ in 0..40 {
        let mut client = scene.client();
        client.say(&format!("stream {}/engine.sock start", scene.dir.path().display()));
        let far = Client::new(engine.accept().unwrap().0);
        match client.stream.fill_buf() {
            Ok(bytes) if !bytes.is_empty() => kept.push((client, far)),
            _ => ended += 1,
        }
    }
    assert!(ended >= 28 && kept.len() >= 8, "{ended} ended, {} kept", kept.len());
    far.write("event");
    assert_eq!(client.read(5), "event");
    for (client, far) in &mut kept {
        far.write("more");
        assert_eq!(client.read(10), "begin more");
    }
    drop(kept);
    until("there is room again", || {
        let mut client = scene.client();
        client.say(&format!("stream {}/engine.sock start", scene.dir.path().display()));
        let _far = engine.accept().unwrap();
        client.stream.read(&mut [0]).is_ok_and(|read| read == 1)
    });
}

fn small_limit() {
    let scene = Scene::new();
    let engine = scene.engine();
    drop(scene.stream(&engine));
    let mut scene = scene;
    scene.end_both();
    scene.keeper = start_with(&scene.dir, "", 0, |command| {
        let mut limited = std::process::Command::new("prlimit");
        limited.arg("--nofile=64:64").arg(command.get_program()).args(command.get_args());
        limited
    });
    // A connection would prove nothing: the former worker may still listen at the same path.
    until("it serves", || scene.log().matches(" is ready").count() == 2);
    let mut kept: Vec<_> = (0..14).map(|_| scene.stream(&engine)).collect();
    let mut client = scene.client();
    client.say(&format!("stream {}/engine.sock start", scene.dir.path().display()));
    let _far = engine.accept().unwrap();
    assert!(client.at_end());
    assert!(scene.log().contains("refused (1): no descriptors are left"), "{}", scene.log());
    for (client, far) in &mut kept {
        far.write("more");
        assert_eq!(client.read(4), "more");
    }
    // There is enough left to start a worker.
    signal(scene.worker_pid(), "KILL");
    scene.worker_pid();
    scene.upgrade(&Default::default()).unwrap();
}

fn parked(note: usize) {
    let scene = Scene::new();
    let mut client = scene.client();
    assert_eq!(client.ask(&format!("park {note}")), "parked");
    for _ in 0..2 {
        let first = scene.worker_pid();
        signal(first, "KILL");
        let line = client.line();
        assert!(line.contains(&format!("with a note of {note}, now with ")), "{line}");
        assert!(!line.contains(&format!("with {first}")));
        assert_eq!(scene.status().parked, 1);
    }
    scene.client().say("unpark");
    until("it is served", || scene.status().parked == 0);
    assert!(client.at_end());
}

fn resumed() {
    let scene = Scene::new();
    let mut client = scene.client();
    let engine = scene.engine();
    let before = scene.descriptors();
    client.say(&format!("resumable {}/engine.sock", scene.dir.path().display()));
    // As docker attach without -i does: its half-close is passed on, and is no leave.
    client.stream.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    let mut far = Client::new(engine.accept().unwrap().0);
    assert!(far.at_end());
    far.write("\x01\0\0\0\0\0\0\x04ab");
    scene.upgrade(&keeper()).unwrap();
    // The engine is away for a while, in which workers come and go.
    drop(engine);
    fs::remove_file(scene.dir.path().join("engine.sock")).unwrap();
    drop(far);
    until("workers have tried", || scene.log().matches(" died").count() >= 2);
    scene.upgrade(&keeper()).unwrap();
    let engine = scene.engine();
    let told: Position = serde_json::from_reader(engine.accept().unwrap().0).unwrap();
    let frames = told.frames.unwrap();
    assert_eq!((told.moved, frames.passed, frames.left), (10, [0, 2, 0], 2));
    let mut far = Client::new(engine.accept().unwrap().0);
    far.write("cd");
    assert_eq!(client.read(12), "\x01\0\0\0\0\0\0\x04abcd");
    assert_eq!(scene.status().parked, 0);
    drop(client);
    assert!(far.at_end());
    drop(far);
    until("nothing is left", || scene.status().streams.is_empty() && scene.descriptors() <= before);
}
