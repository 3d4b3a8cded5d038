//! Wires that were cut, and those that are left over.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use selvedge_containers::entry::Phase;
use selvedge_containers::reconcile::{self, ReconcileError};
use selvedge_containers::upkeep;
use selvedge_fake::host::{Error, Wire};
use selvedge_fake::lab::{Lab, behind, container, following};
use serde_json::json;

fn wire(container: &str, octet: Option<u8>) -> Wire {
    Wire {
        name: format!("sv{container}"),
        container_prefix: container.to_owned(),
        ifindex: 7,
        address: octet.map(|octet| Ipv4Addr::new(10, 32, 0, octet)),
        namespace: None,
        complete: true,
    }
}

fn has_wires(lab: &Lab, wires: &[Wire]) {
    *lab.host.wires.lock().unwrap() = wires.to_vec();
}

async fn settled() {
    tokio::time::sleep(Duration::from_secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn a_wire_that_was_finished_is_taken_as_it_is() {
    let lab = Lab::new();
    lab.engine.has(container("a", 2, true));
    has_wires(&lab, &[wire("a", Some(2))]);
    following(&lab).await;
    assert_eq!(lab.containers.book.entry("a").unwrap().phase, Phase::Wired);
    assert!(lab.host.said().contains(&"publish a".to_owned()), "{:?}", lab.host.said());
}

#[tokio::test(start_paused = true)]
async fn one_whose_wire_is_cut_gets_another() {
    let lab = Lab::new();
    lab.engine.has(container("a", 2, true));
    has_wires(&lab, &[wire("a", Some(2))]);
    following(&lab).await;
    let before = lab.host.said().len();
    has_wires(&lab, &[]);
    settled().await;
    assert!(lab.host.said()[before..].contains(&"connect a".to_owned()), "{:?}", lab.host.said());
}

#[tokio::test(start_paused = true)]
async fn one_whose_route_was_flushed_gets_it_again() {
    let lab = Lab::new();
    lab.engine.has(container("a", 2, true));
    following(&lab).await;
    lab.until_said("release a").await;
    has_wires(&lab, &[wire("a", None)]);
    let before = lab.host.said().len();
    settled().await;
    assert!(lab.host.said()[before..].contains(&"release a".to_owned()), "{:?}", lab.host.said());
}

#[tokio::test(start_paused = true)]
async fn a_wire_of_one_that_stopped_goes_and_one_of_which_the_engine_says_otherwise_stays() {
    let lab = Lab::new();
    for (id, octet) in [("stopped", 2), ("runs", 3)] {
        lab.knows(container(id, octet, id == "runs")).await;
    }
    let wires = [wire("stopped", Some(2)), wire("runs", Some(3))];
    has_wires(&lab, &wires);
    upkeep::sweep_with(&lab.containers, wires.to_vec()).await.unwrap();
    assert_eq!(lab.host.said(), ["disconnect stopped"]);
    lab.until_said("release runs").await;
}

#[tokio::test(start_paused = true)]
async fn an_address_that_a_dead_container_s_wire_has_is_freed_and_one_of_a_live_one_is_not() {
    let lab = Lab::new();
    lab.knows(container("new", 2, true)).await;
    let routed = || Error::Routed { container: "new".to_owned(), interface: "svold".to_owned() };
    has_wires(&lab, &[wire("old", Some(2))]);
    lab.host.fail("connect", routed());
    reconcile::container(&lab.containers, "new").await.unwrap();
    assert!(lab.host.said().contains(&"disconnect old".to_owned()), "{:?}", lab.host.said());
    let mut old = container("old", 2, true);
    old["Config"]["Labels"] = json!({});
    lab.engine.has(old);
    has_wires(&lab, &[wire("old", Some(2))]);
    lab.host.fail("connect", routed());
    let refused = reconcile::container(&lab.containers, "new").await;
    assert!(matches!(refused, Err(ReconcileError::Taken { .. })), "{refused:?}");
    has_wires(&lab, &[]);
    lab.host.fail("connect", routed());
    let refused = reconcile::container(&lab.containers, "new").await.unwrap_err().to_string();
    assert!(refused.contains("svold"), "no wire of ours: {refused}");
}

#[tokio::test(start_paused = true)]
async fn an_address_outside_of_our_blocks_is_asked_of_the_registry_first() {
    let lab = Lab::new();
    let mut far = container("far", 2, true);
    let note = far["Config"]["Labels"][selvedge_containers::label::LABEL]
        .as_str()
        .unwrap()
        .replace("10.32.0.2", "10.33.7.7");
    far["Config"]["Labels"][selvedge_containers::label::LABEL] = note.into();
    lab.knows(far).await;
    reconcile::container(&lab.containers, "far").await.unwrap();
    assert_eq!(lab.host.said()[..2], ["claim far", "connect far"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_answered_of_one_whose_rules_are_refused_or_that_ends_before_its_go() {
    let lab = Lab::new();
    lab.knows(container("a", 2, true)).await;
    lab.host.fail("admit", Error::Stopped);
    assert!(reconcile::container(&lab.containers, "a").await.is_err());
    assert!(!lab.host.said().contains(&"publish a".to_owned()), "{:?}", lab.host.said());
    lab.host.fail("release", Error::Gone { container: "a".to_owned(), pid: 1 });
    reconcile::container(&lab.containers, "a").await.unwrap();
    assert_eq!(lab.host.said()[lab.host.said().len() - 1..], ["withdraw a"]);
}

#[tokio::test(start_paused = true)]
async fn who_stood_aside_when_the_last_worker_died_still_does() {
    let lab = Lab::new();
    lab.engine.has(behind("a", 2, true, &["a:1".to_owned()]));
    lab.host.aside.lock().unwrap().push(Ipv4Addr::new(10, 32, 0, 2));
    following(&lab).await;
    lab.until_said("release a").await;
    assert!(lab.containers.book.entry("a").unwrap().draining.is_some());
    assert!(lab.host.last().traits.unhealthy);
}

#[tokio::test(start_paused = true)]
async fn an_interface_s_address_is_given_to_no_container() {
    let lab = Lab::new();
    lab.host.foreign.lock().unwrap().push((Ipv4Addr::new(10, 32, 0, 9), "eth9".to_owned()));
    following(&lab).await;
    lab.knows(container("a", 9, true)).await;
    let refused = reconcile::container(&lab.containers, "a").await.unwrap_err().to_string();
    assert!(refused.contains("eth9"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn firewalls_that_cannot_be_opened_are_told_of_until_they_can() {
    let lab = Lab::new();
    lab.host.fail("mind_firewalls", Error::Stopped);
    let keeper = tokio::spawn(upkeep::keep_firewalls_open(Arc::clone(&lab.containers)));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(lab.containers.firewalls.reason().is_some());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(lab.containers.firewalls.reason(), None);
    keeper.abort();
}

#[tokio::test(start_paused = true)]
async fn a_name_goes_into_its_own_hosts_file() {
    let lab = Lab::new();
    let hosts = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(hosts.path(), "127.0.0.1\tlocalhost\n172.17.0.2\tabc\n").unwrap();
    let mut one = container("a", 2, true);
    one["HostsPath"] = hosts.path().to_str().unwrap().into();
    one["Config"]["Hostname"] = "abc".into();
    one["NetworkSettings"] = json!({"Networks": {"bridge": {"IPAddress": "172.17.0.2"}}});
    lab.knows(one).await;
    reconcile::container(&lab.containers, "a").await.unwrap();
    let text = std::fs::read_to_string(hosts.path()).unwrap();
    assert!(text.contains("10.32.0.2\t") && text.contains("a.lab.internal"), "{text}");
    lab.containers.book.rename("a", "renamed");
    reconcile::rewrite_hosts(Arc::clone(&lab.containers), "a".to_owned()).await;
    let text = std::fs::read_to_string(hosts.path()).unwrap();
    assert!(text.contains("renamed.lab.internal") && !text.contains("a.lab.internal"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_be_connected_is_stopped_without_a_trace() {
    let lab = Lab::new();
    lab.knows(container("a", 2, true)).await;
    reconcile::abandon(&lab.containers, "a").await;
    assert_eq!(lab.engine.times("POST /containers/a/stop"), 1);
    assert_eq!(lab.containers.book.entry("a").unwrap().phase, Phase::Stopped);
}
