//! What happened while no events came is found out when they come again.

use selvedge_containers::entry::Phase;
use selvedge_netsetup::Wire;

use selvedge_fake::lab::{Lab, container, following};

fn stray() -> Wire {
    Wire {
        name: "sv0".to_owned(),
        container_prefix: "0123456789ab".to_owned(),
        ifindex: 7,
        address: None,
        namespace: None,
        complete: false,
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_that_started_in_a_gap_is_wired() {
    let lab = Lab::new();
    following(&lab).await;
    lab.engine.has(container("a", 2, true));
    lab.engine.cut_events();
    lab.until_said("release a").await;
    assert_eq!(lab.containers.book.entry("a").unwrap().phase, Phase::Wired);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_was_removed_in_a_gap_loses_its_names() {
    let lab = Lab::new();
    lab.engine.has(container("a", 2, true));
    following(&lab).await;
    lab.until_said("publish a").await;
    lab.engine.removes("a");
    lab.engine.cut_events();
    lab.until_said("withdraw a").await;
    assert!(lab.containers.book.entry("a").is_none());
}

#[tokio::test(start_paused = true)]
async fn nothing_counts_as_old_before_all_has_been_seen() {
    let lab = Lab::new();
    *lab.host.wires.lock().unwrap() = vec![stray()];
    lab.engine.has(container("a", 2, true));
    following(&lab).await;
    let said = lab.host.said();
    let at = |what: &str| said.iter().position(|said| said == what).unwrap_or_else(|| panic!("{said:?}"));
    assert!(at("seen all") < at("disconnect 0123456789ab"), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn a_label_without_the_mount_of_wait_makes_no_container_ours() {
    let lab = Lab::new();
    let mut built = container("a", 2, true);
    built["Mounts"] = serde_json::json!([{"Type": "volume", "Destination": "/data"}]);
    lab.engine.has(built);
    following(&lab).await;
    assert!(lab.containers.book.entry("a").is_none());
    assert_eq!(lab.host.said(), ["seen all"]);
}

/// A start of it is kept over a death of this worker at once: no inspect, which a hung engine would not answer, comes
/// before.
#[tokio::test(start_paused = true)]
async fn that_one_was_never_started_is_known_from_the_list() {
    let lab = Lab::new();
    let mut made = container("a", 2, false);
    made["State"]["Status"] = "created".into();
    lab.engine.has(made);
    lab.engine.has(container("b", 3, false));
    following(&lab).await;
    let started = |id: &str| lab.containers.book.entry(id).unwrap().started;
    assert_eq!((started("a").as_deref(), started("b")), (Some("0001-01-01T00:00:00Z"), None));
}
