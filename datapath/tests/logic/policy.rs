//! Rules between tenants: in force before a name is answered, and before a program runs.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use selvedge_cluster::store::memory::Memory;
use selvedge_datapath::settings::Settings;
use selvedge_fake::kernel::FakeKernel;
use selvedge_fake::log::Log;
use selvedge_fake::paths::{Paths, among_hosts, record, settings, until};

pub(crate) const LIMIT: Duration = Duration::from_secs(5);

/// A host with `--policy tenant`.
pub(crate) fn by_tenant(name: &str, octet: u8, registry: &Memory) -> Settings {
    let mut settings = settings(name, octet, registry);
    settings.rules.by_tenant = true;
    settings
}

/// One that has seen all containers, and keeps its rules.
pub(crate) async fn begun(name: &str, octet: u8, registry: &Memory) -> Paths {
    let host = Paths::new(by_tenant(name, octet, registry)).await;
    host.keep();
    host.all_seen().await;
    host
}

#[tokio::test(start_paused = true)]
async fn nothing_is_refused_before_all_containers_have_been_seen() {
    among_hosts(async {
        let a = Paths::new(by_tenant("a", 2, &Memory::default())).await;
        a.keep();
        a.runs(&record("1", [10, 32, 0, 1], "db"));
        tokio::time::sleep(LIMIT).await;
        assert_eq!(a.kernel.times("apply rules"), 0);
        let datapath = Arc::clone(&a.datapath);
        let admitted = tokio::spawn(async move {
            datapath.directory.policy.admit(&record("2", [10, 32, 0, 2], "web"), &[]).await
        });
        tokio::time::sleep(LIMIT).await;
        assert!(!admitted.is_finished(), "its rules would be the first");
        a.all_seen().await;
        admitted.await.unwrap().unwrap();
        assert_eq!(a.kernel.admitted(), ["000000000001", "000000000002"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_rules_of_an_earlier_worker_go_on() {
    among_hosts(async {
        let kernel = Arc::new(FakeKernel::default());
        kernel.has_rules.store(true, Relaxed);
        let a = Paths::over(kernel, by_tenant("a", 2, &Memory::default())).await.unwrap();
        a.keep();
        a.datapath.directory.policy.admit(&record("1", [10, 32, 0, 1], "db"), &[]).await.unwrap();
        assert_eq!(a.kernel.admitted(), ["000000000001"], "before all containers have been seen");
        assert_eq!(a.kernel.times("settled"), 0, "what else is there may be right");
        a.all_seen().await;
        until("what is old may go", || a.kernel.times("settled") > 0).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_container_is_not_admitted_with_rules_that_the_kernel_refuses() {
    among_hosts(async {
        let a = begun("a", 2, &Memory::default()).await;
        a.kernel.refuse("apply rules");
        let error =
            a.datapath.directory.policy.admit(&record("1", [10, 32, 0, 1], "db"), &[]).await.unwrap_err();
        assert!(error.to_string().contains("apply rules"), "{error}");
        a.runs(&record("2", [10, 32, 0, 2], "web"));
        until("trouble", || a.datapath.directory.policy.status().trouble.is_some()).await;
        a.kernel.agree("apply rules");
        until("no trouble", || a.datapath.directory.policy.status().trouble.is_none()).await;
        assert_eq!(a.kernel.admitted().len(), 2, "what was noted stays noted");
        assert_eq!(a.datapath.directory.policy.plan().await.unwrap(), ["nft add rule"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn another_host_s_name_is_answered_once_its_rules_are_in_force() {
    among_hosts(async {
        let registry = Memory::default();
        let a = begun("a", 2, &registry).await;
        let b = begun("b", 3, &registry).await;
        a.kernel.refuse("apply rules");
        b.runs(&record("1", [10, 32, 9, 1], "db"));
        until("a try", || a.datapath.directory.policy.status().trouble.is_some()).await;
        tokio::time::sleep(LIMIT).await;
        assert!(a.answers("db").is_empty());
        a.kernel.agree("apply rules");
        until("a name", || !a.answers("db").is_empty()).await;
        assert_eq!(a.kernel.admitted(), ["b/000000000001"]);
        // In the other direction it is the name that goes first.
        a.kernel.refuse("apply rules");
        b.ended("000000000001");
        until("no name", || a.answers("db").is_empty()).await;
        assert_eq!(a.kernel.admitted(), ["b/000000000001"], "the kernel refuses it");
        a.kernel.agree("apply rules");
        until("no rule", || a.kernel.admitted().is_empty()).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_was_heard_by_the_start_is_answered_when_catching_up_is_done() {
    among_hosts(async {
        let registry = Memory::default();
        let b = begun("b", 3, &registry).await;
        b.runs(&record("1", [10, 32, 9, 1], "db"));
        b.datapath.cluster.told("000000000001").await;
        let a = Paths::new(by_tenant("a", 2, &registry)).await;
        a.keep();
        a.datapath.first_look(LIMIT).await;
        assert!(a.answers("db").is_empty());
        a.all_seen().await;
        assert_eq!(a.answers("db").len(), 1);
        // One whose kernel refuses all is not waited for.
        let log = Log::listen();
        let c = Paths::new(by_tenant("c", 4, &registry)).await;
        c.kernel.refuse("apply rules");
        c.keep();
        c.datapath.first_look(LIMIT).await;
        c.all_seen().await;
        log.last("the rules of other hosts' containers are not in force yet");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn hosts_own_addresses_are_known_once_the_registry_was_read() {
    among_hosts(async {
        let registry = Memory::default();
        let a = begun("a", 2, &registry).await;
        let b = begun("b", 3, &registry).await;
        let first = |host: &Paths| {
            let blocks = host.datapath.cluster.views().borrow().own_blocks.clone();
            blocks.first().map(ipnet::Ipv4Net::network)
        };
        until("blocks", || first(&a).is_some() && first(&b).is_some()).await;
        let both = [first(&a).unwrap(), first(&b).unwrap()].into();
        until("both hosts", || a.kernel.rules.lock().unwrap().in_force.hosts == both).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_changed_from_outside_is_restored_within_a_second() {
    among_hosts(async {
        let log = Log::listen();
        let a = begun("a", 2, &Memory::default()).await;
        let checks = a.kernel.times("check rules");
        a.kernel.spoilt.store(3, Relaxed);
        tokio::time::sleep(Duration::from_millis(1100)).await;
        assert!(a.kernel.times("check rules") > checks && a.kernel.spoilt.load(Relaxed) == 0);
        log.last("our rules in the kernel were changed from outside; restored");
        a.kernel.refuse("check rules");
        until("trouble", || a.datapath.directory.policy.status().trouble.is_some()).await;
        a.kernel.agree("check rules");
        until("no trouble", || a.datapath.directory.policy.status().trouble.is_none()).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn where_all_may_talk_to_all_no_rule_is_made() {
    among_hosts(async {
        let registry = Memory::default();
        let a = Paths::new(settings("a", 2, &registry)).await;
        let b = Paths::new(settings("b", 3, &registry)).await;
        [&a, &b].iter().for_each(|host| host.keep());
        a.all_seen().await;
        a.datapath.directory.policy.admit(&record("1", [10, 32, 0, 1], "web"), &[]).await.unwrap();
        b.runs(&record("1", [10, 32, 9, 1], "db"));
        until("a name", || !a.answers("db").is_empty()).await;
        b.ended("000000000001");
        until("no name", || a.answers("db").is_empty()).await;
        assert_eq!(a.kernel.times("apply rules") + a.kernel.times("begin"), 0);
        assert_eq!(a.datapath.directory.policy.status().mode, "open");
        assert!(a.datapath.directory.policy.plan().await.unwrap().is_empty());
    })
    .await;
}
