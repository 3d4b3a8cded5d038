//! A create: what the engine is told instead of what the client said, and what becomes of its address.

use selvedge_containers::label::LABEL;
use selvedge_fake::engine::Reply;
use selvedge_fake::lab::Lab;
use serde_json::{Value, json};

use crate::lab::{Answer, Worker, with_image, worker};

async fn create(worker: &mut Worker, name: &str, body: Value) -> Answer {
    worker.client().await.gets("POST", &format!("/v1.41/containers/create?name={name}"), Some(body)).await
}

/// The engine's word for the label that was written.
fn note(lab: &Lab) -> Value {
    let text = lab.engine.created().last().unwrap()["Labels"][LABEL].as_str().unwrap().to_owned();
    serde_json::from_str(&text).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_container_gets_an_address_names_and_the_program_that_waits() {
    let lab = with_image();
    let mut worker = worker(&lab);
    let body = json!({
        "Image": "busybox", "Cmd": ["sleep", "1"], "Labels": {"selvedge.name": "db", "mine": "stays"},
        "HostConfig": {"Dns": ["192.0.2.53"], "Memory": 1e9},
    });
    let answer = create(&mut worker, "one", body).await;
    assert_eq!(answer.status, 201, "{}", answer.message());
    let sent = lab.engine.created().remove(0);
    let note = note(&lab);
    assert_eq!(sent["Entrypoint"], json!([note["wait"]]));
    assert_eq!((&sent["Cmd"], &sent["Labels"]["mine"]), (&json!(["sleep", "1"]), &json!("stays")));
    assert_eq!(sent["HostConfig"]["Dns"], json!(["169.254.1.1"]));
    assert_eq!(sent["HostConfig"]["Mounts"][0]["Source"], "/var/lib/lab/wait");
    assert_eq!((&note["address"], &note["upstreams"]), (&json!("10.32.0.1"), &json!(["192.0.2.53"])));
    assert_eq!(note["names"], json!(["db"]));
    assert_eq!(sent["Hostname"], "db");
    let id = answer.json()["Id"].as_str().unwrap().to_owned();
    assert_eq!(lab.containers.book.note(&id).unwrap().address.to_string(), "10.32.0.1");
}

#[tokio::test(start_paused = true)]
async fn a_container_of_the_host_s_network_is_passed_as_it_is() {
    let lab = with_image();
    let mut worker = worker(&lab);
    let body = json!({"Image": "busybox", "HostConfig": {"NetworkMode": "host"}});
    assert_eq!(create(&mut worker, "one", body.clone()).await.status, 201);
    assert_eq!(lab.engine.created(), [body]);
}

#[tokio::test(start_paused = true)]
async fn labels_that_an_image_brings_along_do_not_count() {
    let lab = Lab::new();
    let config = json!({"Cmd": ["sh"], "Entrypoint": ["/dev/.selvedge-wait"], "Labels": {LABEL: "{}"}});
    lab.engine.has_image("copy", json!({"Id": "sha256:c", "Config": config}));
    let mut worker = worker(&lab);
    let body = json!({"Image": "copy", "HostConfig": {"NetworkMode": "none"}, "Labels": {"selvedge.network": "none"}});
    assert_eq!(create(&mut worker, "one", body).await.status, 201);
    let sent = lab.engine.created().remove(0);
    assert_eq!(sent["Labels"][LABEL], "");
}

#[tokio::test(start_paused = true)]
async fn an_address_goes_back_when_the_engine_refuses_the_create() {
    let lab = with_image();
    let mut worker = worker(&lab);
    lab.engine.tell("POST /containers/create", Reply::Json(409, json!({"message": "name in use"})));
    let refused = create(&mut worker, "one", json!({"Image": "busybox"})).await;
    assert_eq!((refused.status, refused.message().as_str()), (409, "name in use"));
    assert_eq!(lab.containers.addresses.taken(), 0);
    assert_eq!(create(&mut worker, "two", json!({"Image": "busybox"})).await.status, 201);
    assert_eq!(lab.containers.addresses.taken(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_not_there_is_told_by_the_engine_and_costs_no_address() {
    let lab = Lab::new();
    let mut worker = worker(&lab);
    let answer = create(&mut worker, "one", json!({"Image": "missing"})).await;
    assert_eq!((answer.status, answer.message().as_str()), (404, "No such image: missing"));
    assert_eq!(lab.containers.addresses.taken(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_container_whose_image_became_another_one_is_made_again() {
    let lab = with_image();
    let mut worker = worker(&lab);
    // Between our look and the create the tag was moved, and back.
    let other = json!({"Id": "sha256:other", "Config": {"Cmd": ["sh"]}});
    lab.engine.tell("GET /images/busybox/json", Reply::Json(200, other));
    let answer = create(&mut worker, "one", json!({"Image": "busybox"})).await;
    assert_eq!(answer.status, 201, "{}", answer.message());
    let id = answer.json()["Id"].as_str().unwrap().to_owned();
    assert_eq!((lab.engine.created().len(), lab.containers.book.all().len()), (2, 1));
    assert_eq!(lab.engine.container(&id).unwrap()["Image"], "sha256:b");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_had_is_refused_before_the_engine_hears_of_it() {
    for (labels, mode, status, told) in [
        (json!({"selvedge.ip": "192.0.2.1"}), "", 400, "not"),
        (json!({"selvedge.ip": "10.32.0.9"}), "host", 400, "gets no wire"),
        (json!({"selvedge.vip": "db:80"}), "host", 400, "gets no wire"),
        (json!({"selvedge.vip": "db:80"}), "", 400, "--vip-range"),
        (json!({"selvedge.network": "default"}), "host", 400, "no network of its own"),
        (json!({"selvedge.nmae": "x"}), "", 400, "selvedge.nmae"),
    ] {
        let lab = with_image();
        let mut worker = worker(&lab);
        let body = json!({"Image": "busybox", "Labels": labels, "HostConfig": {"NetworkMode": mode}});
        // A body that the engine finds nothing wrong with but what we put there.
        let poisoned = "json: cannot unmarshal string into StdinOnce";
        lab.engine.tell("POST /containers/create", Reply::Json(400, json!({"message": poisoned})));
        let answer = create(&mut worker, "one", body).await;
        assert_eq!(answer.status, status, "{labels}");
        assert!(answer.message().contains(told), "{labels}: {}", answer.message());
        assert_eq!(lab.containers.addresses.taken(), 0, "{labels}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_host_asks_for_another_block_and_then_says_so() {
    let lab = with_image();
    lab.containers.addresses.set_blocks(&["10.32.0.0/31".parse().unwrap()], None);
    let mut worker = worker(&lab);
    let mut last = None;
    for nth in 0..4 {
        last = Some(create(&mut worker, &format!("n{nth}"), json!({"Image": "busybox"})).await);
    }
    let last = last.unwrap();
    assert_eq!((last.status, last.message().contains("no free address")), (503, true), "{}", last.message());
    assert!(lab.host.said().contains(&"another block".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_fixed_address_is_granted_to_two_and_started_with_one() {
    let lab = with_image();
    let mut worker = worker(&lab);
    let fixed = json!({"Image": "busybox", "Labels": {"selvedge.ip": "10.32.0.77"}});
    assert_eq!(create(&mut worker, "one", fixed.clone()).await.status, 201);
    assert_eq!(worker.client().await.gets("POST", "/containers/one/start", None).await.status, 204);
    assert_eq!(
        create(&mut worker, "two", fixed).await.status,
        201,
        "so that one can be replaced by the other"
    );
    let second = worker.client().await.gets("POST", "/containers/two/start", None).await;
    assert_eq!((second.status, second.message().contains("10.32.0.77")), (409, true), "{}", second.message());
}
