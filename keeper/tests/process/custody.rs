//! Clients that the keeper accepts: held while a worker serves them, and given to the next one with what it has left.

use crate::scene::{Client, Scene, until};
use crate::succession;
use selvedge_keeper::control::UpgradeRequest;
use std::os::unix::net::UnixStream;

/// All cases.
pub(crate) const CASES: &[(&str, fn())] = &[
    ("a_client_outlives_its_workers", a_client_outlives_its_workers),
    (
        "a_client_that_comes_while_there_is_no_worker_waits",
        a_client_that_comes_while_there_is_no_worker_waits,
    ),
    ("an_upgrade_gives_clients_on_with_what_was_read", an_upgrade_gives_clients_on_with_what_was_read),
    ("a_held_connection_outlives_its_worker", a_held_connection_outlives_its_worker),
    ("a_held_connection_goes_when_its_worker_drops_it", a_held_connection_goes_when_its_worker_drops_it),
    ("a_client_is_ended_once_its_worker_says_so", a_client_is_ended_once_its_worker_says_so),
    ("a_client_that_leaves_is_forgotten", a_client_that_leaves_is_forgotten),
    ("held_clients_outlive_the_keeper_s_replacement", held_clients_outlive_the_keeper_s_replacement),
];

pub(crate) fn held(scene: &Scene) -> Client {
    Client::new(UnixStream::connect(scene.dir.path().join("held.sock")).unwrap())
}

pub(crate) fn how(client: &mut Client) -> (u32, String) {
    let line = client.ask("how");
    let (pid, how) = line.strip_prefix("pid ").unwrap().split_once(", ").unwrap();
    (pid.parse().unwrap(), how.to_owned())
}

fn a_client_outlives_its_workers() {
    let scene = Scene::new();
    let (mut idle, mut asking) = (held(&scene), held(&scene));
    let (first, told) = how(&mut idle);
    assert_eq!(told, "at once, left by none, read \"\"");
    let mut last = first;
    for _ in 0..3 {
        asking.say("abort");
        until("it is dead", || !crate::scene::alive(last));
        let (pid, told) = how(&mut idle);
        assert_eq!(told, format!("first, left by {last}, read \"\""));
        assert_ne!(pid, last);
        last = pid;
    }
    assert_eq!(how(&mut asking).0, last);
}

fn a_client_that_comes_while_there_is_no_worker_waits() {
    let scene = Scene::new();
    let mut before = held(&scene);
    let (first, _) = how(&mut before);
    scene.mode("hang");
    before.say("abort");
    until("its death is noticed", || scene.log().contains("died"));
    let mut meanwhile = held(&scene);
    scene.mode("");
    let (second, told) = how(&mut meanwhile);
    assert_ne!(first, second);
    assert_eq!(told, "at once, left by none, read \"\"");
}

fn an_upgrade_gives_clients_on_with_what_was_read() {
    let scene = Scene::new();
    let mut client = held(&scene);
    let (first, _) = how(&mut client);
    scene.upgrade(&UpgradeRequest::default()).unwrap();
    until("it has left", || !crate::scene::alive(first));
    let (second, told) = how(&mut client);
    assert_ne!(first, second);
    assert_eq!(told, "at once, left by none, read \"half\"");
    // What was read is on the second worker's own record now: the third one finds it there alone.
    let mut other = held(&scene);
    other.say("abort");
    until("it is dead", || !crate::scene::alive(second));
    let (_, told) = how(&mut client);
    assert_eq!(told, format!("first, left by {second}, read \"\""));
}

/// A client whose worker holds a connection, and the connection's far end.
fn with_connection(scene: &Scene) -> (Client, Client) {
    let engine = scene.engine();
    let mut client = held(scene);
    client.say(&format!("hold {}", scene.dir.path().join("engine.sock").display()));
    let mut far = Client::new(engine.accept().unwrap().0);
    assert_eq!((far.read(7).as_str(), client.line().as_str()), ("begun, ", "held"));
    (client, far)
}

fn a_held_connection_outlives_its_worker() {
    let scene = Scene::new();
    let (mut client, mut far) = with_connection(&scene);
    client.say("abort");
    assert_eq!(far.read(9), "5 goes on");
    how(&mut client);
}

fn a_held_connection_goes_when_its_worker_drops_it() {
    let scene = Scene::new();
    let (mut client, mut far) = with_connection(&scene);
    client.say("drop");
    assert!(far.at_end());
}

fn a_client_is_ended_once_its_worker_says_so() {
    let scene = Scene::new();
    let mut client = held(&scene);
    how(&mut client);
    client.say("end");
    assert!(client.at_end());
    until("it is forgotten", || scene.status().clients == 0);
}

fn a_client_that_leaves_is_forgotten() {
    let scene = Scene::new();
    let mut client = held(&scene);
    how(&mut client);
    assert_eq!(scene.status().clients, 1);
    drop(client);
    until("it is forgotten", || scene.status().clients == 0);
}

fn held_clients_outlive_the_keeper_s_replacement() {
    let scene = Scene::new();
    let mut client = held(&scene);
    let (first, _) = how(&mut client);
    for _ in 0..3 {
        scene.upgrade(&succession::keeper()).unwrap();
        assert_eq!(how(&mut client).0, first, "the worker stays");
        assert_eq!(how(&mut held(&scene)).0, first, "and gets new clients");
    }
    client.say("abort");
    until("it is dead", || !crate::scene::alive(first));
    let (_, told) = how(&mut client);
    assert_eq!(told, format!("first, left by {first}, read \"\""));
}
