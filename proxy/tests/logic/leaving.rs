//! A worker that leaves: idle clients go to the next one.

use std::time::Duration;

use selvedge_fake::engine::Reply;
use selvedge_fake::lab::{Lab, container};

use crate::lab::worker;

#[tokio::test(start_paused = true)]
async fn idle_clients_go_to_the_next_worker_with_what_was_read() {
    let lab = Lab::new();
    let mut worker = worker(&lab);
    let mut client = worker.client().await;
    client.gets("GET", "/info", None).await;
    client.sends("GET /in").await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    worker.api.leave();
    worker.keeper.until_said("give_back 1").await;
    assert_eq!(worker.keeper.given_back(), [(1, b"GET /in".to_vec())]);
    assert!(!worker.keeper.said().contains(&"end 1".to_owned()), "it is not ended");
}

#[tokio::test(start_paused = true)]
async fn a_request_under_way_is_answered_first() {
    let lab = Lab::new();
    lab.engine.has(container("a", 2, true));
    let (open, when) = tokio::sync::watch::channel(false);
    lab.engine.tell("POST /containers/a/kill", Reply::When(when));
    let mut worker = worker(&lab);
    let mut client = worker.client().await;
    client.asks("POST", "/containers/a/kill?signal=HUP", None).await;
    worker.keeper.until_said("hold 1").await;
    worker.api.leave();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(worker.keeper.given_back().is_empty());
    open.send_replace(true);
    assert_eq!(client.answer(false).await.status, 204);
    worker.keeper.until_said("give_back 1").await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_is_ended_at_the_keeper_too() {
    let lab = Lab::new();
    let mut worker = worker(&lab);
    let client = worker.client().await;
    drop(client);
    worker.keeper.until_said("end 1").await;
    assert_eq!(worker.api.counters.open_connections(), 0);
}
