//! Blocks of addresses: claimed before they are needed, and given back.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use selvedge_cluster::store::memory::Memory;
use selvedge_datapath::addresses::Wish;
use selvedge_fake::paths::{Paths, among_hosts, settings, until};

fn blocks(host: &Paths) -> BTreeSet<Ipv4Net> {
    host.addresses.free_by_block().into_iter().map(|(block, _)| block).collect()
}

fn take(host: &Paths, count: u64) -> Vec<Ipv4Addr> {
    (1..=count).map(|create| host.addresses.take(Wish::Any, create).unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_block_more_is_claimed_before_the_last_is_full_and_goes_back_when_empty() {
    among_hosts(async {
        let a = Paths::new(settings("a", 2, &Memory::default())).await;
        a.keep();
        until("a block", || blocks(&a).len() == 1).await;
        let first = blocks(&a);
        let taken = take(&a, 230);
        until("another block", || blocks(&a).len() == 2).await;
        let woven = || a.kernel.fabric.lock().unwrap().as_ref().unwrap().own_blocks.clone();
        assert_eq!(woven().into_iter().collect::<BTreeSet<_>>(), blocks(&a), "the kernel knows them first");
        for (address, create) in taken.into_iter().zip(1..) {
            a.addresses.give_back(address, create);
        }
        tokio::time::sleep(Duration::from_secs(50)).await;
        assert_eq!(blocks(&a).len(), 2, "not at once: a wave of creates may follow");
        until("it goes back", || blocks(&a).len() == 1).await;
        assert_eq!(blocks(&a), first, "the lowest has the host's own address");
        until("the registry knows", || a.datapath.cluster.views().borrow().own_blocks.len() == 1).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_block_with_a_container_never_goes_back() {
    among_hosts(async {
        let a = Paths::new(settings("a", 2, &Memory::default())).await;
        a.keep();
        until("a block", || blocks(&a).len() == 1).await;
        let taken = take(&a, 230);
        until("another block", || blocks(&a).len() == 2).await;
        let in_the_second: Vec<Ipv4Addr> =
            (231..=280).map(|n| a.addresses.take(Wish::Any, n).unwrap()).collect();
        for (address, create) in taken.into_iter().zip(1..) {
            a.addresses.give_back(address, create);
        }
        assert!(!in_the_second.is_empty());
        tokio::time::sleep(Duration::from_secs(200)).await;
        assert_eq!(blocks(&a).len(), 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_create_that_finds_no_room_gets_a_block_or_is_told_why_not() {
    among_hosts(async {
        let registry = Memory::default();
        let a = Paths::new(settings("a", 2, &registry)).await;
        assert!(a.datapath.blocks.another(None).await.is_ok());
        assert_eq!(blocks(&a).len(), 1);
        let subnet: Ipv4Net = "10.40.7.0/24".parse().unwrap();
        assert!(!a.addresses.has_room_in(subnet));
        a.datapath.blocks.another(Some(subnet)).await.unwrap();
        assert!(a.addresses.has_room_in(subnet));
        assert!(blocks(&a).iter().any(|block| subnet.contains(block) && block.prefix_len() == 28));
        // Of another pool, the registry refuses it.
        let mut other = settings("b", 3, &registry);
        other.pool = "10.64.0.0/12".parse().unwrap();
        let b = Paths::new(other).await;
        let why = b.datapath.blocks.another(None).await.unwrap_err();
        assert!(why.contains("has no block of addresses yet") && why.contains("--block"), "{why}");
        let why = b.datapath.blocks.another(Some("10.64.7.0/24".parse().unwrap())).await.unwrap_err();
        assert!(why.starts_with("no address of 10.64.7.0/24 is free on this host"), "{why}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_is_alone_is_told_what_to_do_when_the_pool_is_full() {
    among_hosts(async {
        let mut alone = settings("a", 2, &Memory::default());
        alone.cluster.alone = true;
        alone.pool = "10.32.0.0/24".parse().unwrap();
        alone.block = Some(alone.pool);
        let a = Paths::new(alone).await;
        while a.addresses.take(Wish::Any, 1).is_ok() {}
        let why = a.datapath.blocks.another(None).await.unwrap_err();
        assert!(why.contains("no free address is left in the pool 10.32.0.0/24"), "{why}");
        assert!(why.contains("--pool"), "{why}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn blocks_are_known_by_the_addresses_that_containers_have() {
    among_hosts(async {
        let mut alone = settings("a", 2, &Memory::default());
        alone.cluster.alone = true;
        alone.block = Some("10.32.0.0/24".parse().unwrap());
        let a = Paths::new(alone).await;
        let given = [([10, 32, 5, 7], false), ([10, 40, 7, 33], true), ([192, 0, 2, 1], false)];
        a.datapath.blocks.remember(given.into_iter().map(|(address, own)| (address.into(), own)));
        let expected = ["10.32.0.0/24", "10.32.5.0/24", "10.40.7.32/28"].map(|block| block.parse().unwrap());
        assert_eq!(blocks(&a), expected.into());
        // Among others the registry says it.
        let b = Paths::new(settings("b", 3, &Memory::default())).await;
        b.datapath.first_look(Duration::from_secs(5)).await;
        let before = blocks(&b);
        b.datapath.blocks.remember([([10, 32, 5, 7].into(), false)].into_iter());
        assert_eq!(blocks(&b), before);
    })
    .await;
}
