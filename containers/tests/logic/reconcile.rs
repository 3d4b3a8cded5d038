//! The one path to wire, names and the sign to run.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use selvedge_containers::entry::Phase;
use selvedge_containers::reconcile::{self, Outcome, ReconcileError};
use tokio::time::Instant;

use selvedge_fake::lab::{Lab, container};

#[tokio::test(start_paused = true)]
async fn rules_come_before_names_and_names_before_the_program() {
    let lab = Lab::new();
    lab.knows(container("a", 2, true)).await;
    let outcome = reconcile::container(&lab.containers, "a").await.unwrap();
    assert_eq!(outcome, Outcome::Wired);
    assert_eq!(lab.host.said(), ["connect a", "admit a", "publish a", "release a"]);
    let names: Vec<String> = lab.host.last().names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn one_that_has_ended_loses_its_names_and_gets_no_wire() {
    let lab = Lab::new();
    lab.knows(container("a", 2, false)).await;
    assert_eq!(reconcile::container(&lab.containers, "a").await.unwrap(), Outcome::NotRunning);
    assert_eq!(lab.host.said(), ["withdraw a"]);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_gone_is_forgotten() {
    let lab = Lab::new();
    lab.knows(container("a", 2, true)).await;
    lab.engine.removes("a");
    assert_eq!(reconcile::container(&lab.containers, "a").await.unwrap(), Outcome::NotRunning);
    assert!(lab.containers.book.entry("a").is_none());
}

#[tokio::test(start_paused = true)]
async fn the_second_that_claims_an_address_gets_no_wire() {
    let lab = Lab::new();
    for id in ["a", "copy"] {
        lab.knows(container(id, 2, true)).await;
    }
    reconcile::container(&lab.containers, "a").await.unwrap();
    let refused = reconcile::container(&lab.containers, "copy").await;
    assert!(matches!(refused, Err(ReconcileError::Taken { .. })), "{refused:?}");
    assert!(lab.host.said().iter().all(|said| !said.ends_with("copy")), "{:?}", lab.host.said());
}

#[tokio::test(start_paused = true)]
async fn one_that_the_engine_started_is_tried_three_times() {
    let lab = Lab::new();
    lab.knows(container("a", 2, true)).await;
    lab.host.refuses.store(true, Relaxed);
    let began = Instant::now();
    reconcile::unasked(Arc::clone(&lab.containers), "a".to_owned()).await;
    assert_eq!(lab.host.said(), ["connect a"; 3]);
    assert!(began.elapsed() >= Duration::from_millis(600), "{:?}", began.elapsed());
    // It may not be wired, and is not taken to be; the process of this test, which does not wait, was left alone.
    assert_eq!(lab.containers.book.entry("a").unwrap().phase, Phase::Starting);
}
