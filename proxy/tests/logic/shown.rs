//! What a client is shown of a container: what it would see without us, with the wire's address.

use selvedge_containers::label::LABEL;
use selvedge_fake::engine::Reply;
use selvedge_fake::lab::{Lab, RUNTIME, WAIT, container};
use serde_json::{Value, json};

use crate::lab::{worker, worker_of};

/// An inspect as the engine has it of one that was made through us.
fn made(running: bool) -> Value {
    let note = json!({
        "address": "10.32.0.2", "runtime": RUNTIME, "wait": WAIT,
        "original": {"entrypoint": ["/entry"], "cmd": ["run"], "dns": {"was": null}, "dns_search": {"was": null}},
    });
    let mut container = container("a", 2, running);
    container["Config"] = json!({
        "Entrypoint": [WAIT, "/entry"], "Cmd": ["run"], "Labels": {LABEL: note.to_string(), "mine": "1"},
    });
    container["Path"] = WAIT.into();
    container["Args"] = json!(["/entry", "run"]);
    container["HostConfig"] = json!({
        "NetworkMode": "default", "Dns": ["169.254.1.1"],
        "Mounts": [{"Type": "bind", "Source": "/var/lib/lab/wait", "Target": WAIT}],
    });
    container["NetworkSettings"] = json!({"IPAddress": "172.17.0.2", "Networks": {"bridge": {"IPAddress": "172.17.0.2", "MacAddress": "02:42"}}});
    container
}

async fn with_one(running: bool) -> Lab {
    let lab = Lab::new();
    lab.knows(made(running)).await;
    lab
}

#[tokio::test(start_paused = true)]
async fn an_inspect_shows_what_the_user_gave_and_the_wire_s_address() {
    let lab = with_one(true).await;
    let mut worker = worker(&lab);
    let seen = worker.client().await.gets("GET", "/v1.41/containers/a/json", None).await.json();
    assert_eq!(seen["Config"], json!({"Entrypoint": ["/entry"], "Cmd": ["run"], "Labels": {"mine": "1"}}));
    assert_eq!((&seen["Path"], &seen["Args"]), (&json!("/entry"), &json!(["run"])));
    assert_eq!(seen["Mounts"], json!([]));
    assert_eq!((seen["HostConfig"].get("Mounts"), &seen["HostConfig"]["Dns"]), (None, &Value::Null));
    let networks = &seen["NetworkSettings"];
    assert_eq!(networks["IPAddress"], "10.32.0.2");
    assert_eq!(networks["Networks"]["bridge"]["IPAddress"], "10.32.0.2");
    assert_eq!(networks["Networks"]["bridge"]["MacAddress"], "02:42", "the engine's own");
}

#[tokio::test(start_paused = true)]
async fn an_inspect_waits_for_a_start_under_way() {
    let lab = with_one(true).await;
    let mut worker = worker(&lab);
    let doubt = lab.containers.book.doubt("a");
    let mut client = worker.client().await;
    client.asks("GET", "/containers/a/json", None).await;
    let waited = tokio::time::timeout(std::time::Duration::from_secs(9), client.answer(false)).await;
    assert!(waited.is_err(), "it was answered before the outcome was known");
    drop(doubt);
    assert_eq!(client.answer(false).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_list_shows_the_same_and_nothing_of_a_start_under_way() {
    let lab = with_one(true).await;
    let listed = json!([{
        "Id": "a", "Names": ["/a"], "State": "running", "Command": format!("{WAIT} /entry run"),
        "Labels": made(true)["Config"]["Labels"], "Mounts": [{"Destination": WAIT}],
        "HostConfig": {"NetworkMode": "default"},
        "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "172.17.0.2"}}},
    }]);
    let mut worker = worker(&lab);
    let mut client = worker.client().await;
    let list = || lab.engine.tell("GET /containers/json", Reply::Json(200, listed.clone()));
    list();
    let seen = client.gets("GET", "/containers/json", None).await.json();
    assert_eq!((&seen[0]["Command"], &seen[0]["Labels"]), (&json!("/entry run"), &json!({"mine": "1"})));
    assert_eq!(seen[0]["NetworkSettings"]["Networks"]["bridge"]["IPAddress"], "10.32.0.2");
    let _doubt = lab.containers.book.doubt("a");
    list();
    assert_eq!(client.gets("GET", "/containers/json", None).await.json(), json!([]));
    list();
    let all = client.gets("GET", "/containers/json?all=1", None).await.json();
    assert_eq!((&all[0]["State"], &all[0]["Status"]), (&json!("created"), &json!("Created")));
}

#[tokio::test(start_paused = true)]
async fn changes_and_processes_are_shown_without_ours() {
    let lab = with_one(true).await;
    let changes = json!([{"Path": WAIT, "Kind": 1}, {"Path": "/dev", "Kind": 0}, {"Path": "/x", "Kind": 1}]);
    lab.engine.tell("GET /containers/a/changes", Reply::Json(200, changes));
    let top = json!({"Titles": ["CMD"], "Processes": [[format!("/sbin/docker-init -- {WAIT} /entry run")]]});
    lab.engine.tell("GET /containers/a/top", Reply::Json(200, top));
    let mut worker = worker(&lab);
    let mut client = worker.client().await;
    let changes = client.gets("GET", "/containers/a/changes", None).await.json();
    assert_eq!(changes, json!([{"Path": "/x", "Kind": 1}]));
    let top = client.gets("GET", "/containers/a/top", None).await.json();
    assert_eq!(top["Processes"][0][0], "/sbin/docker-init -- /entry run");
}

#[tokio::test(start_paused = true)]
async fn an_image_made_of_a_container_has_the_user_s_command() {
    let lab = with_one(true).await;
    let mut worker = worker(&lab);
    let answer = worker.client().await.gets("POST", "/commit?container=a", Some(json!({}))).await;
    assert_eq!(answer.status, 201);
    assert_eq!(lab.engine.asked(), ["GET /containers/a/json", "GET /containers/a/json", "POST /commit"]);
}

#[tokio::test(start_paused = true)]
async fn mesos_finds_what_engines_of_today_do_not_send() {
    let lab = Lab::new();
    lab.engine.has_image("busybox", json!({"Id": "sha256:b", "Config": {"Cmd": ["sh"]}}));
    let mut worker = worker_of(std::sync::Arc::clone(&lab.containers), true);
    let mut client = worker.client().await;
    let image = client.gets("GET", "/images/busybox/json", None).await.json();
    assert_eq!(image["ContainerConfig"], json!({"Cmd": ["sh"], "Entrypoint": null, "Env": null}));
    let ping = client.gets("GET", "/_ping", None).await;
    assert!(ping.head.contains("\r\nApi-Version: 1.44\r\n") && !ping.head.contains("1.51"), "{}", ping.head);
}
