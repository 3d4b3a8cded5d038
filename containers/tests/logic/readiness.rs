//! Who stands behind a virtual address, and who does not any more.

use std::net::TcpListener;
use std::time::Duration;

use selvedge_containers::{readiness, reconcile};

use tokio::time::Instant;

use selvedge_fake::host::ELSEWHERE;
use selvedge_fake::lab::{Lab, behind, container};

/// A container that runs, whose program (this test) listens on the port of its virtual address once the socket is there.
async fn running(port: u16) -> Lab {
    let lab = Lab::new();
    lab.knows(behind("db", 2, true, &[format!("db:{port}")])).await;
    reconcile::container(&lab.containers, "db").await.unwrap();
    lab
}

async fn serving() -> (Lab, TcpListener) {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let lab = running(listener.local_addr().unwrap().port()).await;
    lab.until("it serves", |host| !host.last().traits.vips.is_empty()).await;
    (lab, listener)
}

#[tokio::test(start_paused = true)]
async fn one_whose_program_does_not_listen_yet_is_behind_none() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let lab = running(port).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(lab.host.last().traits.vips.is_empty());
}

#[tokio::test(start_paused = true)]
async fn one_that_is_about_to_be_stopped_is_behind_none() {
    let (lab, _listener) = serving().await;
    let before = lab.host.said().len();
    let began = Instant::now();
    readiness::drain(&lab.containers, "db", Duration::from_secs(60), true).await;
    let record = lab.host.last();
    assert!(record.traits.vips.is_empty() && record.traits.unhealthy);
    let said = &lab.host.said()[before..];
    assert_eq!(said, ["publish db", "elsewhere db", "told db"], "published, and then all have said so");
    // The time for connections under way counts from there.
    assert_eq!(began.elapsed(), ELSEWHERE + lab.containers.settings.drain);
}

#[tokio::test(start_paused = true)]
async fn one_behind_no_virtual_address_is_stopped_at_once() {
    let lab = Lab::new();
    lab.knows(container("web", 2, true)).await;
    reconcile::container(&lab.containers, "web").await.unwrap();
    let (before, began) = (lab.host.said(), Instant::now());
    readiness::drain(&lab.containers, "web", Duration::from_secs(60), true).await;
    assert_eq!((lab.host.said(), began.elapsed()), (before, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn one_that_runs_on_after_all_is_behind_it_again() {
    let (lab, _listener) = serving().await;
    readiness::drain(&lab.containers, "db", Duration::from_secs(60), false).await;
    tokio::time::advance(Duration::from_secs(59)).await;
    readiness::revive(&lab.containers);
    assert!(lab.host.last().traits.vips.is_empty());
    tokio::time::advance(Duration::from_secs(2)).await;
    readiness::revive(&lab.containers);
    assert_eq!(lab.host.last().traits.vips.len(), 1);
}
