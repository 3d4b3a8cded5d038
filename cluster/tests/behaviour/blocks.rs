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
    the_first_view_has_the_blocks_that_a_host_remembers,
    an_address_goes_to_one_and_moves_to_the_next,
    an_address_in_anothers_block_is_asked_for_there,
    hosts_that_do_not_agree_are_refused,
    a_subnet_is_shared_in_small_blocks_and_nobody_gets_it_as_a_whole,
    an_address_of_a_subnet_is_asked_for_where_its_small_block_is,
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
        claims.push(tokio::spawn(async move { (host.cluster.claim_block(None).await, host) }));
    }
    let (mut blocks, mut hosts) = (BTreeSet::new(), Vec::new());
    for claim in claims {
        let (block, host) = claim.await.unwrap();
        assert!(blocks.insert(block.unwrap()), "two hosts have one block");
        hosts.push(host);
    }
    for _ in 50..64 {
        assert!(blocks.insert(hosts[0].cluster.claim_block(None).await.unwrap()));
    }
    until("the last host has heard of all", || {
        hosts[49].view().peers.iter().map(|peer| peer.blocks.len()).sum::<usize>() == 63
    })
    .await;
    assert!(matches!(hosts[49].cluster.claim_block(None).await, Err(ClaimError::Exhausted(_))));
}

async fn a_block_that_is_given_back_is_free_for_others(lab: Lab) {
    let wanted = || Wanted { pool: "10.32.0.0/24", block_size: 25, ..Wanted::default() };
    let (a, b) = (lab.host_with("a", wanted()).await, lab.host_with("b", wanted()).await);
    let (first, second) = (a.claim_block().await, a.claim_block().await);
    until("b has heard", || b.peer("a").is_some_and(|peer| peer.blocks.len() == 2)).await;
    assert!(matches!(b.cluster.claim_block(None).await, Err(ClaimError::Exhausted(_))));
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

/// A view without them would let the host claim others for want of any.
async fn the_first_view_has_the_blocks_that_a_host_remembers(lab: Lab) {
    let blocks = BTreeSet::from(["10.32.7.0/24".parse().unwrap()]);
    let a = lab.begin("a", Wanted { blocks: blocks.clone(), ..Wanted::default() }).await;
    let mut views = a.cluster.views();
    let first = views.wait_for(|view| view.read).await.unwrap();
    assert_eq!(first.own_blocks, Vec::from_iter(blocks));
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
    a.withdraw("first0000000");
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
    until("a has ended", || b.peer("a").is_some_and(|peer| !peer.registered)).await;
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
        let error = other.cluster.claim_block(None).await.unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
        assert_eq!(raw.get("hosts/other").await, None);
        assert!(!other.view().read && other.view().peers.is_empty(), "nothing of it is believed");
    }
}

async fn a_subnet_is_shared_in_small_blocks_and_nobody_gets_it_as_a_whole(lab: Lab) {
    // Two blocks, of which one is the subnet's.
    let wanted = || Wanted { pool: "10.32.0.0/23", ..Wanted::default() };
    let subnet = "10.32.1.0/24".parse().unwrap();
    let mut hosts = Vec::new();
    for number in 0..6 {
        hosts.push(lab.host_with(&format!("h{number}"), wanted()).await);
    }
    let claims = hosts.iter().map(|host| host.cluster.claim_block(Some(subnet)));
    let parts = futures_util::future::join_all(claims).await;
    let parts: BTreeSet<_> = parts.into_iter().map(Result::unwrap).collect();
    assert_eq!(parts.len(), 6, "each has one of its own");
    assert!(parts.iter().all(|part| part.prefix_len() == 28 && subnet.contains(part)), "{parts:?}");
    assert_eq!(hosts[0].claim_block().await.to_string(), "10.32.0.0/24");
    for host in &hosts {
        assert!(matches!(host.cluster.claim_block(None).await, Err(ClaimError::Exhausted(_))));
    }
    let whole = "10.32.0.0/24".parse().unwrap();
    let refused = hosts[1].cluster.claim_block(Some(whole)).await;
    assert_eq!(refused, Err(ClaimError::Exhausted(whole)), "a block that a host has is no subnet");
    for _ in 6..16 {
        hosts[3].cluster.claim_block(Some(subnet)).await.unwrap();
    }
    assert_eq!(hosts[4].cluster.claim_block(Some(subnet)).await, Err(ClaimError::Exhausted(subnet)));
}

async fn an_address_of_a_subnet_is_asked_for_where_its_small_block_is(lab: Lab) {
    let (a, b) = (lab.host("a").await, lab.host("b").await);
    let part = a.cluster.claim_block(Some("10.40.0.0/24".parse().unwrap())).await.unwrap();
    let [taken, free] = [1, 2].map(|nth| part.hosts().nth(nth).unwrap());
    a.reserved.lock().unwrap().insert(taken, "container".to_owned());
    until("b has heard", || b.peer("a").is_some_and(|peer| peer.blocks == [part])).await;
    assert!(matches!(b.cluster.claim_address(taken, "x").await, Err(ClaimError::Taken { .. })));
    b.cluster.claim_address(free, "x").await.unwrap();
}
