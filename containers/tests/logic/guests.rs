//! Containers that have joined the network of one of ours: the tasks of a Nomad group.

use selvedge_containers::joined::Joined;
use selvedge_containers::label::LABEL;
use selvedge_fake::host::Error;
use selvedge_fake::lab::{Lab, container, following};
use serde_json::{Value, json};

fn joined(name: &str) -> Joined {
    Joined {
        joins: "pause".to_owned(),
        names: vec![format!("{name}.front.shop")],
        tenant: "shop".to_owned(),
        allow: format!("name:{name}"),
        ports: vec!["http:8080/tcp".to_owned()],
        ..Joined::default()
    }
}

fn task(joined: &Joined, id: &str, running: bool) -> Value {
    json!({
        "Id": id,
        "Name": format!("/{id}-5b1c"),
        "State": {"Running": running, "Pid": if running { std::process::id() } else { 0 }, "StartedAt": "2026-11-30T00:00:00Z"},
        "Config": {"Labels": {LABEL: joined.to_text()}},
        "HostConfig": {"NetworkMode": format!("container:{}", joined.joins)},
        "Mounts": [],
    })
}

fn happens(lab: &Lab, action: &str, id: &str) {
    let label = lab.engine.container(id).map_or_else(|| joined(id).to_text(), |task| text(&task));
    lab.engine.happens(action, id, &json!({LABEL: label}));
}

fn text(task: &Value) -> String {
    task["Config"]["Labels"][LABEL].as_str().unwrap().to_owned()
}

fn names(lab: &Lab) -> Vec<String> {
    lab.host.last().names.iter().map(ToString::to_string).collect()
}

/// One that is wired, with these tasks.
async fn with(tasks: &[Value]) -> Lab {
    let lab = Lab::new();
    lab.engine.has(container("pause", 2, true));
    tasks.iter().for_each(|task| lab.engine.has(task.clone()));
    following(&lab).await;
    lab.until_said("release pause").await;
    lab
}

#[tokio::test(start_paused = true)]
async fn a_task_s_names_come_when_it_runs_and_go_when_it_ends() {
    let lab = with(&[]).await;
    lab.engine.has(task(&joined("web"), "web", false));
    happens(&lab, "create", "web");
    lab.until("its tenant", |host| host.last().traits.tenant.as_deref() == Some("shop")).await;
    assert_eq!(names(&lab), ["pause"]);
    lab.engine.has(task(&joined("web"), "web", true));
    happens(&lab, "start", "web");
    lab.until("its names", |host| host.last().names.len() == 3).await;
    assert_eq!(names(&lab), ["pause", "web.front.shop", "web-5b1c"]);
    assert_eq!(lab.host.last().address.to_string(), "10.32.0.2");
    lab.engine.has(task(&joined("web"), "web", false));
    happens(&lab, "die", "web");
    lab.until("no names", |host| host.last().names.len() == 1).await;
    lab.engine.removes("web");
    happens(&lab, "destroy", "web");
    lab.until("no tenant", |host| host.last().traits.tenant.is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn rules_come_before_names() {
    let lab = with(&[]).await;
    lab.engine.has(task(&joined("web"), "web", true));
    let before = lab.host.said().len();
    happens(&lab, "start", "web");
    lab.until("its names", |host| host.last().names.len() == 3).await;
    assert_eq!(lab.host.said()[before..], ["admit pause", "publish pause"]);
    lab.host.fail("admit", Error::Stopped);
    lab.engine.has(task(&joined("side"), "side", true));
    happens(&lab, "start", "side");
    lab.until("it is refused", |host| {
        host.said()[before..].iter().filter(|said| *said == "admit pause").count() == 2
    })
    .await;
    assert_eq!(names(&lab).len(), 3, "no rules, no names");
}

#[tokio::test(start_paused = true)]
async fn what_happened_in_a_gap_is_found_out() {
    let lab = with(&[]).await;
    lab.engine.has(task(&joined("web"), "web", true));
    lab.engine.cut_events();
    lab.until("its names", |host| host.last().names.len() == 3).await;
    lab.engine.removes("web");
    lab.engine.cut_events();
    lab.until("no names", |host| host.last().names.len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_later_worker_finds_them_by_what_is_written_on_them() {
    let lab = with(&[task(&joined("web"), "web", true), task(&joined("side"), "side", false)]).await;
    lab.until("its names", |host| host.last().names.len() == 3).await;
    let traits = lab.host.last().traits;
    assert_eq!(traits.tenant.as_deref(), Some("shop"));
    assert_eq!(traits.ports.len(), 1, "of those that run");
    assert_eq!(selvedge_registry::allow::text(&traits.allow), "name:side,name:web");
}

#[tokio::test(start_paused = true)]
async fn one_that_is_not_well_is_asked_last() {
    let lab = with(&[task(&joined("web"), "web", true)]).await;
    lab.engine.change("web", |web| web["State"]["Health"] = json!({"Status": "unhealthy"}));
    happens(&lab, "health_status: unhealthy", "web");
    lab.until("unhealthy", |host| host.last().traits.unhealthy).await;
}

#[tokio::test(start_paused = true)]
async fn the_first_task_says_whose_the_group_is() {
    let other = Joined { tenant: "bank".to_owned(), ..joined("web") };
    let lab = with(&[task(&joined("a"), "a", true), task(&other, "b", true)]).await;
    lab.until("its names", |host| host.last().names.len() == 5).await;
    assert_eq!(lab.host.last().traits.tenant.as_deref(), Some("shop"));
}

#[tokio::test(start_paused = true)]
async fn a_label_that_a_commit_took_along_counts_nowhere() {
    let mut copy = task(&joined("web"), "web", true);
    copy["HostConfig"]["NetworkMode"] = "bridge".into();
    let lab = with(&[copy]).await;
    happens(&lab, "start", "web");
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(names(&lab), ["pause"]);
}
