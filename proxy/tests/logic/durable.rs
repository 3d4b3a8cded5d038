//! An engine that breaks off in the middle of a create or a start: asked again, and nothing done twice.

use selvedge_fake::engine::Reply;
use selvedge_fake::lab::{Lab, container};
use serde_json::json;

use crate::lab::{with_image, worker};

#[tokio::test(start_paused = true)]
async fn a_create_that_was_done_before_the_engine_broke_off_is_found_again() {
    let lab = with_image();
    lab.engine.tell("POST /containers/create", Reply::DoneAndGone);
    let mut worker = worker(&lab);
    let body = Some(json!({"Image": "busybox"}));
    let answer = worker.client().await.gets("POST", "/containers/create?name=db", body).await;
    assert_eq!((answer.status, lab.engine.times("POST /containers/create")), (201, 1));
    let id = answer.json()["Id"].as_str().unwrap().to_owned();
    assert_eq!(lab.engine.container("db").unwrap()["Id"], id.as_str());
    assert!(lab.containers.book.note(&id).is_some(), "it is known as ours");
}

#[tokio::test(start_paused = true)]
async fn a_create_that_was_not_done_is_asked_again_and_has_one_address() {
    let lab = with_image();
    lab.engine.tell("POST /containers/create", Reply::Gone);
    let mut worker = worker(&lab);
    let body = Some(json!({"Image": "busybox"}));
    let answer = worker.client().await.gets("POST", "/containers/create?name=db", body).await;
    assert_eq!((answer.status, lab.engine.times("POST /containers/create")), (201, 2));
    assert_eq!(lab.containers.addresses.taken(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_create_without_a_wire_is_found_by_its_name() {
    let lab = with_image();
    let mut worker = worker(&lab);
    lab.engine.tell("POST /containers/create", Reply::DoneAndGone);
    lab.engine.tell(
        "GET /containers/db/json",
        Reply::Json(
            200,
            json!({
                "Id": "made", "Created": "2100-01-01T00:00:00Z", "Config": {"Labels": {}},
            }),
        ),
    );
    let body = Some(json!({"Image": "busybox", "HostConfig": {"NetworkMode": "host"}}));
    let answer = worker.client().await.gets("POST", "/containers/create?name=db", body).await;
    assert_eq!((answer.status, &answer.json()["Id"]), (201, &json!("made")));
    assert_eq!(lab.engine.times("POST /containers/create"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_was_done_is_not_done_again() {
    let lab = Lab::new();
    lab.knows(container("a", 2, false)).await;
    lab.engine.tell("POST /containers/a/start", Reply::DoneAndGone);
    let mut worker = worker(&lab);
    let answer = worker.client().await.gets("POST", "/containers/a/start", None).await;
    assert_eq!((answer.status, lab.engine.times("POST /containers/a/start")), (204, 1));
    assert_eq!(lab.host.said().last().unwrap(), "release a", "and it has its wire");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_was_not_done_is_asked_again() {
    let lab = Lab::new();
    lab.knows(container("a", 2, false)).await;
    lab.engine.tell("POST /containers/a/start", Reply::Gone);
    let mut worker = worker(&lab);
    let answer = worker.client().await.gets("POST", "/containers/a/start", None).await;
    assert_eq!((answer.status, lab.engine.times("POST /containers/a/start")), (204, 2));
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_always_breaks_off_is_given_up() {
    let lab = Lab::new();
    lab.knows(container("a", 2, false)).await;
    for _ in 0..9 {
        lab.engine.tell("POST /containers/a/start", Reply::Gone);
    }
    let mut worker = worker(&lab);
    let answer = worker.client().await.gets("POST", "/containers/a/start", None).await;
    assert_eq!(
        (answer.status, lab.engine.times("POST /containers/a/start")),
        (502, 5),
        "{}",
        answer.message()
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_in_the_middle_leaves_no_start_half_done() {
    let lab = Lab::new();
    lab.knows(container("a", 2, false)).await;
    let (open, when) = tokio::sync::watch::channel(false);
    lab.engine.tell("POST /containers/a/start", Reply::When(when));
    let mut worker = worker(&lab);
    let mut client = worker.client().await;
    client.asks("POST", "/containers/a/start", None).await;
    worker.keeper.until_said("hold 1").await;
    drop(client);
    open.send_replace(true);
    lab.until_said("release a").await;
}
