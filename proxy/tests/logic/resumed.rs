//! Held requests whose engine has ended: each client gets the rest of its answer, or is let go.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use selvedge_engine::lifeline::Lifeline;
use selvedge_engine::lifetime::now;
use selvedge_fake::engine::Reply;
use selvedge_fake::keeper::Given;
use selvedge_fake::lab::{Lab, container};
use selvedge_fake::log::Log;
use selvedge_keeper::link::Ended;
use selvedge_keeper::position::{Frames, Position};
use selvedge_proxy::held::resume::{Parked, resume};
use serde_json::{Value, json};
use tokio::net::UnixStream;

use crate::lab::{Worker, worker};

const OK: &[u8] = b"HTTP/1.0 200 OK\r\n\r\n";

/// A frame of output.
fn frame(text: &str) -> Vec<u8> {
    let mut frame = vec![1, 0, 0, 0];
    frame.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(text.as_bytes());
    frame
}

fn frames(value: Value) -> Option<Frames> {
    serde_json::from_value(value).unwrap()
}

fn note(kind: &str, line: &str) -> Value {
    let head = format!("{line} HTTP/1.1\r\nHost: d\r\n\r\n");
    json!({"kind": kind, "head": head, "container": "a", "began": 1, "counted": true})
}

/// A client of this request comes back, having got so much; its other end.
async fn comes_back(worker: &Worker, note: &Value, position: Position) -> UnixStream {
    let (client, socket) = UnixStream::pair().unwrap();
    let socket: OwnedFd = socket.into_std().unwrap().into();
    let ended = serde_json::from_value::<Ended>(json!({"position": position, "at": now()})).unwrap();
    let note = note.to_string().into_bytes();
    tokio::spawn(resume(Arc::clone(&worker.api), Parked { id: 7, client: socket, note, ended }));
    client
}

/// The engine lives from now on.
async fn lives(lab: &Lab) {
    let lifeline = Lifeline::to(lab.containers.engine.socket()).await.unwrap();
    lab.containers.life.begins(lifeline);
}

/// The engine that there was has ended, and there is another.
async fn another_engine(lab: &Lab) {
    lives(lab).await;
    lab.containers.life.ends();
}

async fn given(worker: &Worker) -> Given {
    let given = worker.keeper.stream().await;
    assert_eq!(given.head["replaces"], 7);
    given
}

