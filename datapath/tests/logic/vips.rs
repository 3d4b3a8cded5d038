//! Virtual addresses: first the kernel leads connections, then the name is answered.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use selvedge_cluster::store::memory::Memory;
use selvedge_datapath::settings::Settings;
use selvedge_fake::kernel::FakeKernel;
use selvedge_fake::log::Log;
use selvedge_fake::paths::{Paths, among_hosts, behind, settings, until};

/// A host with a range of virtual addresses.
pub(crate) fn with_vips(name: &str, octet: u8, registry: &Memory) -> Settings {
    let mut settings = settings(name, octet, registry);
    settings.vips = Some("10.47.0.0/16".parse().unwrap());
    settings
}

/// The same that keeps them, and has seen all containers.
pub(crate) async fn begun(name: &str, octet: u8, registry: &Memory) -> Paths {
    let host = Paths::new(with_vips(name, octet, registry)).await;
    host.keep();
    host.all_seen().await;
    host
}

/// The virtual address of a name, when it is answered.
pub(crate) fn address(host: &Paths, name: &str) -> Option<Ipv4Addr> {
    host.answers(name).into_iter().next()
}

#[tokio::test(start_paused = true)]
async fn a_name_is_answered_once_the_kernel_leads_its_connections() {
    among_hosts(async {
        let registry = Memory::default();
        let (a, b) = (begun("a", 2, &registry).await, begun("b", 3, &registry).await);
        a.kernel.refuse("apply vips");
        a.runs(&behind("1", [10, 32, 0, 1], "db1", "db:5432"));
        until("trouble", || a.datapath.vips.status().trouble.is_some()).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(address(&a, "db.vip"), None);
        a.kernel.agree("apply vips");
        until("a name", || address(&a, "db.vip").is_some()).await;
        let vip = address(&a, "db.vip").unwrap();
        assert_eq!(a.kernel.backends(vip), [Ipv4Addr::new(10, 32, 0, 1)]);
        assert!(a.kernel.times("lead") > 0, "packets to it need a route");
        let status = a.datapath.vips.status();
        assert_eq!((status.services[0].name.as_str(), status.services[0].address), ("db.vip", Some(vip)));
        assert_eq!(status.services[0].ports[0].backends, ["10.32.0.1:5432"]);
        until("the other host", || address(&b, "db.vip") == Some(vip)).await;
        b.runs(&behind("2", [10, 32, 9, 2], "db2", "db:5432"));
        until("both", || a.kernel.backends(vip).len() == 2 && b.kernel.backends(vip).len() == 2).await;
        a.ended("000000000001");
        b.ended("000000000002");
        until("no name", || address(&a, "db.vip").is_none()).await;
        assert!(a.kernel.backends(vip).is_empty());
        assert_eq!(a.datapath.vips.plan().await.unwrap(), ["nft add element"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_route_that_the_kernel_refuses_keeps_the_name_back() {
    among_hosts(async {
        let a = begun("a", 2, &Memory::default()).await;
        a.kernel.refuse("lead");
        a.runs(&behind("1", [10, 32, 0, 1], "db1", "db:5432"));
        until("trouble", || a.datapath.vips.status().trouble.is_some()).await;
        assert!(address(&a, "db.vip").is_none() && a.kernel.times("apply vips") == 0);
        a.kernel.agree("lead");
        until("a name", || address(&a, "db.vip").is_some()).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_worker_left_stays_until_all_containers_have_been_seen() {
    among_hosts(async {
        let kernel = Arc::new(FakeKernel::default());
        kernel.vips.lock().unwrap().in_force.aside = vec![[10, 32, 0, 9].into()];
        let a = Paths::over(kernel, with_vips("a", 2, &Memory::default())).await.unwrap();
        a.keep();
        assert_eq!(a.datapath.vips.aside().await, [Ipv4Addr::new(10, 32, 0, 9)]);
        a.runs(&behind("1", [10, 32, 0, 1], "db1", "db:5432"));
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(a.kernel.times("apply vips"), 0);
        assert!(a.datapath.vips.is_wanted());
        *a.draining.lock().unwrap() = vec![[10, 32, 0, 1].into()];
        a.all_seen().await;
        until("a name", || address(&a, "db.vip").is_some()).await;
        assert_eq!(a.datapath.vips.aside().await, [Ipv4Addr::new(10, 32, 0, 1)], "for the next worker");
        a.kernel.refuse("aside");
        assert!(a.datapath.vips.aside().await.is_empty());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_changed_from_outside_is_restored_and_nothing_is_asked_where_there_are_none() {
    among_hosts(async {
        let log = Log::listen();
        let a = begun("a", 2, &Memory::default()).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(a.kernel.times("check vips"), 0);
        a.runs(&behind("1", [10, 32, 0, 1], "db1", "db:5432"));
        until("a name", || address(&a, "db.vip").is_some()).await;
        a.kernel.spoilt.store(2, Relaxed);
        tokio::time::sleep(Duration::from_millis(1100)).await;
        assert_eq!(a.kernel.spoilt.load(Relaxed), 0);
        log.last("our rules for virtual addresses were changed from outside; restored");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn marathon_s_apps_have_the_names_of_dcos_too() {
    among_hosts(async {
        let mut mesos = with_vips("a", 2, &Memory::default());
        mesos.mesos = true;
        let a = Paths::new(mesos).await;
        a.keep();
        a.all_seen().await;
        a.runs(&behind("1", [10, 32, 0, 1], "db1", "db:5432"));
        until("a name", || address(&a, "db.vip").is_some()).await;
        assert_eq!(address(&a, "db.marathon.l4lb.thisdcos.directory."), address(&a, "db.vip"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_name_for_which_no_address_is_left_waits() {
    among_hosts(async {
        let mut small = with_vips("a", 2, &Memory::default());
        small.vips = Some("10.47.0.0/30".parse().unwrap());
        let a = Paths::new(small).await;
        a.keep();
        a.all_seen().await;
        for number in 1..=6_u8 {
            let (id, vip) = (number.to_string(), format!("db{number}:5432"));
            a.runs(&behind(&id, [10, 32, 0, number], &format!("c{number}"), &vip));
        }
        until("some wait", || {
            let status = a.datapath.vips.status();
            !status.waiting.is_empty() && !status.services.is_empty()
        })
        .await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn without_a_range_there_are_none() {
    among_hosts(async {
        let a = Paths::new(settings("a", 2, &Memory::default())).await;
        a.keep();
        a.all_seen().await;
        a.runs(&behind("1", [10, 32, 0, 1], "db1", "db:5432"));
        a.datapath.balance().await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(a.kernel.times("apply vips") + a.kernel.times("lead"), 0);
        assert!(a.datapath.vips.aside().await.is_empty() && a.datapath.vips.plan().await.unwrap().is_empty());
    })
    .await;
}
