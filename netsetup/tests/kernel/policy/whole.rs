//! The rules between parties, in the real kernel: what is sent, what stays, what is repaired, and what passes.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use selvedge_netsetup::policy::{Grant, Party, Policy, PolicySettings, Ports, Protocol, Verdict, Who};

use crate::lab::{Container, GATEWAY, on_a_host, ready_network, sh, try_sh};

const GROUP: u32 = 7001;

fn settings() -> PolicySettings {
    PolicySettings {
        group: GROUP,
        pool: "10.32.0.0/12".parse().unwrap(),
        pool6: None,
        dns: SocketAddr::from((GATEWAY, 53)),
        host: Verdict::Allow,
        published: Verdict::Allow,
        out: Verdict::Allow,
        names: Verdict::Allow,
    }
}

fn party(address: Ipv4Addr, tenant: &str, more: &[Grant]) -> Party {
    let own = Grant { who: Who::Group(tenant.to_owned()), ports: vec![] };
    Party {
        address,
        groups: BTreeSet::from([tenant.to_owned(), format!("name:{address}")]),
        grants: [&[own], more].concat(),
        aliases: vec![],
    }
}

fn grant(who: Who, ports: &[(u16, u16)]) -> Grant {
    let tcp = |(first, last): &(u16, u16)| Ports { protocol: Protocol::Tcp, first: *first, last: *last };
    Grant { who, ports: ports.iter().map(tcp).collect() }
}

fn table() -> String {
    sh(&format!("nft list table inet selvedge_{GROUP:08x}"))
}

fn generation() -> String {
    // The kernel's own word, by another way than ours.
    sh("nft -j list ruleset | md5sum") + &sh("nft list ruleset | wc -l")
}

/// Two containers with wires.
async fn pair() -> (Container, Container) {
    let network = ready_network().await;
    let (one, other) = (Container::start(), Container::start());
    for container in [&one, &other] {
        network.connect(&container.spec()).await.unwrap();
        network.release(&container.spec()).await.unwrap();
    }
    (one, other)
}

fn pings(from: &Container, to: Ipv4Addr) -> bool {
    from.try_sh(&format!("busybox ping -c 1 -W 1 {to}"))
}

/// Says that packets of the two may pass or not.
async fn same_tenant(policy: &Policy, one: &Container, other: &Container, same: bool) {
    policy.put("one", party(one.address, "a", &[]));
    policy.put("other", party(other.address, if same { "a" } else { "b" }, &[]));
    policy.apply().await.unwrap();
}

#[test]
fn parties_of_one_group_reach_each_other_and_others_do_not() {
    on_a_host(|| async {
        let (one, other) = pair().await;
        assert!(pings(&one, other.address), "without a policy");
        let policy = Policy::new(settings());
        same_tenant(&policy, &one, &other, false).await;
        assert!(!pings(&one, other.address) && !pings(&other, one.address));
        same_tenant(&policy, &one, &other, true).await;
        assert!(pings(&one, other.address) && pings(&other, one.address));
        policy.put(
            "other",
            party(other.address, "b", &[grant(Who::Group(format!("name:{}", one.address)), &[])]),
        );
        policy.apply().await.unwrap();
        assert!(pings(&one, other.address) && !pings(&other, one.address), "one way, by its name");
        let refused = policy.refused().await.unwrap();
        let way = |from: Ipv4Addr, to: Ipv4Addr| {
            refused.iter().any(|one| (one.from, one.to) == (from.into(), to.into()) && one.packets > 0)
        };
        assert!(way(other.address, one.address), "{refused:?}");
        policy.remove("other");
        policy.apply().await.unwrap();
        assert!(!pings(&one, other.address), "an address that is nobody's");
        policy.withdraw().await.unwrap();
        assert!(pings(&one, other.address), "without a policy");
        assert!(!try_sh(&format!("nft list table inet selvedge_{GROUP:08x}")));
    });
}

