//! What is known of containers: whose starts are waited for, and whose outcome is not known.

use std::time::Duration;

use selvedge_fake::lab::{Lab, container};

/// A start that an earlier worker began is gone on with before the engine has been heard: its container becomes known in the
/// middle of it.
#[tokio::test(start_paused = true)]
async fn a_start_of_a_container_that_becomes_known_meanwhile_is_over_when_it_is_over() {
    let lab = Lab::new();
    let book = &lab.containers.book;
    let (expected, doubt) = (book.expect_start("a"), book.doubt("a"));
    lab.knows(container("a", 2, true)).await;
    assert!(book.is_expected("a") && book.is_in_doubt("a"), "its events are left to who waits for it");
    drop((expected, doubt));
    assert!(!book.is_expected("a") && !book.is_in_doubt("a"));
    book.out_of_doubt("a").await;
}

#[tokio::test(start_paused = true)]
async fn of_two_starts_both_outcomes_are_waited_for() {
    let lab = Lab::new();
    let book = &lab.containers.book;
    let (first, second) = (book.doubt("a"), book.doubt("a"));
    drop(first);
    let waited = tokio::time::timeout(Duration::from_secs(5), book.out_of_doubt("a")).await;
    assert!(waited.is_err());
    drop(second);
    book.out_of_doubt("a").await;
}
