//! Routes to other hosts, as the registry has them.

use std::sync::Arc;
use std::time::Duration;

use selvedge_cluster::store::memory::Memory;
use selvedge_fake::paths::{Paths, among_hosts, settings, until};
use selvedge_netsetup::{Datapath as Way, Peer};

/// The hosts that the kernel reaches.
fn reached(host: &Paths) -> Vec<Peer> {
    host.kernel.fabric.lock().unwrap().iter().flat_map(|fabric| fabric.peers.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn another_host_is_reached_once_it_has_a_block_and_also_when_it_has_died() {
    among_hosts(async {
        let registry = Memory::default();
        let a = Paths::new(settings("a", 2, &registry)).await;
        a.keep();
        let b = Paths::new(settings("b", 3, &registry)).await;
        until("the other host", || !a.datapath.cluster.views().borrow().peers.is_empty()).await;
        assert!(reached(&a).is_empty(), "it has nothing that could be reached");
        let block = b.datapath.cluster.claim_block(None).await.unwrap();
        until("a route", || !reached(&a).is_empty()).await;
        let peer = reached(&a).remove(0);
        assert_eq!((peer.name.as_str(), peer.destinations), ("b", vec![block]));
        assert_eq!(peer.underlay.to_string(), "127.0.0.3");
        drop(b);
        until("its death", || a.datapath.cluster.views().borrow().peers.iter().all(|peer| !peer.alive)).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(reached(&a).len(), 1, "the block is still its own");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn two_hosts_go_the_same_way_both_ways() {
    among_hosts(async {
        for (own, theirs, expected) in [
            (Way::Auto, Way::Auto, Way::Auto),
            (Way::Auto, Way::Vxlan, Way::Vxlan),
            (Way::Vxlan, Way::Direct, Way::Vxlan),
            (Way::Auto, Way::Direct, Way::Direct),
        ] {
            let registry = Memory::default();
            let (mut of_a, mut of_b) = (settings("a", 2, &registry), settings("b", 3, &registry));
            (of_a.cluster.way, of_b.cluster.way) = (own, theirs);
            let (a, b) = (Paths::new(of_a).await, Paths::new(of_b).await);
            [&a, &b].iter().for_each(|host| host.keep());
            until("routes", || !reached(&a).is_empty() && !reached(&b).is_empty()).await;
            assert_eq!((reached(&a)[0].datapath, reached(&b)[0].datapath), (expected, expected));
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_changed_before_the_registry_was_read() {
    among_hosts(async {
        let registry = Memory::default();
        let (a, member) = Paths::apart(Arc::default(), settings("a", 2, &registry)).await.unwrap();
        a.keep();
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(a.kernel.times("weave"), 0);
        assert!(a.datapath.routes.plan().await.unwrap_err().contains("not been read"));
        tokio::task::spawn_local(member());
        until("routes", || a.kernel.times("weave") > 0).await;
        assert_eq!(a.datapath.routes.plan().await, Ok(Vec::new()));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_the_kernel_refuses_is_told_and_tried_again_without_news() {
    among_hosts(async {
        let registry = Memory::default();
        let a = Paths::new(settings("a", 2, &registry)).await;
        a.kernel.refuse("weave");
        a.keep();
        until("trouble", || a.datapath.routes.trouble().is_some()).await;
        assert!(a.datapath.routes.trouble().unwrap().contains("cannot weave"));
        let tries = a.kernel.times("weave");
        until("another try", || a.kernel.times("weave") > tries).await;
        a.kernel.agree("weave");
        until("no trouble", || a.datapath.routes.trouble().is_none()).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_alone_has_no_routes() {
    among_hosts(async {
        let registry = Memory::default();
        let mut settings = settings("a", 2, &registry);
        settings.cluster.alone = true;
        let a = Paths::new(settings).await;
        a.keep();
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(a.kernel.times("weave"), 0);
        assert_eq!(a.datapath.routes.plan().await, Ok(Vec::new()));
    })
    .await;
}
