//! Who is there: a worker that is replaced is no departure, a host that is dead is.

use std::time::Duration;

use selvedge_cluster::view::Registry;

use crate::lab::{Lab, Wanted, throughout, until};
use crate::with_any_registry;

with_any_registry!(
    a_worker_that_is_replaced_or_killed_is_no_departure,
    a_dead_hosts_names_go_and_its_blocks_stay_until_it_is_forgotten,
    a_host_that_answers_is_not_dead_whatever_the_registry_says,
    a_dead_hosts_blocks_are_freed_after_a_time,
    of_two_workers_none_deletes_what_the_other_heard_of_first,
    a_second_host_of_the_same_name_is_refused_and_the_first_goes_on,
);

async fn a_second_host_of_the_same_name_is_refused_and_the_first_goes_on(lab: Lab) {
    let (a, b) = (lab.host("a").await, lab.host("b").await);
    a.publish("aaaaaaaaaaaa1111", "10.32.1.5", &["db"]);
    until("b knows it", || b.knows("db", "10.32.1.5")).await;
    let elsewhere = || Wanted { address: "127.0.0.2".parse().unwrap(), ..Wanted::default() };
    let clone = lab.begin("a", elsewhere()).await;
    clone.cluster.settled();
    until("it is refused", || format!("{:?}", clone.view().registry).contains("--host-name")).await;
    throughout(Duration::from_secs(2), "the first is what it was", || {
        b.knows("db", "10.32.1.5")
            && b.peer("a")
                .is_some_and(|peer| peer.info.is_some_and(|info| info.address.to_string() == "127.0.0.1"))
    })
    .await;
    drop(a);
    until("when the first is gone, the name is free", || clone.view().registry == Registry::Connected).await;
}

/// In an upgrade there are two for a while, and one of them hears of a container before the other.
async fn of_two_workers_none_deletes_what_the_other_heard_of_first(lab: Lab) {
    let b = lab.host("b").await;
    let (old, new) = (lab.host("a").await, lab.host("a").await);
    for worker in [&old, &new] {
        worker.cluster.settled();
    }
    for (number, (first, second)) in [(&old, &new), (&new, &old)].into_iter().enumerate() {
        let (id, address) = (format!("{number:012}"), format!("10.32.1.{}", number + 1));
        let name = format!("c{number}");
        first.publish(&id, &address, &[&name]);
        until("b knows it", || b.knows(&name, &address)).await;
        throughout(Duration::from_secs(1), "b knows it", || b.knows(&name, &address)).await;
        second.publish(&id, &address, &[&name]);
        throughout(Duration::from_millis(1500), "b knows it", || b.knows(&name, &address)).await;
        first.withdraw(&id);
        second.withdraw(&id);
        until("it is gone", || b.resolve(&name).is_empty()).await;
    }
}

async fn a_worker_that_is_replaced_or_killed_is_no_departure(lab: Lab) {
    let b = lab.host("b").await;
    let mut a = lab.host("a").await;
    a.claim_block().await;
    a.publish("aaaaaaaaaaaa1111", "10.32.1.5", &["db"]);
    until("b knows it", || b.knows("db", "10.32.1.5")).await;
    for round in 0..4 {
        let next = if round % 2 == 0 {
            // An upgrade: the next one is there before the last one leaves.
            let next = lab.host("a").await;
            next.publish("aaaaaaaaaaaa1111", "10.32.1.5", &["db"]);
            next.cluster.settled();
            a.cluster.leave().await;
            next
        } else {
            drop(a);
            tokio::time::sleep(Duration::from_millis(200)).await;
            let next = lab.host("a").await;
            next.publish("aaaaaaaaaaaa1111", "10.32.1.5", &["db"]);
            next.cluster.settled();
            next
        };
        a = next;
        throughout(Duration::from_secs(1), "db is answered, and a's block is known", || {
            b.knows("db", "10.32.1.5") && b.peer("a").is_some_and(|peer| peer.blocks.len() == 1)
        })
        .await;
    }
}

async fn a_dead_hosts_names_go_and_its_blocks_stay_until_it_is_forgotten(lab: Lab) {
    let b = lab.host("b").await;
    let a = lab.host_with("a", Wanted { answers: false, ..Wanted::default() }).await;
    let block = a.claim_block().await;
    a.publish("aaaaaaaaaaaa1111", "10.32.1.5", &["db"]);
    until("b knows it", || b.knows("db", "10.32.1.5")).await;
    let refused = b.cluster.forget("a").await.unwrap_err();
    assert!(refused.contains("is alive"), "{refused}");
    assert!(b.cluster.forget("b").await.unwrap_err().contains("this host"));
    assert!(b.cluster.forget("nobody").await.unwrap_err().contains("no host"));
    drop(a);
    until("its names are gone", || b.resolve("db").is_empty()).await;
    assert_eq!(b.peer("a").unwrap().blocks, [block], "its blocks are its own");
    b.cluster.forget("a").await.unwrap();
    until("nothing is left of it", || b.peer("a").is_none()).await;
    let raw = lab.raw().await;
    for key in ["hosts/a", "gone/a", &format!("blocks/{}-24", block.network())] {
        assert_eq!(raw.get(key).await, None, "{key}");
    }
}

async fn a_host_that_answers_is_not_dead_whatever_the_registry_says(lab: Lab) {
    let b = lab.host("b").await;
    let mut a = lab.host("a").await;
    a.publish("aaaaaaaaaaaa1111", "10.32.1.5", &["db"]);
    until("b knows it", || b.knows("db", "10.32.1.5")).await;
    // Its worker leaves the registry; its keeper's port stays open.
    a.cluster.leave().await;
    until("the registry has lost it", || b.peer("a").is_some_and(|peer| !peer.registered)).await;
    throughout(Duration::from_secs(3), "db is answered", || b.knows("db", "10.32.1.5")).await;
    assert!(b.cluster.forget("a").await.unwrap_err().contains("answers"));
    a.stop_answering();
    until("now it is dead", || b.resolve("db").is_empty()).await;
}

async fn a_dead_hosts_blocks_are_freed_after_a_time(lab: Lab) {
    let wanted = |answers| Wanted { free_after: Duration::from_secs(1), answers, ..Wanted::default() };
    let b = lab.host_with("b", wanted(true)).await;
    let a = lab.host_with("a", wanted(false)).await;
    let block = a.claim_block().await;
    until("b has heard", || b.peer("a").is_some_and(|peer| peer.blocks == [block])).await;
    drop(a);
    until("nothing is left of it", || b.peer("a").is_none()).await;
    let raw = lab.raw().await;
    assert_eq!(raw.get(&format!("blocks/{}-24", block.network())).await, None);
}
