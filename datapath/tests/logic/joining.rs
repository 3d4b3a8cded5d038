//! How a worker begins: what it takes over, and what it says while the registry is away.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use selvedge_cluster::store::memory::Memory;
use selvedge_datapath::follow::StartError;
use selvedge_fake::kernel::FakeKernel;
use selvedge_fake::log::Log;
use selvedge_fake::paths::{Paths, among_hosts, record, settings, until};
use selvedge_registry::name::Name;
use selvedge_registry::table::sight::{Computed, Sight};

const LIMIT: Duration = Duration::from_secs(5);

#[tokio::test(start_paused = true)]
async fn the_kernel_remembers_blocks_and_knows_the_address() {
    among_hosts(async {
        let mut of = settings("a", 2, &Memory::default());
        of.cluster.host_address = None;
        let kernel = Arc::new(FakeKernel::default());
        *kernel.own_blocks.lock().unwrap() = vec!["10.32.9.0/24".parse().unwrap()];
        let error = Paths::over(Arc::clone(&kernel), of.clone()).await.unwrap_err();
        assert!(error.to_string().contains("--host-address"), "{error}");
        *kernel.underlay.lock().unwrap() = Some(IpAddr::from([127, 0, 0, 9]));
        let a = Paths::over(Arc::clone(&kernel), of.clone()).await.unwrap();
        assert_eq!(a.datapath.cluster.address(), IpAddr::from([127, 0, 0, 9]));
        a.datapath.first_look(LIMIT).await;
        assert!(a.addresses.owns([10, 32, 9, 1].into()));
        assert!(a.addresses.taken() == 1, "its own");
        kernel.refuse("own blocks");
        assert!(matches!(Paths::over(kernel, of).await.unwrap_err(), StartError::Join(_)));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn rules_that_the_kernel_refuses_keep_a_worker_from_beginning() {
    among_hosts(async {
        let mut of = settings("a", 2, &Memory::default());
        of.rules.by_tenant = true;
        let kernel = Arc::new(FakeKernel::default());
        kernel.refuse("begin");
        let error = Paths::over(kernel, of).await.unwrap_err();
        assert!(error.to_string().contains("--policy tenant"), "{error}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn names_are_not_denied_while_the_registry_is_away() {
    among_hosts(async {
        let log = Log::listen();
        let (a, member) = Paths::apart(Arc::default(), settings("a", 2, &Memory::default())).await.unwrap();
        let partial = || a.table.read().is_partial();
        a.datapath.first_look(LIMIT).await;
        assert!(partial());
        log.last("the registry does not answer; serving without it until it does");
        a.keep();
        tokio::task::spawn_local(member());
        until("all names are known", || !partial()).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn one_that_is_alone_does_not_wait_for_anything() {
    among_hosts(async {
        let mut alone = settings("a", 2, &Memory::default());
        (alone.cluster.alone, alone.cluster.host_address) = (true, None);
        let (a, _member) = Paths::apart(Arc::default(), alone).await.unwrap();
        let began = tokio::time::Instant::now();
        a.datapath.first_look(LIMIT).await;
        assert!(began.elapsed().is_zero() && !a.table.read().is_partial());
        assert!(!a.datapath.synced.all());
        a.datapath.synced.set_own();
        assert!(a.datapath.synced.all());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_another_configuration_left_is_taken_out() {
    among_hosts(async {
        let a = Paths::new(settings("a", 2, &Memory::default())).await;
        a.datapath.clear_away().await.unwrap();
        for said in ["withdraw rules", "withdraw vips", "lead nowhere"] {
            assert_eq!(a.kernel.times(said), 1, "{said}: {:?}", a.kernel.said());
        }
        let mut with_both = settings("b", 3, &Memory::default());
        with_both.rules.by_tenant = true;
        with_both.vips = Some("10.47.0.0/16".parse().unwrap());
        let b = Paths::new(with_both).await;
        b.datapath.clear_away().await.unwrap();
        assert_eq!(b.kernel.times("withdraw rules") + b.kernel.times("withdraw vips"), 0);
        a.kernel.refuse("withdraw rules");
        assert!(a.datapath.clear_away().await.is_err());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn mesos_has_names_for_hosts() {
    among_hosts(async {
        let registry = Memory::default();
        let mesos = |name, octet| {
            let mut settings = settings(name, octet, &registry);
            settings.mesos = true;
            settings
        };
        let (a, b) = (Paths::new(mesos("a", 2)).await, Paths::new(mesos("b", 3)).await);
        [&a, &b].iter().for_each(|host| host.keep());
        b.runs(&record("1", [10, 32, 9, 9], "web.marathon.mesos."));
        until("a name", || !a.answers("web.marathon.mesos.").is_empty()).await;
        let asked = Name::parse("web.marathon.slave.mesos.").unwrap();
        let host = Ipv4Addr::new(127, 0, 0, 3);
        until("its host", || {
            let table = a.table.read();
            Sight::from(&*table).compute(asked.wire()) == Some(Computed::Hosts(vec![host]))
        })
        .await;
    })
    .await;
}
