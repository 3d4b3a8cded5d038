//! Refused calls, with the names of both ends: in the log, in the status, and at the host of the called container.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use selvedge_cluster::store::memory::Memory;
use selvedge_datapath::status::Refused;
use selvedge_fake::kernel::FakeKernel;
use selvedge_fake::log::Log;
use selvedge_fake::paths::{Paths, among_hosts, record, until};
use selvedge_netsetup::policy::{Call, Refusal, Rule};

use crate::policy::{begun, by_tenant};

fn refusal(from: [u8; 4], to: [u8; 4]) -> Refusal {
    let call = Call { protocol: "tcp".to_owned(), port: Some(80), rule: Rule::Grants };
    Refusal { from: IpAddr::from(from), to: IpAddr::from(to), call: Some(call) }
}

fn refuses(host: &Paths, refusal: Refusal, packets: u64) {
    *host.kernel.refused.lock().unwrap() = HashMap::from([(refusal, packets)]);
}

/// The refused call of this host, with the names of both ends.
fn shown(host: &Paths) -> Option<(String, String, u64)> {
    let Refused { caller, called, packets, .. } =
        host.datapath.directory.policy.status().refused.into_iter().next()?;
    Some((caller, called, packets))
}

fn ends(caller: &str, called: &str, packets: u64) -> Option<(String, String, u64)> {
    Some((caller.to_owned(), called.to_owned(), packets))
}

#[tokio::test(start_paused = true)]
async fn a_refused_call_is_logged_and_shown_also_when_its_caller_has_ended() {
    among_hosts(async {
        let log = Log::listen();
        let a = begun("a", 2, &Memory::default()).await;
        a.runs(&record("1", [10, 32, 0, 1], "web"));
        a.runs(&record("2", [10, 32, 0, 2], "db"));
        refuses(&a, refusal([10, 32, 0, 1], [10, 32, 0, 2]), 3);
        until("the status", || shown(&a) == ends("shop/web", "shop/db", 3)).await;
        log.last("refused");
        a.ended("000000000001");
        until("its name is written down", || !a.kernel.remembered.lock().unwrap().is_empty()).await;
        assert_eq!(shown(&a), ends("shop/web", "shop/db", 3));
        // What was counted is not another one's, who gets the address.
        a.runs(&record("3", [10, 32, 0, 1], "other"));
        until("all is forgotten", || a.kernel.remembered.lock().unwrap().is_empty()).await;
        until("nothing is shown", || shown(&a).is_none()).await;
        assert!(a.kernel.refused.lock().unwrap().is_empty());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_down_or_deleted_is_tried_again() {
    among_hosts(async {
        let a = begun("a", 2, &Memory::default()).await;
        a.runs(&record("1", [10, 32, 0, 1], "web"));
        refuses(&a, refusal([10, 32, 0, 1], [192, 0, 2, 1]), 3);
        until("the status", || shown(&a) == ends("shop/web", "192.0.2.1", 3)).await;
        a.kernel.refuse("remember");
        a.ended("000000000001");
        until("a try", || a.kernel.times("remember") > 1).await;
        a.kernel.agree("remember");
        until("its name is written down", || !a.kernel.remembered.lock().unwrap().is_empty()).await;
        a.kernel.refuse("forget");
        a.runs(&record("3", [10, 32, 0, 1], "other"));
        until("a try", || a.kernel.times("forget") > 1).await;
        assert_eq!(shown(&a), ends("shop/web", "192.0.2.1", 3), "as long as it is counted");
        a.kernel.agree("forget");
        until("nothing is shown", || shown(&a).is_none()).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_worker_counted_is_shown_and_not_logged_again() {
    among_hosts(async {
        let log = Log::listen();
        let kernel = Arc::new(FakeKernel::default());
        kernel.has_rules.store(true, Relaxed);
        let caller = Ipv4Addr::new(10, 32, 0, 1);
        *kernel.remembered.lock().unwrap() = HashMap::from([(caller.into(), "shop/gone".to_owned())]);
        *kernel.refused.lock().unwrap() = HashMap::from([(refusal(caller.octets(), [192, 0, 2, 1]), 7)]);
        let a = Paths::over(kernel, by_tenant("a", 2, &Memory::default())).await.unwrap();
        a.keep();
        a.all_seen().await;
        until("the status", || shown(&a) == ends("shop/gone", "192.0.2.1", 7)).await;
        tokio::time::sleep(Duration::from_secs(25)).await;
        assert!(log.lines().iter().all(|line| line.message != "refused"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn many_kinds_of_calls_are_counted_and_the_busiest_are_named() {
    among_hosts(async {
        let log = Log::listen();
        let a = begun("a", 2, &Memory::default()).await;
        let kinds = (1..=120_u8).map(|last| (refusal([10, 32, 0, last], [192, 0, 2, 1]), u64::from(last)));
        *a.kernel.refused.lock().unwrap() = kinds.collect();
        until("the status", || shown(&a) == ends("10.32.0.120", "192.0.2.1", 120)).await;
        let status = a.datapath.directory.policy.status();
        assert_eq!((status.refused.len(), status.refused_more), (100, 20));
        assert_eq!(log.lines().iter().filter(|line| line.message == "refused").count(), 10);
        log.last("more kinds of calls were refused than are logged");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_host_of_the_called_container_hears_of_it() {
    among_hosts(async {
        let registry = Memory::default();
        let listener = TcpListener::bind("127.0.0.3:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let a = begun("a", 2, &registry).await;
        let mut of_b = by_tenant("b", 3, &registry);
        of_b.cluster.peer_port = listener.local_addr().unwrap().port();
        let b = Paths::new(of_b).await;
        b.keep();
        b.all_seen().await;
        let datapath = Arc::clone(&b.datapath);
        tokio::spawn(async move { datapath.answer_peers(listener).await });
        let block = || b.datapath.cluster.views().borrow().own_blocks.first().copied();
        until("a block", || block().is_some()).await;
        let [x, y, z, _] = block().unwrap().network().octets();
        b.runs(&record("2", [x, y, z, 2], "db"));
        let of_a = || a.datapath.cluster.views().borrow().own_blocks.first().copied();
        until("a block", || of_a().is_some()).await;
        let [p, q, r, _] = of_a().unwrap().network().octets();
        a.runs(&record("1", [p, q, r, 1], "web"));
        refuses(&a, refusal([p, q, r, 1], [x, y, z, 2]), 3);
        until("the report", || shown(&b) == ends("shop/web", "shop/db", 3)).await;
        // One that is gone is not believed for ever.
        drop(a);
    })
    .await;
}
