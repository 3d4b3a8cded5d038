//! Names of one host, as the others see them.

use std::time::Duration;

use selvedge_cluster::handle;
use selvedge_cluster::key::{Key, write_record};
use selvedge_cluster::store::Servers;
use selvedge_registry::name::Name;
use selvedge_registry::record::Record;

use crate::lab::{Lab, Wanted, throughout, until};
use crate::with_any_registry;

with_any_registry!(
    a_container_is_known_everywhere_and_gone_everywhere,
    a_change_of_names_leaves_no_gap,
    whoever_waits_is_told_when_the_registry_has_it,
    what_a_worker_left_behind_is_taken_out_once_all_is_seen,
    garbage_and_foreign_keys_harm_nobody,
    a_registry_that_is_emptied_is_filled_anew,
);

async fn a_container_is_known_everywhere_and_gone_everywhere(lab: Lab) {
    let (a, b) = (lab.host("a").await, lab.host("b").await);
    a.publish("aaaaaaaaaaaa1111", "10.32.1.5", &["web.shop", "web1"]);
    assert!(a.knows("web1", "10.32.1.5"), "at home it is known at once");
    until("b knows it", || b.knows("web.shop", "10.32.1.5") && b.knows("web1", "10.32.1.5")).await;
    b.publish("bbbbbbbbbbbb2222", "10.32.2.5", &["web.shop"]);
    until("both are answered", || a.resolve("web.shop").len() == 2).await;
    let late = lab.host("late").await;
    until("who comes later knows all", || late.resolve("web.shop").len() == 2).await;
    a.withdraw("aaaaaaaaaaaa1111");
    until("it is gone", || b.knows("web.shop", "10.32.2.5") && b.resolve("web1").is_empty()).await;
}

async fn a_change_of_names_leaves_no_gap(lab: Lab) {
    let (a, b) = (lab.host("a").await, lab.host("b").await);
    a.publish("aaaaaaaaaaaa1111", "10.32.1.5", &["db", "one"]);
    until("b knows it", || b.knows("db", "10.32.1.5")).await;
    for round in 0..20 {
        a.publish("aaaaaaaaaaaa1111", "10.32.1.5", &["db", &format!("r{round}")]);
        throughout(Duration::from_millis(20), "db is answered", || b.knows("db", "10.32.1.5")).await;
    }
    until("the last is known", || b.knows("r19", "10.32.1.5")).await;
    until("the others are gone", || (0..19).all(|round| b.resolve(&format!("r{round}")).is_empty())).await;
    assert!(b.knows("db", "10.32.1.5"));
}

async fn whoever_waits_is_told_when_the_registry_has_it(lab: Lab) {
    let (a, b, raw) = (lab.host("a").await, lab.host("b").await, lab.raw().await);
    for round in 0..20 {
        let mut record = Record::new("aaaaaaaaaaaa1111", [10, 32, 1, 5].into(), Vec::new());
        record.names = vec![Name::parse(&format!("r{round}")).unwrap()];
        let key = Key::Record { host: "a".to_owned(), text: write_record(&record) }.to_string();
        a.publish_record(record);
        a.cluster.told("aaaaaaaaaaaa1111").await;
        assert!(raw.get(&key).await.is_some(), "round {round}");
    }
    until("b hears of it", || b.knows("r19", "10.32.1.5")).await;
    a.withdraw("aaaaaaaaaaaa1111");
    a.cluster.told("aaaaaaaaaaaa1111").await;
}

#[test]
fn without_a_registry_nobody_waits_for_it() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let endpoints = vec!["127.0.0.1:1".to_owned()];
        let nowhere = Lab { registry: handle::Kind::Etcd(Servers { endpoints, ..Servers::default() }) };
        let host = nowhere.begin("a", Wanted::default()).await;
        host.publish("aaaaaaaaaaaa1111", "10.32.1.5", &["db"]);
        let told = host.cluster.told("aaaaaaaaaaaa1111");
        tokio::time::timeout(Duration::from_secs(2), told).await.expect("at once");
    });
}

