//! What was refused, and by what: counted by the kernel with protocol, port and rule, through upgrades and back.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use selvedge_netsetup::policy::{Call, Policy, PolicySettings, Refusal, Rule, Verdict};

use super::bench::{
    Outcome, TABLE, all_of, both, call_tcp, call_udp, connect, enforce, here, host, member, open, party,
    ping, tcp, wired,
};
use crate::lab::{Container, GATEWAY, on_a_host, sh};

fn refusal(from: IpAddr, to: IpAddr, protocol: &str, port: Option<u16>, rule: Rule) -> Refusal {
    Refusal { from, to, call: Some(Call { protocol: protocol.to_owned(), port, rule }) }
}

/// TCP, UDP and ICMP.
fn call(from: &Container, (pid, to): (u32, IpAddr), port: u16) {
    assert_eq!(call_tcp(from.pid(), (pid, to), port), Outcome::Refused);
    assert_eq!(call_udp(from.pid(), (pid, to), port), Outcome::Refused);
    assert!(!ping(from, to));
}

async fn counted(policy: &Policy) -> HashMap<Refusal, u64> {
    policy.refused().await.unwrap()
}

#[test]
fn protocol_port_and_rule_are_counted_in_both_families() {
    on_a_host(|| async {
        let network = host().await;
        let (one, other) = (wired(&network).await, wired(&network).await);
        let policy = Policy::new(open());
        let grants = vec![
            all_of("mail"),
            selvedge_netsetup::policy::Grant { ports: vec![tcp(80, 80)], ..all_of("shop") },
        ];
        enforce(&policy, &[member(&one, "shop"), party(&other, "mail", grants)]).await;
        for (from, to) in both(&one).into_iter().zip(both(&other)) {
            call(&one, (other.pid(), to), 7000);
            assert_eq!(call_tcp(one.pid(), (other.pid(), to), 80), Outcome::Reached);
            let icmp = if to.is_ipv4() { "icmp" } else { "icmp6" };
            let seen = counted(&policy).await;
            for (protocol, port) in [("tcp", Some(7000)), ("udp", Some(7000)), (icmp, None)] {
                assert_eq!(
                    seen.get(&refusal(from, to, protocol, port, Rule::Grants)),
                    Some(&1),
                    "{protocol}: {seen:?}"
                );
            }
        }
        assert_eq!(counted(&policy).await.len(), 6, "and nothing else");
    });
}

#[test]
fn each_rule_is_named() {
    on_a_host(|| async {
        let network = host().await;
        let (one, other) = (wired(&network).await, wired(&network).await);
        let (a, b): (IpAddr, IpAddr) = (one.address.into(), other.address.into());
        let closed =
            PolicySettings { host: Verdict::Deny, out: Verdict::Deny, names: Verdict::Deny, ..open() };
        let policy = Policy::new(closed);
        enforce(&policy, &[member(&one, "shop"), member(&other, "mail")]).await;
        let gateway: IpAddr = GATEWAY.into();
        let unknown: IpAddr = Ipv4Addr::new(10, 32, 200, 1).into();
        let outside: IpAddr = Ipv4Addr::new(192, 0, 2, 9).into();
        sh(
            "ip link add out0 type veth peer name out1; ip link set out0 up; ip link set out1 up; ip route add 192.0.2.0/24 dev out0",
        );
        sh("ip route add 10.32.200.0/24 dev out0");
        one.sh("ip route replace 192.0.2.0/24 via 169.254.1.1");
        for (to, port) in [(b, 81), (gateway, 53), (gateway, 7000), (unknown, 82), (outside, 83)] {
            assert!(connect(one.pid(), (to, port).into()).is_err(), "{to} {port}");
        }
        assert!(connect(here(), (a, 84).into()).is_err());
        let seen = counted(&policy).await;
        let named = |from: Option<IpAddr>, to, port, rule| {
            let is = |(refusal, _): &(&Refusal, &u64)| {
                let call = refusal.call.as_ref();
                from.is_none_or(|from| refusal.from == from)
                    && refusal.to == to
                    && call.is_some_and(|call| (call.port, call.rule) == (Some(port), rule))
            };
            assert!(seen.iter().any(|one| is(&one)), "{to} {port} {rule:?}: {seen:?}");
        };
        named(Some(a), b, 81, Rule::Grants);
        named(Some(a), gateway, 53, Rule::Names);
        named(Some(a), gateway, 7000, Rule::Host);
        named(Some(a), unknown, 82, Rule::Unknown);
        named(Some(a), outside, 83, Rule::Out);
        named(None, a, 84, Rule::Grants);
    });
}

