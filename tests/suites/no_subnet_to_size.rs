//! Addresses without a plan: tenants grow in one pool, and who wants a subnet of its own as Weave had them gets one; on real
//! engines of several hosts.

use std::net::Ipv4Addr;
use std::time::Duration;

use selvedge_tests::fleet::{Fleet, Plan, StoreKind};
use selvedge_tests::growth::{self, Growth};
use selvedge_tests::reach::{Place, what_reaches};
use selvedge_tests::wait::until_true;

const SOON: Duration = Duration::from_secs(5);

#[test]
fn a_subnet_of_weave_is_shared_by_hosts_and_keeps_its_containers_apart() {
    let options = ["--policy", "tenant"].map(str::to_owned).to_vec();
    let fleet = Fleet::new(&Plan { hosts: 2, store: Some(StoreKind::Etcd), options, ..Plan::default() });
    let [a, b] = &fleet.members[..] else { panic!("two hosts") };
    let net = ["-e", "WEAVE_CIDR=net:10.40.0.0/24"];
    let (one, one_at) = a.serving("one", &net);
    let (two, two_at) = b.serving("two", &net);
    let (fixed, fixed_at) = b.serving("fixed", &["-e", "WEAVE_CIDR=ip:10.40.0.200/24"]);
    let (other, other_at) = a.serving("other", &["-e", "WEAVE_CIDR=net:10.41.0.0/24"]);
    let (usual, usual_at) = a.serving("usual", &[]);
    let within = |address: Ipv4Addr, net: &str| net.parse::<ipnet::Ipv4Net>().unwrap().contains(&address);
    assert!(within(one_at, "10.40.0.0/24") && within(two_at, "10.40.0.0/24") && one_at != two_at);
    assert!(within(other_at, "10.41.0.0/24") && !within(usual_at, "10.40.0.0/15"), "{other_at} {usual_at}");
    assert_eq!(fixed_at, Ipv4Addr::new(10, 40, 0, 200));
    let shown = a.selvedge.shown("one").expect("it is there");
    assert_eq!(shown["tenant"], "net-10.40.0.0-24");
    let inside = [(one, one_at), (two, two_at), (fixed, fixed_at)];
    for (place, _) in inside {
        for (_, to) in inside {
            until_true(&format!("{to} is reached"), SOON, || what_reaches(place, to.into()) == "58iu");
        }
        assert_eq!([other_at, usual_at].map(|to| what_reaches(place, to.into())), ["-", "-"]);
    }
    for place in [other, usual] {
        assert_eq!([one_at, two_at].map(|to| what_reaches(place, to.into())), ["-", "-"]);
    }
    // Whoever comes after us goes on with the same small block.
    a.selvedge.kill_worker();
    let (_, third_at) = a.serving("third", &net);
    let small = |address: Ipv4Addr| ipnet::Ipv4Net::new(address, 28).unwrap().trunc();
    assert_eq!((small(third_at), third_at != one_at), (small(one_at), true));
    // The host's own address stays what it was, and the others know it.
    assert_eq!(what_reaches(Place { pid: a.selvedge.keeper() }, two_at.into()), "58iu");
    for member in [a, b] {
        assert_eq!(member.selvedge.ask(&["check", "--network"]).code, 0);
    }
    let docker = a.selvedge.docker();
    for (value, expected) in [
        ("net:192.168.7.0/24", "not a part of the pool"),
        ("net:10.40.0.0/31", "/30 or larger"),
        ("net:10.47.0.0/24", "virtual addresses"),
    ] {
        let output = docker.run(&["create", "-e", &format!("WEAVE_CIDR={value}"), "busybox", "true"]);
        assert!(output.code == 1 && output.stderr.contains(expected), "{value}: {}", output.stderr);
    }
}

#[test]
fn a_small_subnet_is_full_when_it_is_full() {
    let lab = selvedge_tests::Lab::new();
    let docker = lab.selvedge.docker();
    let create = |name: &str| {
        docker.run(&["create", "--name", name, "-e", "WEAVE_CIDR=net:10.40.0.8/29", "busybox", "true"])
    };
    for nth in 0..6 {
        create(&format!("c{nth}")).ok();
    }
    let address = |nth: u32| {
        let shown = lab.selvedge.shown(&format!("c{nth}")).expect("it is there");
        shown["address"].as_str().unwrap_or_default().parse::<Ipv4Addr>().expect("an address").octets()[3]
    };
    let addresses: std::collections::BTreeSet<u8> = (0..6).map(address).collect();
    assert_eq!(addresses, (9..=14).collect());
    let full = create("c6");
    assert!(full.code == 1 && full.stderr.contains("10.40.0.8/29"), "{}", full.stderr);
    docker.remove(&["c3"]);
    lab.selvedge.kill_worker();
    create("c7").ok();
    assert_eq!(docker.run(&["create", "busybox", "true"]).code, 0, "the others have room");
}

#[test]
fn fifty_tenants_grow_without_a_setting() {
    const TENANTS: usize = 50;
    let options = ["--policy", "tenant"].map(str::to_owned).to_vec();
    let fleet = Fleet::new(&Plan { hosts: 3, options, ..Plan::default() });
    let growth = Growth { tenants: TENANTS, running: 2 };
    for (from, to) in [(0, 1), (1, 4), (4, 20)] {
        growth.grow(&fleet, from..to).expect("each gets what it needs");
        assert_eq!(growth::addresses(&fleet).len(), TENANTS * to, "an address of its own for each");
    }
    // A thousand: more than the first block of each host holds.
    assert!(growth::blocks(&fleet) > 3, "{} blocks", growth::blocks(&fleet));
    growth.kept_apart(&fleet).expect("each reaches its own, and nobody else's");
}
