//! A worker is killed in the middle, and the next one goes on. Here time runs: two workers do not share a clock.

use std::os::fd::OwnedFd;
use std::time::Duration;

use selvedge_custody::{Ledger, Phase};
use selvedge_fake::engine::Reply;
use selvedge_fake::lab::{Lab, container};
use selvedge_fake::log::Log;
use serde_json::json;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::lab::{Answer, Client, Worker, with_image, worker, worker_of};

/// What is left of a killed worker: nothing of it is dropped.
struct Killed {
    client: std::os::unix::net::UnixStream,
    socket: OwnedFd,
    memory: OwnedFd,
    connections: Vec<(u64, OwnedFd)>,
}

fn alone() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// An engine's own thread, which ends with the tests.
fn engine_s() -> Handle {
    let runtime = alone();
    let handle = runtime.handle().clone();
    std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    handle
}

async fn until(is_so: impl Fn() -> bool) {
    tokio::time::timeout(Duration::from_secs(20), async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .unwrap();
}

/// A worker that a client asks something, and that is killed when this is so.
fn killed(
    lab: &Lab,
    request: (&str, &str, Option<serde_json::Value>),
    when: impl Fn(&Worker) -> bool,
) -> Killed {
    let runtime = alone();
    let left = runtime.block_on(async {
        let mut worker = worker(lab);
        let (ours, theirs) = UnixStream::pair().unwrap();
        let theirs: OwnedFd = theirs.into_std().unwrap().into();
        let socket = theirs.try_clone().unwrap();
        worker.admit(1, theirs, None).await;
        let mut client = Client(ours);
        assert_eq!(client.gets("GET", "/info", None).await.status, 200);
        client.asks(request.0, request.1, request.2).await;
        // What was said to the keeper before the kill is in its queue.
        let is_held = |worker: &Worker| worker.keeper.said().contains(&"hold 1".to_owned());
        until(|| when(&worker) && (request.0 == "GET" || is_held(&worker))).await;
        let (connections, memory) = (worker.keeper.held(), worker.memory.try_clone().unwrap());
        std::mem::forget(worker);
        Killed { client: client.0.into_std().unwrap(), socket, memory, connections }
    });
    std::mem::forget(runtime);
    left
}

/// The whole answer is on record; more than the client's socket takes, for it reads nothing.
fn is_answering(worker: &Worker) -> bool {
    let records = Ledger::read(worker.memory.try_clone().unwrap()).unwrap();
    records.iter().any(|record| matches!(record.phase(), Phase::Answering { .. }))
}

/// The next worker has taken all over.
async fn heir(lab: &Lab, left: Killed) -> (Worker, Client) {
    let mut heir = worker_of(lab.next(), false);
    heir.inheritance.held(1, left.connections);
    heir.inheritance.estate(1, left.memory);
    let client = Client(UnixStream::from_std(left.client).unwrap());
    heir.admit(1, left.socket, Some(1)).await;
    (heir, client)
}

fn lab_of(make: impl FnOnce() -> Lab) -> Lab {
    let engine = engine_s();
    let _guard = engine.enter();
    make()
}

fn answered(lab: &Lab, left: Killed, open: &tokio::sync::watch::Sender<bool>) -> (Answer, Log) {
    let log = Log::listen();
    let answer = alone().block_on(async {
        let (heir, mut client) = heir(lab, left).await;
        heir.keeper.until_said("taken 1").await;
        open.send_replace(true);
        let answer = client.answer(false).await;
        assert_eq!(client.gets("GET", "/info", None).await.status, 200, "the connection stays");
        answer
    });
    (answer, log)
}

#[test]
fn a_create_that_the_engine_works_on_is_answered_by_the_next_worker_under_the_same_id() {
    let lab = lab_of(with_image);
    let (open, when) = tokio::sync::watch::channel(false);
    lab.engine.tell("POST /containers/create", Reply::When(when));
    let body = Some(json!({"Image": "busybox"}));
    let left = killed(&lab, ("POST", "/containers/create?name=db", body), |_| {
        lab.engine.times("POST /containers/create") == 1
    });
    let (answer, log) = answered(&lab, left, &open);
    assert_eq!((answer.status, lab.engine.times("POST /containers/create")), (201, 1));
    // The first of the killed worker's was a question, and the heir has answered none yet.
    let id = format!("{}.2", std::process::id());
    for message in ["an earlier worker's request is brought to its end", "created with a wire"] {
        assert_eq!(log.last(message).id("request"), Some(id.as_str()), "{message}");
    }
}

#[test]
fn a_start_that_the_engine_works_on_is_wired_by_the_next_worker() {
    let lab = lab_of(Lab::new);
    alone().block_on(lab.knows(container("a", 2, false)));
    let (open, when) = tokio::sync::watch::channel(false);
    lab.engine.tell("POST /containers/a/start", Reply::When(when));
    let left = killed(&lab, ("POST", "/containers/a/start", None), |_| {
        lab.engine.times("POST /containers/a/start") == 1
    });
    let log = Log::listen();
    alone().block_on(async {
        let (heir, mut client) = heir(&lab, left).await;
        assert!(heir.api.containers.book.is_expected("a"), "no event of it is anyone else's to act on");
        let found = heir.api.containers.engine.inspect("a").await.unwrap();
        heir.api.containers.book.learn(&found);
        open.send_replace(true);
        assert_eq!(client.answer(false).await.status, 204);
    });
    assert_eq!(lab.engine.times("POST /containers/a/start"), 1);
    assert_eq!(lab.host.said().last().unwrap(), "release a");
    assert_eq!(log.last("wired").id("request"), Some(format!("{}.2", std::process::id()).as_str()));
}

#[test]
fn an_answer_that_was_sent_in_part_is_sent_to_its_end_and_no_byte_twice() {
    let lab = lab_of(Lab::new);
    let long: String = (0..400_000).map(|number| format!("{number},")).collect();
    lab.engine.tell("GET /images/long/json", Reply::Json(200, json!({"Id": long})));
    let left = killed(&lab, ("GET", "/images/long/json", None), is_answering);
    alone().block_on(async {
        let (_heir, mut client) = heir(&lab, left).await;
        assert!(client.answer(false).await.json()["Id"] == long.as_str());
        assert_eq!(client.gets("GET", "/info", None).await.status, 200);
    });
    assert_eq!(lab.engine.times("GET /images/long/json"), 1);
}
