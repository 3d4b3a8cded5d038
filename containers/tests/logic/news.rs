//! What the engine says in its stream of events, and what is done about it.

use std::time::Duration;

use selvedge_containers::entry::Phase;
use selvedge_containers::publish;
use selvedge_fake::engine::Reply;
use selvedge_fake::host::Error;
use selvedge_fake::lab::{Lab, behind, container, following};
use serde_json::json;

/// One that is wired, and followed.
async fn with_one() -> Lab {
    let lab = Lab::new();
    lab.engine.has(container("a", 2, true));
    following(&lab).await;
    lab.until_said("release a").await;
    lab
}

fn none() -> serde_json::Value {
    json!({})
}

#[tokio::test(start_paused = true)]
async fn one_that_the_engine_starts_again_is_wired_again() {
    let lab = with_one().await;
    lab.engine.change("a", |container| container["State"]["Running"] = false.into());
    lab.engine.happens("die", "a", &json!({"exitCode": "3"}));
    lab.until_said("withdraw a").await;
    assert_eq!(lab.containers.life.exit_of("a"), Some(3));
    assert_eq!(lab.containers.book.entry("a").unwrap().phase, Phase::Stopped);
    lab.engine.change("a", |container| container["State"]["Running"] = true.into());
    lab.engine.happens("start", "a", &none());
    lab.until("a second go", |host| host.said().iter().filter(|said| *said == "release a").count() == 2)
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_start_that_a_client_waits_for_is_left_to_it() {
    let lab = Lab::new();
    lab.knows(container("a", 2, false)).await;
    following(&lab).await;
    let _expected = lab.containers.book.expect_start("a");
    lab.engine.change("a", |container| container["State"]["Running"] = true.into());
    lab.engine.happens("start", "a", &none());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!lab.host.said().contains(&"connect a".to_owned()), "{:?}", lab.host.said());
}

#[tokio::test(start_paused = true)]
async fn old_news_of_an_end_does_not_take_the_names_of_one_that_runs() {
    let lab = with_one().await;
    let before = lab.host.said().len();
    lab.engine.happens("die", "a", &json!({"exitCode": "0"}));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!lab.host.said()[before..].contains(&"withdraw a".to_owned()), "{:?}", lab.host.said());
}

#[tokio::test(start_paused = true)]
async fn one_that_is_paused_or_unhealthy_is_asked_last() {
    let lab = with_one().await;
    for (action, unhealthy) in [
        ("pause", true),
        ("unpause", false),
        ("health_status: unhealthy", true),
        ("health_status: healthy", false),
    ] {
        lab.engine.happens(action, "a", &none());
        lab.until(action, |host| host.last().traits.unhealthy == unhealthy).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_is_renamed_is_answered_under_its_new_name() {
    let lab = with_one().await;
    lab.engine.happens("rename", "a", &json!({"name": "/b"}));
    lab.until("the name b", |host| host.last().names.iter().any(|name| name.to_string() == "b")).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_is_removed_is_forgotten_and_its_address_free() {
    let lab = with_one().await;
    assert_eq!(lab.containers.addresses.taken(), 1);
    lab.engine.removes("a");
    lab.engine.happens("destroy", "a", &none());
    lab.until_said("withdraw a").await;
    assert!(lab.containers.book.entry("a").is_none());
    assert_eq!(lab.containers.addresses.taken(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_that_another_worker_made_is_learned_from_its_first_event() {
    let lab = Lab::new();
    following(&lab).await;
    let made = container("a", 2, true);
    let label = made["Config"]["Labels"].clone();
    lab.engine.has(made);
    lab.engine.happens("start", "a", &label);
    lab.until_said("release a").await;
    let mut foreign = container("b", 3, true);
    foreign["Mounts"] = json!([]);
    lab.engine.has(foreign);
    lab.engine.happens("start", "b", &label);
    lab.engine.happens("start", "gone", &label);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(lab.containers.book.entry("b").is_none() && lab.containers.book.entry("gone").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_signal_that_ends_a_program_takes_it_out_of_its_virtual_addresses() {
    let lab = Lab::new();
    lab.engine.has(behind("a", 2, true, &["a:1".to_owned()]));
    following(&lab).await;
    lab.until_said("release a").await;
    lab.engine.happens("kill", "a", &json!({"signal": "1"}));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(lab.containers.book.entry("a").unwrap().draining.is_none(), "SIGHUP means something else");
    lab.engine.happens("kill", "a", &json!({"signal": "15"}));
    lab.until("it drains", |host| host.last().traits.unhealthy).await;
    assert_eq!(lab.containers.book.draining(), ["10.32.0.2".parse::<std::net::Ipv4Addr>().unwrap()]);
    tokio::time::sleep(Duration::from_secs(70)).await;
    assert!(lab.containers.book.draining().is_empty(), "it runs on");
}

#[tokio::test(start_paused = true)]
async fn what_others_see_is_published_and_what_they_do_not_is_not() {
    let lab = Lab::new();
    lab.engine.has(container("a", 2, true));
    lab.engine.has(container("b", 3, false));
    following(&lab).await;
    lab.until_said("release a").await;
    let before = lab.host.said();
    let update = |id: &str, paused| publish::update(&lab.containers, id, |entry| entry.paused = paused);
    assert_eq!((update("a", false), update("b", true), update("c", true)), (Some(()), Some(()), None));
    assert_eq!(lab.host.said(), before, "nothing is new, it does not run, it is none of ours");
    update("a", true);
    assert_eq!(lab.host.said()[before.len()..], ["publish a"]);
    assert!(lab.host.last().traits.unhealthy);
}

#[tokio::test(start_paused = true)]
async fn an_address_on_another_network_of_the_engine_s_is_judged_where_tenants_are_kept_apart() {
    let lab = Lab::with(|settings| settings.by_tenant = true);
    lab.engine.has(container("a", 2, true));
    following(&lab).await;
    lab.until_said("release a").await;
    lab.engine.change("a", |container| {
        container["NetworkSettings"] = json!({"Networks": {"mine": {"IPAddress": "172.20.0.7"}}});
    });
    let before = lab.host.said().len();
    lab.engine.says(json!({"Type": "network", "Action": "connect", "Actor": {"ID": "n", "Attributes": {"container": "a"}}}));
    lab.until("it is noted again", |host| host.said()[before..].contains(&"publish a".to_owned())).await;
    let aliases = lab.containers.book.entry("a").unwrap().aliases;
    assert_eq!(aliases, ["172.20.0.7".parse::<std::net::IpAddr>().unwrap()]);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_event_of_ours_changes_nothing() {
    let lab = with_one().await;
    let before = lab.host.said();
    for event in [
        json!("x"),
        json!({"Type": "image", "Action": "pull"}),
        json!({"Type": "network", "Action": "create"}),
    ] {
        lab.engine.says(event);
    }
    lab.engine.happens("exec_start", "a", &none());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(lab.host.said(), before);
    assert!(lab.containers.is_followed());
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_cannot_be_followed_is_tried_until_it_can() {
    let lab = Lab::new();
    for _ in 0..3 {
        lab.host.fail("prepare", Error::Stopped);
    }
    lab.engine.tell("GET /containers/json", Reply::Gone);
    lab.engine.has(container("a", 2, true));
    following(&lab).await;
    lab.until_said("release a").await;
    assert_eq!(lab.engine.times("GET /containers/json"), 2);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_ends_is_not_followed_until_it_is_back() {
    let lab = with_one().await;
    lab.engine.goes();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!lab.containers.is_followed());
    lab.engine.comes();
    lab.until("it is followed", |_| lab.containers.is_followed()).await;
}
