//! A start: its answer comes when wire, names and program are there, or none of them.

use selvedge_containers::entry::Phase;
use selvedge_fake::engine::Reply;
use selvedge_fake::host::Error;
use selvedge_fake::lab::{Lab, container};
use serde_json::json;
use std::sync::atomic::Ordering::Relaxed;

use crate::lab::worker;

async fn with_one() -> Lab {
    let lab = Lab::new();
    lab.knows(container("a", 2, false)).await;
    lab
}

#[tokio::test(start_paused = true)]
async fn it_is_answered_when_the_program_may_run() {
    let lab = with_one().await;
    let mut worker = worker(&lab);
    assert_eq!(worker.client().await.gets("POST", "/v1.41/containers/a/start", None).await.status, 204);
    assert_eq!(lab.host.said(), ["connect a", "admit a", "publish a", "release a"]);
    assert_eq!(lab.containers.book.entry("a").unwrap().phase, Phase::Wired);
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_have_a_wire_is_stopped_and_the_client_hears_why() {
    let lab = with_one().await;
    lab.host.refuses.store(true, Relaxed);
    let mut worker = worker(&lab);
    let answer = worker.client().await.gets("POST", "/v1.41/containers/a/start", None).await;
    assert_eq!(answer.status, 500);
    assert!(answer.message().contains("cannot connect container a"), "{}", answer.message());
    assert_eq!(lab.engine.times("POST /containers/a/stop"), 1);
    assert_eq!(lab.engine.container("a").unwrap()["State"]["Running"], false);
    assert!(lab.host.said().contains(&"withdraw a".to_owned()), "{:?}", lab.host.said());
}

#[tokio::test(start_paused = true)]
async fn one_whose_address_runs_elsewhere_is_not_started() {
    let lab = with_one().await;
    lab.knows(container("copy", 2, false)).await;
    let mut worker = worker(&lab);
    let mut client = worker.client().await;
    assert_eq!(client.gets("POST", "/containers/a/start", None).await.status, 204);
    let refused = client.gets("POST", "/containers/copy/start", None).await;
    assert_eq!(refused.status, 409, "{}", refused.message());
    assert_eq!(lab.engine.times("POST /containers/copy/start"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_engine_passes_as_it_is_and_nothing_is_wired() {
    let lab = with_one().await;
    lab.engine.tell("POST /containers/a/start", Reply::Json(500, json!({"message": "no such device"})));
    let mut worker = worker(&lab);
    let answer = worker.client().await.gets("POST", "/containers/a/start", None).await;
    assert_eq!((answer.status, answer.message().as_str()), (500, "no such device"));
    assert_eq!(lab.host.said(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn one_that_ends_at_once_was_started_all_the_same() {
    let lab = with_one().await;
    lab.host.fail("connect", Error::Gone { container: "a".to_owned(), pid: 1 });
    let mut worker = worker(&lab);
    assert_eq!(worker.client().await.gets("POST", "/containers/a/start", None).await.status, 204);
    assert!(!lab.host.said().contains(&"publish a".to_owned()), "{:?}", lab.host.said());
}

#[tokio::test(start_paused = true)]
async fn one_that_is_none_of_ours_is_the_engine_s_alone() {
    let lab = Lab::new();
    let mut foreign = container("b", 3, false);
    foreign["Config"]["Labels"] = json!({});
    lab.engine.has(foreign);
    let mut worker = worker(&lab);
    assert_eq!(worker.client().await.gets("POST", "/containers/b/start", None).await.status, 204);
    assert_eq!(lab.host.said(), Vec::<String>::new());
    let missing = worker.client().await.gets("POST", "/containers/c/start", None).await;
    assert_eq!((missing.status, missing.message().as_str()), (404, "No such container: c"));
}

#[tokio::test(start_paused = true)]
async fn a_restart_wires_the_new_process() {
    let lab = with_one().await;
    let mut worker = worker(&lab);
    let mut client = worker.client().await;
    assert_eq!(client.gets("POST", "/containers/a/restart?t=1", None).await.status, 204);
    assert_eq!(lab.host.said().last().unwrap(), "release a");
}

#[tokio::test(start_paused = true)]
async fn a_host_config_at_the_start_is_refused_as_its_mount_would_replace_ours() {
    let lab = with_one().await;
    let mut worker = worker(&lab);
    let body = Some(json!({"Binds": ["/a:/b"]}));
    let answer = worker.client().await.gets("POST", "/v1.20/containers/a/start", body).await;
    assert_eq!((answer.status, lab.engine.times("POST /containers/a/start")), (400, 0));
}