/// A table as versions had it that counted pairs only: what they refused, and their way to refuse.
fn as_earlier(one: &Container, other: &Container) {
    let pair = format!("{} . {}", one.address, other.address);
    let counting = "flags dynamic, timeout; timeout 1d; size 16384; counter;";
    sh(&format!(
        "nft 'add table inet {TABLE}; add set inet {TABLE} refused4 {{ type ipv4_addr . ipv4_addr; {counting} }}; \
         add element inet {TABLE} refused4 {{ {pair} counter packets 5 bytes 300 timeout 1d }}; \
         add chain inet {TABLE} refused; \
         add rule inet {TABLE} refused update @refused4 {{ ct original ip saddr . ct reply ip saddr }} comment \"0\"; \
         add rule inet {TABLE} refused reject comment \"1\"'"
    ));
}

#[test]
fn what_an_earlier_worker_counted_stays_and_it_can_go_on_counting() {
    on_a_host(|| async {
        let network = host().await;
        let (one, other) = (wired(&network).await, wired(&network).await);
        as_earlier(&one, &other);
        let policy = Policy::new(open());
        policy.put("one", member(&one, "shop"));
        policy.put("other", member(&other, "mail"));
        assert!(policy.begin().await.unwrap());
        let (from, to): (IpAddr, IpAddr) = (one.address.into(), other.address.into());
        let pair = Refusal { from, to, call: None };
        assert_eq!(counted(&policy).await, HashMap::from([(pair.clone(), 5)]));
        assert_eq!(call_tcp(one.pid(), (other.pid(), to), 81), Outcome::Refused);
        let seen = counted(&policy).await;
        assert_eq!(seen.get(&refusal(from, to, "tcp", Some(81), Rule::Grants)), Some(&1));
        assert_eq!(seen.get(&pair), Some(&5), "{seen:?}");
        // What the earlier one reads: the pairs, with all packets.
        let text = sh(&format!("nft list set inet {TABLE} refused4"));
        assert!(text.contains("counter packets 6"), "{text}");
    });
}

#[test]
fn a_port_scan_hides_no_other_caller() {
    on_a_host(|| async {
        let network = host().await;
        let (one, two, other) = (wired(&network).await, wired(&network).await, wired(&network).await);
        let policy = Policy::new(open());
        enforce(&policy, &[member(&one, "shop"), member(&two, "shop"), member(&other, "mail")]).await;
        // As many as the kernel remembers.
        let element = |port: usize| format!("{} . {} . tcp . {port} . 1", one.address, other.address);
        let elements: Vec<String> = (1..=16_384).map(element).collect();
        let file = std::env::temp_dir().join(format!("selvedge-ports-{}", std::process::id()));
        std::fs::write(&file, format!("add element inet {TABLE} denied4 {{ {} }}\n", elements.join(", ")))
            .unwrap();
        sh(&format!("nft -f {}", file.display()));
        std::fs::remove_file(&file).unwrap();
        let to: IpAddr = other.address.into();
        assert_eq!(call_tcp(two.pid(), (other.pid(), to), 81), Outcome::Refused, "it refuses all the same");
        let pair = Refusal { from: two.address.into(), to, call: None };
        assert_eq!(counted(&policy).await.get(&pair), Some(&1));
    });
}

#[test]
fn who_had_an_address_is_written_down_and_forgotten_with_what_was_refused() {
    on_a_host(|| async {
        let network = host().await;
        let (one, other) = (wired(&network).await, wired(&network).await);
        let policy = Policy::new(open());
        enforce(&policy, &[member(&one, "shop"), member(&other, "mail")]).await;
        policy.check().await.unwrap();
        for (to, near) in both(&other).into_iter().zip(both(&one)) {
            call(&one, (other.pid(), to), 81);
            assert_eq!(call_tcp(other.pid(), (one.pid(), near), 82), Outcome::Refused);
        }
        assert!(policy.remembered().await.unwrap().is_empty());
        policy.remember(vec![(one.address, "shop/we\"b".to_owned())]).await.unwrap();
        policy.remember(vec![(one.address, "shop/web".to_owned())]).await.unwrap();
        let next = Policy::new(open());
        let known = HashMap::from([(one.address.into(), "shop/web".to_owned())]);
        assert_eq!(next.remembered().await.unwrap(), known, "a later worker reads it");
        assert_eq!(policy.check().await.unwrap(), 0, "a change of ours is no damage");
        policy.forget(&both(&one).into()).await.unwrap();
        assert_eq!(
            (counted(&policy).await, policy.remembered().await.unwrap()),
            (HashMap::new(), HashMap::new())
        );
    });
}
