//! What changes meet: open connections, other workers, many callers at once, large tables.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use selvedge_netsetup::policy::{Grant, Party, Policy, PolicySettings, Who};

use super::bench::{
    Outcome, TABLE, all_of, both, call_tcp, dial, enforce, generation, host, member, open, party, tcp, wired,
};
use crate::lab::{on_a_host, sh, try_sh};

#[test]
fn a_grant_that_goes_cuts_and_one_that_stays_keeps() {
    on_a_host(|| async {
        let network = host().await;
        let (caller, called) = (wired(&network).await, wired(&network).await);
        let shop = |ports| Grant { who: Who::Group("tenant:shop".to_owned()), ports };
        let policy = Policy::new(open());
        let wide = vec![all_of("mail"), shop(vec![tcp(7000, 7000), tcp(7001, 7001)])];
        enforce(&policy, &[member(&caller, "shop"), party(&called, "mail", wide)]).await;
        for address in both(&called) {
            let to = (called.pid(), address);
            let (mut kept, mut cut) =
                (dial(caller.pid(), to, 7000).unwrap(), dial(caller.pid(), to, 7001).unwrap());
            assert!(kept.alive() && cut.alive());
            let wide = vec![all_of("mail"), shop(vec![tcp(7000, 7001)])];
            let narrow = vec![all_of("mail"), shop(vec![tcp(7000, 7000)])];
            enforce(&policy, &[party(&called, "mail", narrow)]).await;
            assert!(kept.alive() && !cut.alive());
            enforce(&policy, &[party(&called, "mail", wide)]).await;
            assert!(kept.alive());
        }
    });
}

#[test]
fn where_there_are_no_rules_yet_nothing_is_refused_before_all_parties_are_put() {
    on_a_host(|| async {
        let network = host().await;
        let (one, two) = (wired(&network).await, wired(&network).await);
        let mut call = dial(one.pid(), (two.pid(), two.address.into()), 7000).unwrap();
        let before = (generation(), sh("nft list ruleset"));
        let first = Policy::new(open());
        assert!(!first.begin().await.unwrap());
        assert_eq!((generation(), sh("nft list ruleset")), before, "it was only tried");
        enforce(&first, &[member(&one, "shop"), member(&two, "shop")]).await;
        assert!(call.alive(), "who may go on is not cut");
        assert!(Policy::new(open()).begin().await.unwrap(), "the next one goes on with it");
    });
}

#[test]
fn the_next_worker_changes_nothing() {
    on_a_host(|| async {
        let network = host().await;
        let (one, two) = (wired(&network).await, wired(&network).await);
        let parties = [member(&one, "shop"), member(&two, "mail")];
        enforce(&Policy::new(open()), &parties).await;
        let before = (generation(), sh("nft -a list ruleset"));
        let next = Policy::new(open());
        for party in parties.iter().chain(&parties) {
            next.put(&party.address.to_string(), party.clone());
        }
        assert_eq!(next.plan().await.unwrap(), Vec::<String>::new());
        next.apply().await.unwrap();
        next.settled().await;
        for _ in 0..3 {
            assert_eq!(next.check().await.unwrap(), 0);
        }
        enforce(&next, &parties).await;
        assert_eq!((generation(), sh("nft -a list ruleset")), before);
    });
}

