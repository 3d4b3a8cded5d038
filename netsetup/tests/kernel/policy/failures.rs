//! What refuses is told, and nothing noted is lost.

use selvedge_netsetup::Error;
use selvedge_netsetup::policy::Policy;

use super::bench::{TABLE, enforce, host, member, open, wired};
use crate::lab::{on_a_host, sh};

#[test]
fn a_refusal_is_told_in_nfts_words_and_what_was_noted_waits() {
    on_a_host(|| async {
        let network = host().await;
        let one = wired(&network).await;
        // A set of our name that is not ours.
        sh(&format!("nft 'add table inet {TABLE}; add set inet {TABLE} known4 {{ type mark; }}'"));
        let policy = Policy::new(open());
        policy.put("one", member(&one, "shop"));
        let error = policy.apply().await.unwrap_err();
        assert!(matches!(&error, Error::Nft { message, .. } if message.contains("Error")), "{error}");
        assert!(policy.apply().await.is_err());
        sh("nft flush ruleset");
        policy.apply().await.unwrap();
        assert_eq!(policy.plan().await.unwrap(), Vec::<String>::new());
        assert!(sh("nft list ruleset").contains(&one.address.to_string()));
    });
}

#[test]
fn a_refused_change_is_made_by_the_next_one() {
    on_a_host(|| async {
        let network = host().await;
        let (one, two) = (wired(&network).await, wired(&network).await);
        let policy = Policy::new(open());
        enforce(&policy, &[member(&one, "shop")]).await;
        let whole = sh("nft list ruleset");
        sh(&format!(
            "nft 'delete table inet {TABLE}; add table inet {TABLE}; add set inet {TABLE} known4 {{ type mark; }}'"
        ));
        policy.put("two", member(&two, "mail"));
        policy.remove(&one.address.to_string());
        assert!(policy.apply().await.is_err());
        assert!(policy.check().await.is_err());
        sh("nft flush ruleset");
        policy.put("one", member(&one, "shop"));
        policy.remove("two");
        policy.apply().await.unwrap();
        assert_eq!(sh("nft list ruleset"), whole);
    });
}

#[test]
fn an_apply_that_nobody_waits_for_any_more_loses_nothing() {
    on_a_host(|| async {
        let network = host().await;
        let one = wired(&network).await;
        let policy = Policy::new(open());
        policy.apply().await.unwrap();
        let empty = sh("nft list ruleset");
        for round in 0..20_u64 {
            policy.put("one", member(&one, "shop"));
            let patience = std::time::Duration::from_micros(300 * round);
            let _late = tokio::time::timeout(patience, policy.apply()).await;
            policy.remove("one");
            policy.apply().await.unwrap();
            assert_eq!(sh("nft list ruleset"), empty, "round {round}");
        }
    });
}