#[test]
fn a_second_worker_changes_nothing_that_is_right_and_nothing_that_it_does_not_know_yet() {
    on_a_host(|| async {
        let of = |number: u8| Ipv4Addr::new(10, 32, 1, number);
        let old = Policy::new(settings());
        for number in 1..50 {
            let tenant = format!("t{}", number % 7);
            let more =
                grant(Who::Network("10.0.0.0/8".parse().unwrap()), &[(80, 80), (8000, 8100), (8050, 8200)]);
            old.put(
                &number.to_string(),
                party(of(number), &tenant, if number % 5 == 0 { std::slice::from_ref(&more) } else { &[] }),
            );
        }
        old.set_hosts(&BTreeSet::from([of(200)]));
        old.apply().await.unwrap();
        let before = (generation(), table());
        let new = Policy::new(settings());
        new.apply().await.unwrap();
        new.check().await.unwrap();
        assert_eq!((generation(), table()), before, "a worker that knows nothing yet");
        for number in 1..50 {
            let tenant = format!("t{}", number % 7);
            let more =
                grant(Who::Network("10.0.0.0/8".parse().unwrap()), &[(80, 80), (8000, 8100), (8050, 8200)]);
            new.put(
                &number.to_string(),
                party(of(number), &tenant, if number % 5 == 0 { std::slice::from_ref(&more) } else { &[] }),
            );
        }
        new.set_hosts(&BTreeSet::from([of(200)]));
        new.apply().await.unwrap();
        assert_eq!((generation(), table()), before, "one that knows the same");
        assert_eq!(new.plan().await.unwrap(), Vec::<String>::new());
        // What the old one knew and the new one does not goes when it has been strange for a while.
        old.put("late", party(of(60), "late", &[]));
        old.apply().await.unwrap();
        new.settled().await;
        new.check().await.unwrap();
        assert!(table().contains("10.32.1.60"), "it may be news");
        let end = Instant::now() + Duration::from_secs(5);
        while table() != before.1 {
            assert!(Instant::now() < end, "it was not");
            tokio::time::sleep(Duration::from_millis(200)).await;
            new.check().await.unwrap();
        }
        new.remove("7");
        new.apply().await.unwrap();
        assert!(!table().contains("10.32.1.7 "));
    });
}

