//! Requests that may live long: whole to the engine, then the keeper's.

use selvedge_fake::engine::Reply;
use selvedge_fake::lab::{Lab, container};
use serde_json::json;

use crate::lab::worker;

const AGREED: &[u8] = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nhi";

#[tokio::test(start_paused = true)]
async fn a_build_goes_to_the_keeper_with_all_that_the_client_has_said() {
    let lab = Lab::new();
    let mut worker = worker(&lab);
    let mut client = worker.client().await;
    client
        .sends("POST /v1.41/build HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        .await;
    let given = worker.keeper.stream().await;
    assert_eq!((&given.head["label"], &given.head["held"]), (&json!("POST /v1.41/build"), &json!(1)));
    let (to_engine, to_client) = given.pending();
    let text = String::from_utf8_lossy(to_engine);
    assert!(text.starts_with("POST /v1.41/build ") && text.ends_with("\r\n\r\n3\r\nabc\r\n"), "{text}");
    assert!(text.contains("\r\nConnection: close\r\n"), "{text}");
    assert_eq!(to_client, b"");
    assert!(!worker.keeper.said().contains(&"end 1".to_owned()), "its client lives on");
}

#[tokio::test(start_paused = true)]
async fn http_2_is_a_stream_from_its_first_byte() {
    let lab = Lab::new();
    let mut worker = worker(&lab);
    worker.client().await.sends("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    let given = worker.keeper.stream().await;
    assert_eq!(given.pending().0, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_is_handed_over_when_the_engine_has_agreed() {
    let lab = Lab::new();
    lab.engine.tell("POST /exec/e/start", Reply::Raw(AGREED.to_vec(), None));
    let mut worker = worker(&lab);
    let mut client = worker.client().await;
    client
        .sends("POST /exec/e/start HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 2\r\n\r\n{}in")
        .await;
    let given = worker.keeper.stream().await;
    assert_eq!(given.pending(), (&b"in"[..], AGREED));
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_the_engine_refuses_leaves_an_ordinary_connection() {
    let lab = Lab::new();
    lab.engine.tell("POST /exec/e/start", Reply::Json(409, json!({"message": "paused"})));
    let mut worker = worker(&lab);
    let mut client = worker.client().await;
    client
        .sends("POST /exec/e/start HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 2\r\n\r\n{}")
        .await;
    let answer = client.answer(false).await;
    assert_eq!((answer.status, answer.message().as_str()), (409, "paused"));
    assert_eq!(client.gets("GET", "/info", None).await.status, 200, "the next one meets us again");
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_with_a_body_without_a_length_is_passed_as_it_comes() {
    let lab = Lab::new();
    lab.engine.tell("GET /session", Reply::Raw(AGREED.to_vec(), None));
    let mut worker = worker(&lab);
    let mut client = worker.client().await;
    client.sends("GET /session HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n").await;
    assert_eq!(worker.keeper.stream().await.pending().1, AGREED);
}

#[tokio::test(start_paused = true)]
async fn a_stream_waits_for_an_engine_that_is_away_and_then_is_refused() {
    let lab = Lab::new();
    lab.engine.goes();
    let mut worker = worker(&lab);
    let mut client = worker.client().await;
    client.sends("POST /v1.41/build HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.answer(false).await.status, 503);
}

#[tokio::test(start_paused = true)]
async fn what_docker_run_hangs_on_comes_back_when_the_engine_ends() {
    let lab = Lab::new();
    lab.engine.has(container("a", 2, true));
    let mut worker = worker(&lab);
    let head = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n";
    lab.engine.tell("POST /containers/a/wait", Reply::Raw(head.to_vec(), None));
    let mut client = worker.client().await;
    client.asks("POST", "/v1.41/containers/a/wait?condition=next-exit", None).await;
    let given = worker.keeper.stream().await;
    let (note, to_client) = (given.note(), given.pending().1);
    assert_eq!((&note["kind"], &note["container"]), (&json!("wait"), &json!("a")));
    assert!(to_client.starts_with(b"HTTP/1.1 200 OK\r\n"), "the client speaks HTTP/1.1");
    assert_eq!(given.head["resume"]["position"]["head"], to_client.len());
}

#[tokio::test(start_paused = true)]
async fn a_log_is_held_with_its_frames_and_a_refused_one_is_not() {
    let lab = Lab::new();
    lab.engine.has(container("a", 2, true));
    let mut worker = worker(&lab);
    let head = b"HTTP/1.0 200 OK\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n\r\n";
    lab.engine.tell("GET /containers/a/logs", Reply::Raw(head.to_vec(), None));
    lab.engine.tell("GET /containers/b/logs", Reply::Raw(b"HTTP/1.0 404 Not Found\r\n\r\n{}".to_vec(), None));
    let mut client = worker.client().await;
    client.asks("GET", "/v1.41/containers/a/logs?follow=1&stdout=1", None).await;
    let given = worker.keeper.stream().await;
    assert_eq!(
        (&given.note()["kind"], given.head["resume"]["position"]["frames"].is_object()),
        (&json!("logs"), true)
    );
    let mut client = worker.client().await;
    client.asks("GET", "/v1.41/containers/b/logs?follow=1&stdout=1", None).await;
    let given = worker.keeper.stream().await;
    assert!(given.head["resume"].is_null() && given.pending().1.ends_with(b"{}"), "{:?}", given.head);
}

#[tokio::test(start_paused = true)]
async fn an_attach_is_held_when_the_engine_has_agreed() {
    let lab = Lab::new();
    lab.engine.has(container("a", 2, true));
    let mut worker = worker(&lab);
    let agreed = b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
    lab.engine.tell("POST /containers/a/attach", Reply::Raw(agreed.to_vec(), None));
    let mut client = worker.client().await;
    client
        .sends("POST /v1.42/containers/a/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n")
        .await;
    let given = worker.keeper.stream().await;
    assert_eq!((&given.note()["kind"], given.pending().1), (&json!("attach"), &agreed[..]));
}
