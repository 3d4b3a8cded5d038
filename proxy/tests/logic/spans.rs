//! One request, one container: one id on all their lines.

use selvedge_fake::log::Log;
use serde_json::json;

use crate::lab::{with_image, worker};

#[tokio::test(start_paused = true)]
async fn all_that_is_done_for_a_request_is_logged_under_its_id() {
    let (log, lab) = (Log::listen(), with_image());
    let mut worker = worker(&lab);
    let mut client = worker.client().await;
    let made =
        client.gets("POST", "/v1.41/containers/create?name=db", Some(json!({"Image": "busybox"}))).await;
    assert_eq!(made.status, 201, "{}", made.message());
    let id = made.json()["Id"].as_str().unwrap().to_owned();
    let create = log.last("created with a wire");
    assert_eq!(client.gets("POST", "/v1.41/containers/db/start", None).await.status, 204);
    let number = |nth: u32| format!("{}.{nth}", std::process::id());
    assert_eq!((create.id("request"), create.id("container")), (Some(number(1).as_str()), Some(&id[..12])));
    for message in ["the engine answered", "its names are answered", "its program may run", "wired"] {
        let line = log.last(message);
        let about = (line.id("request"), line.id("container"));
        assert_eq!(about, (Some(number(2).as_str()), Some(&id[..12])), "{message}");
    }
    client.gets("GET", "/v1.41/containers/db/json", None).await;
    assert_eq!(log.last("request").id("request"), Some(number(3).as_str()));
}

#[tokio::test(start_paused = true)]
async fn what_the_engine_starts_by_itself_is_logged_under_no_request() {
    let (log, lab) = (Log::listen(), with_image());
    lab.knows(selvedge_fake::lab::container("a", 2, true)).await;
    selvedge_containers::reconcile::container(&lab.containers, "a").await.unwrap();
    let line = log.last("wired");
    assert_eq!((line.id("request"), line.id("container")), (None, Some("a")));
}
