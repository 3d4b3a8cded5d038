//! A keeper under systemd, and one that quits: its streams go on without it.

use crate::scene::{Scene, alive, signal, start, start_with, until};
use std::time::Duration;

pub(crate) const CASES: &[(&str, fn())] = &[
    ("systemd_is_told", systemd),
    ("a_quit_leaves_streams_that_go_on_beside_the_next_keeper", quit),
    ("a_quit_is_heard_where_a_shell_had_it_ignored", ignored_quit),
    ("the_last_streams_end_when_told_to_stop", quit_and_told_to_stop),
];

fn systemd() {
    let scene = Scene::new();
    let mut scene = scene;
    scene.end_both();
    let path = scene.dir.path().join("notify");
    let told = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    told.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let heard = || {
        let mut buffer = [0; 1000];
        let read = told.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..read]).into_owned()
    };
    scene.keeper = start_with(&scene.dir, "", 0, |mut command| {
        command.env("NOTIFY_SOCKET", &path);
        command
    });
    assert_eq!(heard(), "READY=1");
    scene.signal("HUP");
    assert!(heard().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(heard(), "READY=1");
    scene.signal("TERM");
    assert_eq!(heard(), "STOPPING=1");
}

fn quit() {
    let mut scene = Scene::new();
    let engine = scene.engine();
    let mut kept: Vec<_> = (0..3).map(|_| scene.stream(&engine)).collect();
    let mut idle = scene.client();
    scene.signal("QUIT");
    assert!(scene.end().success());
    assert!(idle.at_end(), "the worker that served it is gone");
    // Lock, paths and control socket are free at once.
    scene.keeper = start(&scene.dir, "", 0);
    until("the next one serves", || scene.log().matches(" is ready").count() == 2);
    for (client, far) in &mut kept {
        far.write("more");
        assert_eq!(client.read(4), "more");
        client.write("less");
        assert_eq!(far.read(4), "less");
    }
    let marker = " streams go on in process ";
    let log = scene.log();
    let rest = log.split_once(marker).expect("it is told").1;
    let last: u32 = rest.split(' ').next().unwrap().parse().unwrap();
    signal(last, "QUIT");
    signal(last, "HUP");
    // Half-close is passed on there as well; when all have ended, so has the process.
    for (mut client, far) in kept.drain(..) {
        drop(far);
        assert!(client.at_end());
    }
    until("it ends with them", || !alive(last));
    assert!(scene.log().contains("the last streams have ended"));
    assert_eq!(scene.status().streams.len(), 0);
}

fn ignored_quit() {
    let mut scene = Scene::new();
    scene.worker_pid();
    scene.end_both();
    scene.keeper = start_with(&scene.dir, "", 0, |command| {
        let mut deaf = std::process::Command::new("env");
        deaf.arg("--ignore-signal=QUIT").arg(command.get_program()).args(command.get_args());
        deaf
    });
    until("it serves", || scene.log().matches(" is ready").count() == 2);
    scene.signal("QUIT");
    assert!(scene.end().success());
}

fn quit_and_told_to_stop() {
    let mut scene = Scene::new();
    let engine = scene.engine();
    let (mut client, mut far) = scene.stream(&engine);
    scene.signal("QUIT");
    assert!(scene.end().success());
    let log = scene.log();
    let last: u32 = log.split_once("in process ").unwrap().1.split(' ').next().unwrap().parse().unwrap();
    signal(last, "TERM");
    assert!(client.at_end() && far.at_end());
    until("it ends", || !alive(last));
}