#[test]
fn what_an_earlier_worker_knew_stays_until_all_is_settled() {
    on_a_host(|| async {
        let network = host().await;
        let (one, gone) = (wired(&network).await, wired(&network).await);
        enforce(&Policy::new(open()), &[member(&one, "shop"), member(&gone, "mail")]).await;
        let next = Policy::new(open());
        enforce(&next, &[member(&one, "shop")]).await;
        let there = || sh("nft list ruleset").contains(&format!("{} ", gone.address));
        std::thread::sleep(Duration::from_millis(2100));
        assert_eq!(next.check().await.unwrap(), 0);
        assert!(there());
        next.settled().await;
        assert!(!next.plan().await.unwrap().is_empty());
        let began = std::time::Instant::now();
        while there() {
            assert!(began.elapsed() < Duration::from_secs(4));
            next.check().await.unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert_eq!(next.check().await.unwrap(), 0);
        // As if the other had never been.
        let left = sh("nft list ruleset");
        sh("nft flush ruleset");
        enforce(&Policy::new(open()), &[member(&one, "shop")]).await;
        assert_eq!(sh("nft list ruleset"), left);
    });
}

#[test]
fn nothing_is_left_of_containers_that_are_gone() {
    on_a_host(|| async {
        let network = host().await;
        let (one, two) = (wired(&network).await, wired(&network).await);
        let policy = Policy::new(open());
        policy.apply().await.unwrap();
        let empty = sh("nft list ruleset");
        enforce(&policy, &[member(&one, "shop"), member(&two, "mail")]).await;
        assert_ne!(sh("nft list ruleset"), empty);
        for container in [&one, &two] {
            policy.remove(&container.address.to_string());
        }
        policy.apply().await.unwrap();
        assert_eq!(sh("nft list ruleset"), empty);
        policy.withdraw().await.unwrap();
        assert_eq!(sh("nft list ruleset"), "");
        policy.withdraw().await.unwrap();
    });
}

#[test]
fn of_two_records_with_one_address_the_newest_counts() {
    on_a_host(|| async {
        let network = host().await;
        let (one, two) = (wired(&network).await, wired(&network).await);
        let policy = Policy::new(open());
        enforce(&policy, &[member(&one, "shop"), member(&two, "mail")]).await;
        let to = (two.pid(), two.address.into());
        policy.put("newer", member(&two, "shop"));
        policy.apply().await.unwrap();
        assert_eq!(call_tcp(one.pid(), to, 7000), Outcome::Reached);
        policy.remove(&two.address.to_string());
        policy.apply().await.unwrap();
        assert_eq!(call_tcp(one.pid(), to, 7000), Outcome::Reached);
        policy.put("newest", member(&two, "mail"));
        policy.apply().await.unwrap();
        assert_eq!(call_tcp(one.pid(), to, 7000), Outcome::Refused);
        policy.remove("newest");
        policy.apply().await.unwrap();
        assert_eq!(call_tcp(one.pid(), to, 7000), Outcome::Reached);
    });
}

#[test]
fn fifty_at_once_share_transactions_and_all_are_in_force() {
    on_a_host(|| async {
        let policy = Arc::new(Policy::new(PolicySettings { pool6: None, ..open() }));
        policy.apply().await.unwrap();
        let before = generation();
        let tasks: Vec<_> = (1..=50_u8)
            .map(|last| {
                let policy = Arc::clone(&policy);
                tokio::spawn(async move {
                    let address = Ipv4Addr::new(10, 32, 9, last);
                    policy.put(&address.to_string(), of_tenant(address, "shop"));
                    policy.apply().await.unwrap();
                    let known = sh(&format!("nft list set inet {TABLE} known4"));
                    assert!(known.contains(&format!("{address}")), "{address}: {known}");
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert!(generation() - before <= 25, "{} transactions", generation() - before);
        assert_eq!(policy.plan().await.unwrap(), Vec::<String>::new());
    });
}

fn of_tenant(address: Ipv4Addr, tenant: &str) -> Party {
    Party {
        address,
        groups: BTreeSet::from([format!("tenant:{tenant}"), format!("app:/{tenant}/front")]),
        grants: vec![all_of(tenant)],
        aliases: Vec::new(),
    }
}

#[test]
fn one_change_sends_its_difference_and_nothing_else() {
    on_a_host(|| async {
        let policy = Policy::new(PolicySettings { pool6: None, ..open() });
        for last in 1..=250_u8 {
            let address = Ipv4Addr::new(10, 32, 0, last);
            policy.put(&address.to_string(), of_tenant(address, &format!("tenant{}", last / 10)));
        }
        policy.apply().await.unwrap();
        let one = Ipv4Addr::new(10, 40, 0, 1);
        policy.put("one more", of_tenant(one, "tenant7"));
        let seen = sent_during(async || policy.apply().await.unwrap()).await;
        let sent: Vec<&String> = seen.iter().filter(|line| !line.starts_with('#')).collect();
        assert!(
            sent.iter().all(|line| line.contains("add element") && line.contains("10.40.0.1")),
            "{sent:#?}"
        );
        assert_eq!(sent.len(), 3, "{sent:#?}");
    });
}

#[test]
fn a_hundred_thousand_containers_and_one_more() {
    on_a_host(|| async {
        let policy = Policy::new(PolicySettings { pool6: None, ..open() });
        let begin = Instant::now();
        for number in 0..100_000_u32 {
            let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 32, 0, 0)) + number);
            policy.put(&address.to_string(), of_tenant(address, &format!("tenant{}", number / 100)));
        }
        println!("put: {:?}", begin.elapsed());
        let timed = async |what: &str, policy: &Policy| {
            let begin = Instant::now();
            policy.apply().await.unwrap();
            println!("{what}: {:?}", begin.elapsed());
        };
        timed("first apply", &policy).await;
        let one = Ipv4Addr::new(10, 40, 0, 1);
        policy.put("one more", of_tenant(one, "tenant7"));
        let before = generation();
        timed("one more", &policy).await;
        assert_eq!(generation(), before + 1);
        policy.put("another", of_tenant(Ipv4Addr::new(10, 40, 0, 2), "tenant new"));
        timed("one of a new tenant", &policy).await;
        policy.remove("one more");
        timed("one less", &policy).await;
        let begin = Instant::now();
        assert_eq!(policy.check().await.unwrap(), 0);
        println!("check when nobody did anything: {:?}", begin.elapsed());
        sh("nft add table inet others");
        let begin = Instant::now();
        assert_eq!(policy.check().await.unwrap(), 0);
        println!("check when somebody did something: {:?}", begin.elapsed());
        let begin = Instant::now();
        assert_eq!(policy.plan().await.unwrap(), Vec::<String>::new());
        println!("plan: {:?}", begin.elapsed());
        assert!(try_sh(&format!("nft delete table inet {TABLE}")));
    });
}

/// What `nft monitor` shows meanwhile. Only for small tables: it keeps a copy of all that there is.
async fn sent_during(work: impl AsyncFnOnce()) -> Vec<String> {
    let monitor = Command::new("timeout").args(["10", "nft", "monitor"]).stdout(Stdio::piped()).spawn();
    std::thread::sleep(Duration::from_millis(1000));
    work().await;
    std::thread::sleep(Duration::from_millis(500));
    let mut monitor = monitor.unwrap();
    // It passes the signal on.
    sh(&format!("kill {}", monitor.id()));
    let mut output = String::new();
    monitor.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    monitor.wait().unwrap();
    output.lines().map(str::to_owned).collect()
}