#[tokio::test(start_paused = true)]
async fn a_wait_is_asked_again_of_the_engine_that_comes() {
    let lab = Lab::new();
    lab.engine.has(container("a", 2, true));
    lab.engine.tell("POST /containers/a/wait", Reply::Raw(OK.to_vec(), None));
    let worker = worker(&lab);
    lab.engine.goes();
    let note = note("wait", "POST /v1.41/containers/a/wait?condition=next-exit");
    let _client = comes_back(&worker, &note, Position::default()).await;
    tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    lab.engine.comes();
    let given = given(&worker).await;
    let (kind, times) = (given.note()["kind"].clone(), lab.engine.times("POST /containers/a/wait"));
    assert_eq!((kind, times), (note["kind"].clone(), 1));
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_container_that_is_gone_ends_with_its_code() {
    let lab = Lab::new();
    lab.containers.life.exited("a", 3);
    let worker = worker(&lab);
    let note = note("wait", "POST /v1.41/containers/a/wait");
    let _client = comes_back(&worker, &note, Position::default()).await;
    assert_eq!(given(&worker).await.pending().1, b"{\"StatusCode\":3,\"Error\":null}\n");
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_has_its_answer_and_a_client_that_left_are_let_go() {
    let lab = Lab::new();
    let worker = worker(&lab);
    let note = note("wait", "POST /v1.41/containers/a/wait");
    let _client = comes_back(&worker, &note, Position { moved: 20, ..Position::default() }).await;
    worker.keeper.until_said("unpark 7").await;
    lab.engine.goes();
    drop(comes_back(&worker, &note, Position::default()).await);
    while worker.keeper.said().iter().filter(|said| *said == "unpark 7").count() < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn events_go_on_from_the_moment_of_the_break() {
    let lab = Lab::new();
    lab.engine.tell("GET /events", Reply::Raw([OK, b"{}\n"].concat(), None));
    let worker = worker(&lab);
    let _client =
        comes_back(&worker, &note("events", "GET /v1.41/events?since=5&x=1"), Position::default()).await;
    assert_eq!(given(&worker).await.pending().1, b"{}\n");
}

#[tokio::test(start_paused = true)]
async fn events_go_on_in_the_form_in_which_they_began_or_end() {
    let lab = Lab::new();
    let told = |kind: &str| format!("HTTP/1.0 200 OK\r\nContent-Type: {kind}\r\n\r\n").into_bytes();
    let events = [told("application/json-seq"), b"\x1e{}\n".to_vec()].concat();
    lab.engine.tell("GET /events", Reply::Raw(events, None));
    let worker = worker(&lab);
    let mut note = note("events", "GET /v1.53/events");
    note["sequence"] = true.into();
    let _client = comes_back(&worker, &note, Position::default()).await;
    assert_eq!(given(&worker).await.pending().1, b"\x1e{}\n");
    // An older engine has come.
    lab.engine.tell("GET /events", Reply::Raw(told("application/json"), None));
    let _client = comes_back(&worker, &note, Position::default()).await;
    worker.keeper.until_said("unpark 7").await;
}

#[tokio::test(start_paused = true)]
async fn a_log_goes_on_at_the_very_byte() {
    let lab = Lab::new();
    lab.engine.has(container("a", 2, true));
    another_engine(&lab).await;
    let stamped = frame("2026-11-30T00:00:00.000000000Z abcdef");
    lab.engine.tell("GET /containers/a/logs", Reply::Raw([OK, &stamped].concat(), None));
    lab.engine
        .tell("GET /containers/a/logs", Reply::Raw([OK, &frame("abcdef"), &frame("new")].concat(), None));
    let worker = worker(&lab);
    let note = note("logs", "GET /v1.41/containers/a/logs?follow=1&stdout=1");
    let got = Position { moved: 12, head: 0, frames: frames(json!({"passed": [0, 4, 0]})) };
    let _client = comes_back(&worker, &note, got).await;
    assert_eq!(given(&worker).await.pending().1, [frame("ef"), frame("new")].concat());
}

#[tokio::test(start_paused = true)]
async fn a_log_that_broke_off_in_a_header_goes_on_behind_an_empty_frame() {
    let (log, lab) = (Log::listen(), Lab::new());
    lab.engine.has(container("a", 2, true));
    another_engine(&lab).await;
    let stamped = frame("2026-11-30T00:00:00.000000000Z abcdef");
    lab.engine.tell("GET /containers/a/logs", Reply::Raw([OK, &stamped].concat(), None));
    lab.engine.tell("GET /containers/a/logs", Reply::Raw([OK, &frame("abcdef")].concat(), None));
    let worker = worker(&lab);
    let mut note = note("logs", "GET /v1.41/containers/a/logs?follow=1&stdout=1");
    note["request"] = json!("4312.17");
    let torn = json!({"passed": [0, 4, 0], "header": [1, 0, 0, 0, 0, 0, 0, 0], "have": 5});
    let _client = comes_back(&worker, &note, Position { moved: 17, head: 0, frames: frames(torn) }).await;
    let given = given(&worker).await;
    assert_eq!(given.pending().1, [vec![0; 3], frame("ef")].concat());
    assert_eq!(given.head["resume"]["position"]["head"], 3);
    assert_eq!(log.last("reconnected to the engine").id("request"), Some("4312.17"));
}

#[tokio::test(start_paused = true)]
async fn output_whose_engine_lives_is_over_and_one_without_frames_too() {
    let lab = Lab::new();
    lab.engine.has(container("a", 2, false));
    lives(&lab).await;
    let worker = worker(&lab);
    let note = note("logs", "GET /v1.41/containers/a/logs?follow=1&stdout=1");
    let _client = comes_back(&worker, &note, Position::default()).await;
    worker.keeper.until_said("unpark 7").await;
    assert_eq!(lab.engine.times("GET /containers/a/logs"), 0);
    another_engine(&lab).await;
    let torn = Position { frames: frames(json!({"lost": true})), ..Position::default() };
    let _client = comes_back(&worker, &note, torn).await;
    while worker.keeper.said().iter().filter(|said| *said == "unpark 7").count() < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_note_that_cannot_be_read_lets_its_client_go() {
    let lab = Lab::new();
    let worker = worker(&lab);
    let _client = comes_back(&worker, &json!("x"), Position::default()).await;
    worker.keeper.until_said("unpark 7").await;
}
