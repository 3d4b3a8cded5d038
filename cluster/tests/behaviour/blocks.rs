//! Blocks and addresses: never two owners.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use selvedge_cluster::claim::ClaimError;

use crate::lab::{Lab, Wanted, until};
use crate::with_any_registry;

with_any_registry!(
    fifty_hosts_that_claim_at_once_get_fifty_blocks,
    a_block_that_is_given_back_is_free_for_others,
    a_host_knows_its_blocks_again,
    an_address_goes_to_one_and_moves_to_the_next,
    an_address_in_anothers_block_is_asked_for_there,
    hosts_that_do_not_agree_are_refused,
);

async fn fifty_hosts_that_claim_at_once_get_fifty_blocks(lab: Lab) {
    let mut hosts = Vec::new();
    for number in 0..50 {
        // 64 blocks: each host finds many of its candidates taken.
        let wanted = Wanted { pool: "10.32.0.0/18", ..Wanted::default() };
        hosts.push(lab.begin(&format!("h{number}"), wanted).await);
    }
    let mut claims = Vec::new();
    for host in hosts {
        claims.push(tokio::spawn(async move { (host.cluster.claim_block().await, host) }));
    }
    let (mut blocks, mut hosts) = (BTreeSet::new(), Vec::new());
    for claim in claims {
        let (block, host) = claim.await.unwrap();
        assert!(blocks.insert(block.unwrap()), "two hosts have one block");
        hosts.push(host);
    }
    for _ in 50..64 {
        assert!(blocks.insert(hosts[0].cluster.claim_block().await.unwrap()));
    }
    until("the last host has heard of all", || {
        hosts[49].view().peers.iter().map(|peer| peer.blocks.len()).sum::<usize>() == 63
    })
    .await;
    assert!(matches!(hosts[49].cluster.claim_block().await, Err(ClaimError::Exhausted(_))));
}

async fn a_block_that_is_given_back_is_free_for_others(lab: Lab) {
    let wanted = || Wanted { pool: "10.32.0.0/24", block_size: 25, ..Wanted::default() };
    let (a, b) = (lab.host_with("a", wanted()).await, lab.host_with("b", wanted()).await);
    let (first, second) = (a.claim_block().await, a.claim_block().await);
    until("b has heard", || b.peer("a").is_some_and(|peer| peer.blocks.len() == 2)).await;
    assert!(matches!(b.cluster.claim_block().await, Err(ClaimError::Exhausted(_))));
    a.cluster.give_back(first);
    until("b has heard", || b.peer("a").is_some_and(|peer| peer.blocks == [second])).await;
    assert_eq!(b.claim_block().await, first);
}

async fn a_host_knows_its_blocks_again(lab: Lab) {
    let a = lab.host("a").await;
    let blocks = BTreeSet::from([a.claim_block().await, a.claim_block().await]);
    drop(a);
    let a = lab.host("a").await;
    until("the registry told", || a.view().own_blocks.iter().copied().collect::<BTreeSet<_>>() == blocks)
        .await;
}

async fn an_address_goes_to_one_and_moves_to_the_next(lab: Lab) {
    let (a, b) = (lab.host("a").await, lab.host("b").await);
    let address: Ipv4Addr = "10.40.0.7".parse().unwrap();
    a.cluster.claim_address(address, "first").await.unwrap();
    a.cluster.claim_address(address, "first").await.expect("again for the same");
    a.publish("first0000000", "10.40.0.7", &["db"]);
    until("b has a route for it alone", || b.peer("a").is_some_and(|peer| peer.strays == [address])).await;
    let refused = b.cluster.claim_address(address, "second").await.unwrap_err();
    assert!(refused.to_string().contains("container first on host a"), "{refused}");
    // While b asks again, a lets go.
    let moving = tokio::spawn(async move { (b.cluster.claim_address(address, "second").await, b) });
    tokio::time::sleep(Duration::from_millis(300)).await;
    a.cluster.withdraw("first0000000");
    a.cluster.release_address(address, "first");
    let (moved, b) = moving.await.unwrap();
    moved.unwrap();
    b.publish("second000000", "10.40.0.7", &["db"]);
    until("a has the route", || a.peer("b").is_some_and(|peer| peer.strays == [address])).await;
    until("b has none any more", || b.peer("a").is_some_and(|peer| peer.strays.is_empty())).await;
}

async fn an_address_in_anothers_block_is_asked_for_there(lab: Lab) {
    let (a, b) = (lab.host("a").await, lab.host("b").await);
    let block = a.claim_block().await;
    until("b has heard", || b.peer("a").is_some_and(|peer| peer.blocks == [block])).await;
    let mut hosts = block.hosts();
    let (free, used) = (hosts.next().unwrap(), hosts.next().unwrap());
    a.reserved.lock().unwrap().insert(used, "container".to_owned());
    b.cluster.claim_address(free, "x").await.unwrap();
    assert_eq!(a.reserved.lock().unwrap().get(&free).map(String::as_str), Some("b"));
    assert!(matches!(b.cluster.claim_address(used, "y").await, Err(ClaimError::Taken { .. })));
    b.cluster.release_address(free, "x");
    until("a hands it out again", || !a.reserved.lock().unwrap().contains_key(&free)).await;
    b.cluster.claim_address(used, "y").await.expect_err("and still not the other");
    drop(a);
    assert!(matches!(b.cluster.claim_address(free, "x").await, Err(ClaimError::Silent { .. })));
    let raw = lab.raw().await;
    assert_eq!(raw.get(&format!("addresses/{free}")).await, None, "a refused claim is taken back");
}

async fn hosts_that_do_not_agree_are_refused(lab: Lab) {
    let a = lab.host("a").await;
    a.claim_block().await;
    let raw = lab.raw().await;
    until("the registry is a's", || a.view().read).await;
    while raw.get("settings").await.is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for (wanted, word) in [
        (Wanted { pool: "10.64.0.0/12", ..Wanted::default() }, "--pool"),
        (Wanted { block_size: 26, ..Wanted::default() }, "--block-size"),
    ] {
        let other = lab.begin("other", wanted).await;
        until("it is refused", || format!("{:?}", other.view().registry).contains(word)).await;
        let error = other.cluster.claim_block().await.unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
        assert_eq!(raw.get("hosts/other").await, None);
        assert!(!other.view().read && other.view().peers.is_empty(), "nothing of it is believed");
    }
}