async fn what_a_worker_left_behind_is_taken_out_once_all_is_seen(lab: Lab) {
    let b = lab.host("b").await;
    let old = lab.host("a").await;
    old.publish("aaaaaaaaaaaa1111", "10.32.1.5", &["stays"]);
    old.publish("cccccccccccc3333", "10.32.1.6", &["ended"]);
    until("b knows both", || b.knows("stays", "10.32.1.5") && b.knows("ended", "10.32.1.6")).await;
    // The worker is killed, and a container ends before the next one looks.
    drop(old);
    let new = lab.host("a").await;
    new.publish("aaaaaaaaaaaa1111", "10.32.1.5", &["stays"]);
    throughout(Duration::from_millis(300), "nothing goes before all is seen", || {
        b.knows("stays", "10.32.1.5") && b.knows("ended", "10.32.1.6")
    })
    .await;
    new.cluster.settled();
    until("what ended is gone", || b.resolve("ended").is_empty()).await;
    assert!(b.knows("stays", "10.32.1.5"));
}

async fn garbage_and_foreign_keys_harm_nobody(lab: Lab) {
    let a = lab.host("a").await;
    let raw = lab.raw().await;
    for (key, value) in [
        ("hosts/evil", "not json"),
        ("hosts/a b", "x"),
        ("blocks/10.32.7.0-24", ""),
        ("blocks/nonsense", "a"),
        ("blocks/10.99.0.0-24", "far"),
        ("addresses/10.32.1.1", "{}"),
        ("addresses/x", "y"),
        ("names/evil/zzz", ""),
        ("names/evil/zzz;a=10.32.1.5;n=..", ""),
        ("names/a/garbage", ""),
        ("live/evil", ""),
        ("gone/evil", "yesterday"),
        ("foreign/folder", "of somebody else"),
    ] {
        assert!(raw.create(key, value).await, "{key}");
    }
    let raw = std::sync::Arc::new(raw);
    let mut writers = tokio::task::JoinSet::new();
    for part in 0..20 {
        let raw = std::sync::Arc::clone(&raw);
        writers.spawn(async move {
            for number in 0..500 {
                raw.create(&format!("names/foreign/{part}-{number}"), "x").await;
            }
        });
    }
    assert_eq!(writers.join_all().await.len(), 20, "10,000 foreign entries");
    a.publish("aaaaaaaaaaaa1111", "10.32.1.5", &["db"]);
    let b = lab.host("b").await;
    until("names go on", || b.knows("db", "10.32.1.5")).await;
    a.publish("cccccccccccc3333", "10.32.1.6", &["web"]);
    until("news go on", || b.knows("web", "10.32.1.6")).await;
    assert_ne!(b.claim_block().await, a.claim_block().await);
    assert_eq!(raw.get("foreign/folder").await.as_deref(), Some("of somebody else"));
}

async fn a_registry_that_is_emptied_is_filled_anew(lab: Lab) {
    let (a, b) = (lab.host("a").await, lab.host("b").await);
    let blocks = (a.claim_block().await, b.claim_block().await);
    a.publish("aaaaaaaaaaaa1111", "10.32.1.5", &["db"]);
    until("b knows it", || b.knows("db", "10.32.1.5")).await;
    let raw = lab.raw().await;
    for key in ["settings".to_owned(), "hosts/a".to_owned(), format!("blocks/{}-24", blocks.0.network())] {
        assert!(raw.delete(&key).await, "{key}");
    }
    raw.delete("names/a/aaaaaaaaaaaa;a=10.32.1.5;n=db").await;
    until("the name is back", || b.knows("db", "10.32.1.5")).await;
    until("the block is back", || b.peer("a").is_some_and(|peer| peer.blocks == [blocks.0])).await;
    until("the host is back", || b.peer("a").is_some_and(|peer| peer.info.is_some())).await;
    for key in ["settings", "hosts/a"] {
        let mut found = None;
        for _ in 0..200 {
            found = raw.get(key).await;
            if found.is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(found.is_some(), "{key} is written anew");
    }
}
