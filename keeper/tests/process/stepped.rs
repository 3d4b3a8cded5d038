//! The keeper is killed in each of its system calls, one after the other: before the call, and after it.
//!
//! ptrace(2) stops it there, so that no call is left out by chance.

use crate::custody::{held, how};
use crate::scene::{Client, Scene, until};
use crate::succession::{check, pour};
use nix::sys::ptrace::{Options, interrupt, seize, syscall};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;

pub(crate) const CASES: &[(&str, fn())] =
    &[("no_byte_and_no_client_is_lost_by_a_kill_in_any_system_call", each_call)];

/// Kills in a row.
const KILLS: u32 = 200;

fn each_call() {
    let scene = Scene::new();
    let engine = scene.engine();
    let pairs: Vec<(Client, Client)> = (0..4).map(|_| scene.stream(&engine)).collect();
    let over = AtomicBool::new(false);
    let mut calls = BTreeMap::new();
    scope(|threads| {
        let mut runs = Vec::new();
        for (number, (client, far)) in pairs.iter().enumerate() {
            let (client, far) = (client.stream.get_ref(), far.stream.get_ref());
            let (over, chunk) = (&over, if number % 2 == 0 { 100_000 } else { 700 });
            runs.push((threads.spawn(move || pour(far, over, chunk)), threads.spawn(move || check(client))));
            runs.push((threads.spawn(move || pour(client, over, 700)), threads.spawn(move || check(far))));
        }
        let asking = threads.spawn(|| ask_on(&scene, &over));
        let giving = threads.spawn(|| give_on(&scene, &over));
        for round in 0..KILLS {
            *calls.entry(kill_after(&scene, round)).or_insert(0) += 1;
        }
        over.store(true, Ordering::Relaxed);
        for (sent, got) in runs {
            assert_eq!(sent.join().unwrap(), got.join().unwrap());
        }
        println!("  {} clients and {} streams meanwhile", asking.join().unwrap(), giving.join().unwrap());
    });
    println!("  kills by the number of the call: {calls:?}");
    let status = scene.status();
    assert_eq!((status.takeovers, status.worker_deaths), (u64::from(KILLS), 0));
    until("all have ended", || scene.status().streams.is_empty());
}

/// Clients that the keeper accepts, one after the other.
fn ask_on(scene: &Scene, over: &AtomicBool) -> u32 {
    let mut count = 0;
    while !over.load(Ordering::Relaxed) {
        assert_eq!(how(&mut held(scene)).1, "at once, left by none, read \"\"");
        count += 1;
    }
    count
}

/// Short streams, one after the other.
fn give_on(scene: &Scene, over: &AtomicBool) -> u32 {
    let path = scene.dir.path().join("short.sock");
    let engine = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mut count = 0;
    while !over.load(Ordering::Relaxed) {
        let mut client = scene.client();
        client.say(&format!("stream {} start", path.display()));
        let mut far = Client::new(engine.accept().unwrap().0);
        assert_eq!((far.read(5), client.read(6)), ("start".to_owned(), "begin ".to_owned()));
        client.write("up");
        far.write("down");
        assert_eq!((far.read(2), client.read(4)), ("up".to_owned(), "down".to_owned()));
        drop(far);
        assert!(client.at_end());
        count += 1;
    }
    count
}

/// Lets the keeper go on for that many stops, each before or after a call, and kills it there. The number of that call.
fn kill_after(scene: &Scene, stops: u32) -> u64 {
    let mut keeper = None;
    until("there is a keeper, and a second", || {
        keeper = scene.keeper_now();
        keeper.is_some()
    });
    let pid = Pid::from_raw(keeper.unwrap() as i32);
    seize(pid, Options::PTRACE_O_TRACESYSGOOD).unwrap();
    interrupt(pid).unwrap();
    wait(pid);
    let mut left = stops;
    while left > 0 {
        syscall(pid, None).unwrap();
        left -= u32::from(matches!(wait(pid), WaitStatus::PtraceSyscall(_)));
    }
    let call = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    while !matches!(wait(pid), WaitStatus::Signaled(..)) {}
    call.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

fn wait(pid: Pid) -> WaitStatus {
    waitpid(pid, Some(WaitPidFlag::__WALL)).unwrap()
}