#[test]
fn whatever_somebody_changes_is_right_again() {
    on_a_host(|| async {
        let policy = Policy::new(settings());
        for number in 1..20 {
            policy.put(
                &number.to_string(),
                party(Ipv4Addr::new(10, 32, 1, number), &format!("t{}", number % 3), &[]),
            );
        }
        policy.apply().await.unwrap();
        policy.settled().await;
        policy.check().await.unwrap();
        let (right, name) = (table(), format!("inet selvedge_{GROUP:08x}"));
        let rule = format!("nft -a list chain {name} forward | sed -n 's/.*vmap @called4.*handle //p'");
        for damage in [
            "nft flush ruleset".to_owned(),
            format!("nft delete table {name}"),
            format!("nft delete rule {name} forward handle $({rule})"),
            format!("nft add rule {name} forward accept"),
            format!("nft insert rule {name} refused accept"),
            format!("nft flush chain {name} strangers"),
            format!("nft delete element {name} known4 {{ 10.32.1.5 }}"),
            format!("nft flush set {name} known4"),
            format!("nft flush map {name} called4"),
            format!("nft add element {name} hosts4 {{ 10.32.1.5 }}"),
        ] {
            sh(&damage);
            assert_ne!(table_or_none(), right, "{damage}");
            // Elements are not read more often than pays.
            let end = Instant::now() + Duration::from_secs(2);
            while table_or_none() != right && Instant::now() < end {
                policy.check().await.unwrap();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            assert_eq!(table_or_none(), right, "{damage}");
            assert_eq!(policy.check().await.unwrap(), 0, "{damage}");
        }
        // A change that meets a damage that nobody has seen yet.
        sh("nft flush ruleset");
        policy.put("20", party(Ipv4Addr::new(10, 32, 1, 20), "t1", &[]));
        policy.apply().await.unwrap();
        assert!(table().contains("10.32.1.20"));
        // Foreign changes elsewhere are no business of ours.
        sh("nft add table inet other");
        assert_eq!(policy.check().await.unwrap(), 0);
    });
}

fn table_or_none() -> String {
    let listed = std::process::Command::new("nft")
        .args(["list", "table", "inet", &format!("selvedge_{GROUP:08x}")])
        .output()
        .unwrap();
    String::from_utf8(listed.stdout).unwrap()
}

#[test]
fn what_no_rule_speaks_of_is_as_the_settings_say() {
    on_a_host(|| async {
        let (one, other) = pair().await;
        let from_host = |to: Ipv4Addr| try_sh(&format!("busybox ping -c 1 -W 1 {to}"));
        let to_host = || one.try_sh(&format!("busybox ping -c 1 -W 1 {GATEWAY}"));
        for (host, expected) in [(Verdict::Allow, true), (Verdict::Deny, false)] {
            let policy = Policy::new(PolicySettings { host, ..settings() });
            same_tenant(&policy, &one, &other, true).await;
            assert_eq!((from_host(one.address), to_host()), (expected, expected), "{host:?}");
            assert!(pings(&one, other.address));
        }
        // A way out, to an address of this host's that is behind another one.
        sh(
            "ip netns add svp-out; ip link add out type veth peer name in netns svp-out; ip addr add 192.0.2.1/24 dev out; \
            ip link set out up; ip -n svp-out link set in up; ip -n svp-out addr add 192.0.2.2/24 dev in; \
            ip -n svp-out route add 10.32.0.0/12 via 192.0.2.1",
        );
        one.sh(&format!("ip route add 192.0.2.0/24 via {GATEWAY} dev selvedge0 onlink"));
        let out: IpAddr = "192.0.2.2".parse().unwrap();
        for (verdict, expected) in [(Verdict::Allow, true), (Verdict::Deny, false)] {
            let policy = Policy::new(PolicySettings { out: verdict, ..settings() });
            same_tenant(&policy, &one, &other, true).await;
            assert_eq!(one.try_sh(&format!("busybox ping -c 1 -W 1 {out}")), expected, "{verdict:?}");
        }
        let from_out = || try_sh(&format!("ip netns exec svp-out busybox ping -c 1 -W 1 {}", one.address));
        let policy = Policy::new(settings());
        same_tenant(&policy, &one, &other, true).await;
        assert!(!from_out(), "a stranger");
        policy.put(
            "one",
            party(one.address, "a", &[grant(Who::Network("192.0.2.0/24".parse().unwrap()), &[])]),
        );
        policy.apply().await.unwrap();
        assert!(from_out(), "whom a rule speaks of");
        sh("ip netns del svp-out");
    });
}

#[test]
fn many_at_once_are_in_force_when_they_return() {
    on_a_host(|| async {
        let policy = std::sync::Arc::new(Policy::new(settings()));
        let mut tasks = tokio::task::JoinSet::new();
        for number in 1..=50 {
            let policy = std::sync::Arc::clone(&policy);
            tasks.spawn(async move {
                let address = Ipv4Addr::new(10, 32, 2, number);
                policy.put(&number.to_string(), party(address, &format!("t{number}"), &[]));
                policy.apply().await.unwrap();
                let set = format!("nft get element inet selvedge_{GROUP:08x} known4 {{ {address} }}");
                assert!(try_sh(&set), "{address}");
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        for number in 1..=50 {
            policy.remove(&number.to_string());
        }
        policy.apply().await.unwrap();
        assert!(!table().contains("10.32.2."), "nothing is left of them");
        assert!(!table().contains("set g_"), "nor of their groups");
    });
}

#[test]
fn a_thousand_tenants_are_told_at_once_and_one_more_costs_little() {
    on_a_host(|| async {
        let policy = Policy::new(settings());
        let of = |number: u32| Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 33, 0, 0)) + number);
        for number in 0..100_000 {
            policy.put(&number.to_string(), party(of(number), &format!("tenant:t{}", number / 100), &[]));
        }
        let began = Instant::now();
        policy.apply().await.unwrap();
        println!("100,000 containers of 1,000 tenants: in force after {:?}", began.elapsed());
        let began = Instant::now();
        for number in 0..10 {
            policy.put(&format!("more {number}"), party(of(100_000 + number), "tenant:t5", &[]));
            policy.apply().await.unwrap();
        }
        println!("one more: {:?}", began.elapsed() / 10);
        let began = Instant::now();
        let next = Policy::new(settings());
        next.apply().await.unwrap();
        println!("read back by the next worker: {:?}", began.elapsed());
    });
}
