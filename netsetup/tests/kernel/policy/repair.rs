//! What others do to the table is put right.

use std::time::Duration;

use selvedge_netsetup::policy::{Party, Policy};

use super::bench::{Outcome, TABLE, call_tcp, enforce, generation, host, member, open, wired};
use crate::lab::{Container, on_a_host, sh};

struct Scene {
    one: Container,
    two: Container,
    other: Container,
    policy: Policy,
}

async fn scene() -> Scene {
    let network = host().await;
    let (one, two, other) = (wired(&network).await, wired(&network).await, wired(&network).await);
    let policy = Policy::new(open());
    let parties: [Party; 3] = [member(&one, "shop"), member(&two, "shop"), member(&other, "mail")];
    enforce(&policy, &parties).await;
    policy.settled().await;
    Scene { one, two, other, policy }
}

impl Scene {
    /// Whether checks make so many things right. The table is not read for more than a part of the time.
    async fn repaired(&self, things: u64) -> bool {
        let mut repaired = 0;
        for _ in 0..100 {
            repaired += self.policy.check().await.unwrap();
            if repaired >= things {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        false
    }

    fn right(&self) -> bool {
        let reach =
            |from: &Container, to: &Container| call_tcp(from.pid(), (to.pid(), to.address.into()), 7000);
        reach(&self.one, &self.two) == Outcome::Reached && reach(&self.one, &self.other) == Outcome::Refused
    }
}

fn listing() -> String {
    sh("nft list ruleset")
}

#[test]
fn damage_is_repaired_within_one_check() {
    on_a_host(|| async {
        let scene = scene().await;
        let whole = listing();
        let (one, two) = (scene.one.address, scene.two.address);
        let first_rule =
            format!("nft -a list chain inet {TABLE} forward | sed -n 's/.*vmap @called4.*handle //p'");
        let set = "$(nft list sets inet | sed -n 's/.*set \\(g_[0-9a-f]*_4\\) .*/\\1/p' | head -n 1)";
        let damages = [
            "nft flush ruleset".to_owned(),
            format!("nft delete table inet {TABLE}"),
            format!("nft delete rule inet {TABLE} forward handle $({first_rule})"),
            format!("nft replace rule inet {TABLE} forward handle $({first_rule}) accept"),
            format!("nft insert rule inet {TABLE} forward accept"),
            format!("nft flush chain inet {TABLE} refused"),
            format!("nft delete element inet {TABLE} called4 {{ {two} }}"),
            format!("nft delete element inet {TABLE} known4 {{ {one} }}"),
            format!("nft flush set inet {TABLE} known4"),
            format!("nft flush set inet {TABLE} {set}"),
            format!("nft 'add table inet {TABLE} {{ flags dormant; }}'"),
            format!(
                "nft 'delete element inet {TABLE} called4 {{ {two} }}; add element inet {TABLE} called4 {{ {two} : accept }}'"
            ),
            format!("nft 'chain inet {TABLE} forward {{ policy drop; }}'"),
        ];
        for damage in damages {
            sh(&damage);
            assert!(!scene.policy.plan().await.unwrap().is_empty(), "{damage} is not noticed");
            assert!(scene.repaired(1).await, "{damage}");
            assert!(scene.right(), "after {damage}");
            assert_eq!(sorted(&listing()), sorted(&whole), "after {damage}");
            let before = generation();
            assert_eq!(scene.policy.check().await.unwrap(), 0, "after {damage}");
            assert_eq!(generation(), before);
        }
    });
}

// What is made anew stands elsewhere in the listing, and the counters count.
fn sorted(listing: &str) -> Vec<String> {
    let mut lines: Vec<String> = listing.lines().map(|line| line.trim().to_owned()).collect();
    lines.retain(|line| !line.contains("expires"));
    lines.sort();
    lines
}

#[test]
fn what_others_add_goes_after_a_while() {
    on_a_host(|| async {
        let scene = scene().await;
        let whole = listing();
        sh(&format!("nft add element inet {TABLE} known4 {{ 10.33.0.1 }}"));
        sh(&format!("nft add element inet {TABLE} called4 {{ 10.33.0.1 : goto strangers }}"));
        sh(&format!("nft add set inet {TABLE} theirs '{{ type mark; }}'"));
        sh(&format!("nft add chain inet {TABLE} theirs"));
        assert_eq!(scene.policy.check().await.unwrap(), 0);
        assert!(scene.repaired(4).await);
        assert_eq!(sorted(&listing()), sorted(&whole));
    });
}

#[test]
fn a_change_after_damage_repairs_it_as_well() {
    on_a_host(|| async {
        let scene = scene().await;
        sh("nft flush ruleset");
        let moved = member(&scene.other, "bank");
        enforce(&scene.policy, &[moved]).await;
        assert!(scene.right());
    });
}

#[test]
fn a_connection_survives_a_flushed_ruleset() {
    on_a_host(|| async {
        let scene = scene().await;
        let to = (scene.two.pid(), scene.two.address.into());
        let mut call = super::bench::dial(scene.one.pid(), to, 7000).unwrap();
        assert!(call.alive());
        sh("nft flush ruleset");
        scene.policy.check().await.unwrap();
        assert!(call.alive());
    });
}
