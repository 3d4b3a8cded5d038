//! Virtual addresses: one per name, the same for everybody, for good.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use selvedge_registry::name::Name;
use selvedge_registry::record::Record;
use selvedge_registry::vip;

use crate::lab::{Host, Lab, Wanted, until};
use crate::with_any_registry;

with_any_registry!(
    many_hosts_that_begin_at_once_agree_about_all_addresses,
    an_address_stays_while_nobody_uses_it_and_until_there_is_no_other,
    an_emptied_registry_hears_of_the_same_addresses_again,
);

fn small() -> Wanted {
    Wanted { vips: Some("10.47.0.0/28"), ..Wanted::default() }
}

fn stand_behind(host: &Host, id: &str, last: u8, vips: &str) {
    let names = vec![Name::parse(id).unwrap()];
    let mut record = Record::new(format!("{id:0>12}"), Ipv4Addr::new(10, 32, 1, last), names);
    record.traits.vips = vip::parse(vips).unwrap().into();
    host.publish_record(record);
}

fn address(host: &Host, name: &str) -> Option<Ipv4Addr> {
    host.view().vips.get(name).copied()
}

async fn many_hosts_that_begin_at_once_agree_about_all_addresses(lab: Lab) {
    let mut hosts = Vec::new();
    for number in 0..8 {
        let host = lab.begin(&format!("h{number}"), small()).await;
        // All of them want the same fourteen, of fourteen that there are.
        let wish: Vec<String> = (0..14).map(|nth| format!("s{}:80", (nth + number) % 14)).collect();
        stand_behind(&host, &format!("c{number}"), u8::try_from(number).unwrap(), &wish.join(" "));
        hosts.push(host);
    }
    until("everybody has all", || hosts.iter().all(|host| host.view().vips.len() == 14)).await;
    let first = hosts[0].view().vips.clone();
    until("and the same", || hosts.iter().all(|host| host.view().vips == first)).await;
    assert_eq!(first.values().collect::<BTreeSet<_>>().len(), 14, "no two names have one");
}

async fn an_address_stays_while_nobody_uses_it_and_until_there_is_no_other(lab: Lab) {
    let (a, b) = (lab.host_with("a", small()).await, lab.host_with("b", small()).await);
    stand_behind(&a, "one", 1, "db:5432");
    until("b knows it", || address(&b, "db").is_some()).await;
    let db = address(&b, "db");
    a.withdraw("000000000one");
    stand_behind(&b, "two", 2, "db:5432");
    for nth in 0..13 {
        stand_behind(&a, &format!("c{nth}"), 10 + nth, &format!("s{nth}:80"));
    }
    until("all have one", || (0..13).all(|nth| address(&b, &format!("s{nth}")).is_some())).await;
    assert_eq!(address(&a, "db"), db, "it is the same again");
    // No address is left: one that nobody uses goes to the next.
    let idle = address(&a, "s7");
    a.withdraw("0000000000c7");
    stand_behind(&b, "three", 3, "last:80");
    until("it has one", || address(&a, "last") == idle && address(&b, "last") == idle).await;
    assert_eq!(address(&b, "s7"), None);
}

async fn an_emptied_registry_hears_of_the_same_addresses_again(lab: Lab) {
    let (a, b) = (lab.host_with("a", small()).await, lab.host_with("b", small()).await);
    stand_behind(&a, "one", 1, "db:5432");
    stand_behind(&b, "two", 2, "db:5432 web:80");
    until("both know both", || [&a, &b].iter().all(|host| host.view().vips.len() == 2)).await;
    let before = a.view().vips.clone();
    let raw = lab.raw().await;
    for (name, address) in before.iter() {
        assert_eq!(raw.get(&format!("vips/{address}")).await.as_deref(), Some(name.as_str()));
        raw.delete(&format!("vips/{address}")).await;
    }
    let mut there = false;
    while !there {
        there = true;
        for address in before.values() {
            there &= raw.get(&format!("vips/{address}")).await.is_some();
        }
    }
    until("as before", || [&a, &b].iter().all(|host| host.view().vips == before)).await;
}
