//! Requests that are none of ours to change, and those that are none at all.

use std::time::Duration;

use selvedge_fake::engine::Reply;
use selvedge_fake::lab::Lab;
use serde_json::json;
use tokio::time::Instant;

use crate::lab::{PATIENCE, worker};

#[tokio::test(start_paused = true)]
async fn what_only_asks_is_relayed_and_the_connection_stays() {
    let lab = Lab::new();
    let mut worker = worker(&lab);
    let mut client = worker.client().await;
    for _ in 0..2 {
        let answer = client.gets("GET", "/v1.41/version", None).await;
        assert_eq!((answer.status, answer.json()), (200, json!({})));
    }
    assert_eq!(client.gets("HEAD", "/_ping", None).await.status, 200);
    assert_eq!(lab.engine.asked(), ["GET /version", "GET /version", "HEAD /_ping"]);
    assert_eq!(worker.api.counters.open_connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_changes_something_is_held_by_the_keeper_until_it_is_answered() {
    let lab = Lab::new();
    lab.engine.has(selvedge_fake::lab::container("a", 2, true));
    let mut worker = worker(&lab);
    let mut client = worker.client().await;
    assert_eq!(client.gets("POST", "/v1.41/containers/a/kill?signal=HUP", None).await.status, 204);
    worker.keeper.until_said("drop 1").await;
    assert_eq!(worker.keeper.said(), ["hello", "hold 1", "drop 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_an_engine_that_is_away_and_then_hears_so() {
    let lab = Lab::new();
    lab.engine.goes();
    let mut worker = worker(&lab);
    let (mut client, began) = (worker.client().await, Instant::now());
    let answer = client.gets("GET", "/v1.41/version", None).await;
    assert_eq!(answer.status, 503);
    assert!(answer.message().contains("cannot connect to the Docker engine"), "{}", answer.message());
    assert!(began.elapsed() >= PATIENCE);
    assert_eq!(client.rest().await, "", "the connection is closed");
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_comes_back_in_time_answers() {
    let lab = Lab::new();
    lab.engine.goes();
    let mut worker = worker(&lab);
    let mut client = worker.client().await;
    client.asks("GET", "/v1.41/version", None).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    lab.engine.comes();
    assert_eq!(client.answer(false).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_breaks_off_a_change_is_not_asked_again() {
    let lab = Lab::new();
    lab.engine.has(selvedge_fake::lab::container("a", 2, true));
    lab.engine.tell("POST /containers/a/kill", Reply::DoneAndGone);
    let mut worker = worker(&lab);
    let answer = worker.client().await.gets("POST", "/containers/a/kill?signal=HUP", None).await;
    assert_eq!(
        (answer.status, lab.engine.times("POST /containers/a/kill")),
        (502, 1),
        "{}",
        answer.message()
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_engine_s_router_would_move_is_moved() {
    let lab = Lab::new();
    let mut worker = worker(&lab);
    let answer = worker.client().await.gets("GET", "/v1.41//containers/json?all=1", None).await;
    assert_eq!(answer.status, 301);
    assert!(answer.head.contains("\r\nLocation: /v1.41/containers/json?all=1\r\n"), "{}", answer.head);
    assert!(lab.engine.asked().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_no_request_is_refused_and_never_reaches_the_engine() {
    for (text, status) in [
        ("GET /info HTTP/1.1\r\nHost: d\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        ("GET /%zz HTTP/1.1\r\nHost: d\r\n\r\n", 400),
        ("GET /info HTTP/1.1\r\nHost: d\r\nExpect: a-miracle\r\n\r\n", 417),
        ("\r\nGET /info HTTP/1.1\r\nHost: d\r\n\r\n", 400),
    ] {
        let lab = Lab::new();
        let mut worker = worker(&lab);
        let mut client = worker.client().await;
        client.sends(text).await;
        assert_eq!(client.answer(false).await.status, status, "{text}");
        assert!(lab.engine.asked().is_empty(), "{text}: {:?}", lab.engine.asked());
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_never_ends_is_given_up_and_a_blank_line_behind_a_post_is_passed_over() {
    let lab = Lab::new();
    lab.engine.has(selvedge_fake::lab::container("a", 2, true));
    let mut worker = worker(&lab);
    let mut client = worker.client().await;
    client.gets("POST", "/containers/a/kill?signal=HUP", None).await;
    client.sends("\r\n").await;
    assert_eq!(client.gets("GET", "/info", None).await.status, 200);
    client.sends("GET /info HTTP/1.1\r\n").await;
    assert_eq!(client.answer(false).await.status, 408);
}

#[tokio::test(start_paused = true)]
async fn where_descriptors_run_out_the_client_goes_that_has_asked_for_nothing() {
    let lab = Lab::new();
    let mut worker = worker(&lab);
    let mut silent = worker.client().await;
    tokio::task::yield_now().await;
    let mut other = worker.client().await;
    other.gets("GET", "/info", None).await;
    worker.api.crowded();
    assert_eq!(silent.rest().await, "");
    assert_eq!(other.gets("GET", "/info", None).await.status, 200);
}
