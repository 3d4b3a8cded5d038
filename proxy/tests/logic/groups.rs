//! The tasks of a Nomad group, whose wire is that of their pause container.

use selvedge_containers::label::LABEL;
use selvedge_fake::lab::{Lab, following};
use serde_json::{Value, json};

use crate::lab::{Answer, Worker, with_image, worker};

const ALLOC: &str = "5b1c0f2e-1111-2222-3333-444455556666";

async fn create(worker: &mut Worker, name: &str, body: Value) -> Answer {
    worker.client().await.gets("POST", &format!("/v1.41/containers/create?name={name}"), Some(body)).await
}

async fn start(worker: &mut Worker, id: &str) {
    let answer = worker.client().await.gets("POST", &format!("/v1.41/containers/{id}/start"), None).await;
    assert_eq!(answer.status, 204, "{}", answer.message());
}

fn id(answer: &Answer) -> String {
    assert_eq!(answer.status, 201, "{}", answer.message());
    answer.json()["Id"].as_str().unwrap().to_owned()
}

/// A pause container that runs, as Nomad makes it.
async fn group(worker: &mut Worker) -> String {
    let body = json!({
        "Image": "busybox",
        "Labels": {"com.hashicorp.nomad.alloc_id": ALLOC},
        "HostConfig": {"NetworkMode": "none", "RestartPolicy": {"Name": "unless-stopped"}},
    });
    let pause = id(&create(worker, &format!("nomad_init_{ALLOC}"), body).await);
    start(worker, &pause).await;
    pause
}

fn task(mode: &str, labels: Value) -> Value {
    let mut body = json!({
        "Image": "busybox",
        "Env": [
            format!("NOMAD_ALLOC_ID={ALLOC}"), "NOMAD_TASK_NAME=web", "NOMAD_GROUP_NAME=front", "NOMAD_JOB_NAME=shop",
            "NOMAD_NAMESPACE=default", "NOMAD_PORT_http=8080",
        ],
        "Labels": labels,
        "HostConfig": {"NetworkMode": mode},
    });
    body["Labels"]["com.hashicorp.nomad.alloc_id"] = ALLOC.into();
    body
}

fn names(lab: &Lab) -> Vec<String> {
    lab.host.last().names.iter().map(ToString::to_string).collect()
}

#[tokio::test(start_paused = true)]
async fn a_task_s_names_and_labels_count_for_the_wire_of_its_group() {
    let lab = with_image();
    let mut worker = worker(&lab);
    let pause = group(&mut worker).await;
    let body = task(
        &format!("container:{pause}"),
        json!({"selvedge.name": "www", "selvedge.allow": "name:grafana", "mine": "stays"}),
    );
    let web = id(&create(&mut worker, &format!("web-{ALLOC}"), body.clone()).await);
    assert_eq!(lab.host.last().traits.tenant.as_deref(), Some("shop"), "before it runs");
    assert_eq!(names(&lab).len(), 1);
    start(&mut worker, &web).await;
    assert_eq!(names(&lab)[1..], ["www", "web.front.shop", &format!("web-{ALLOC}")]);
    let traits = lab.host.last().traits;
    assert_eq!(selvedge_registry::allow::text(&traits.allow), "name:grafana");
    assert_eq!((&*traits.ports[0].name, traits.ports[0].number), ("http", 8080));
    // Nothing but the label was added to what the client said.
    let mut sent = lab.engine.created().pop().unwrap();
    sent["Labels"].as_object_mut().unwrap().remove(LABEL);
    assert_eq!(sent, body);
}

#[tokio::test(start_paused = true)]
async fn a_client_sees_nothing_of_it() {
    let lab = with_image();
    let mut worker = worker(&lab);
    let pause = group(&mut worker).await;
    let web = id(&create(&mut worker, "web", task(&format!("container:{pause}"), json!({}))).await);
    for path in [format!("/v1.41/containers/{web}/json"), "/v1.41/containers/json?all=1".to_owned()] {
        let answer = worker.client().await.gets("GET", &path, None).await;
        assert!(!String::from_utf8_lossy(&answer.body).contains("selvedge.internal"), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_that_nobody_of_us_ordered_takes_the_names() {
    let lab = with_image();
    let mut worker = worker(&lab);
    following(&lab).await;
    let pause = group(&mut worker).await;
    let web = id(&create(&mut worker, "web", task(&format!("container:{pause}"), json!({}))).await);
    start(&mut worker, &web).await;
    lab.engine.change(&web, |web| web["State"]["Running"] = false.into());
    let label = lab.engine.created().pop().unwrap()["Labels"][LABEL].clone();
    lab.engine.happens("die", &web, &json!({LABEL: label}));
    lab.until("no names", |host| host.last().names.len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_had_is_refused_and_another_s_network_is_nothing_of_ours() {
    let lab = with_image();
    let mut worker = worker(&lab);
    let pause = group(&mut worker).await;
    let mode = format!("container:{pause}");
    let fixed = create(&mut worker, "web", task(&mode, json!({"selvedge.ip": "10.32.0.9"}))).await;
    assert_eq!(fixed.status, 400, "{}", fixed.message());
    let mut stranger = task(&mode, json!({}));
    stranger["Labels"]["com.hashicorp.nomad.alloc_id"] = "another".into();
    id(&create(&mut worker, "stranger", stranger.clone()).await);
    assert_eq!(lab.engine.created().pop().unwrap(), stranger);
}

#[tokio::test(start_paused = true)]
async fn a_task_with_a_network_of_its_own_is_named_like_any_other() {
    let lab = with_image();
    let mut worker = worker(&lab);
    let web = id(&create(&mut worker, "web", task("default", json!({}))).await);
    start(&mut worker, &web).await;
    assert_eq!(names(&lab), ["web.front.shop", "web"]);
    assert_eq!(lab.host.last().traits.tenant.as_deref(), Some("shop"));
}
