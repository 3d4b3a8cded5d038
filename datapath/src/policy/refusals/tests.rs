//! Refusals as `status` shows them. The kernel's counts are not asked for here.

use selvedge_netsetup::policy::Call;
use selvedge_registry::name::Name;
use selvedge_registry::record::{Record, Traits};
use selvedge_registry::shared::TableWriter;

use super::*;

fn refusal(from: &str, to: &str, rule: Rule) -> Refusal {
    let call = Call { protocol: "tcp".to_owned(), port: Some(80), rule };
    Refusal { from: from.parse().unwrap(), to: to.parse().unwrap(), call: Some(call) }
}

fn record(id: &str, address: &str, tenant: &str) -> Record {
    let traits = Traits { tenant: Some(tenant.into()), ..Traits::default() };
    Record { traits, ..Record::new(id, address.parse().unwrap(), vec![Name::parse(id).unwrap()]) }
}

fn refusals() -> Refusals {
    let mut table = Table::new(Name::parse("selvedge.internal").unwrap());
    table.put(record("web", "10.32.0.1", "shop"));
    table.put(record("db", "10.32.0.2", "bank"));
    Refusals::new(TableWriter::new(table).reader())
}

fn heard(refusal: &Refusal, packets: u64) -> Heard {
    Heard { refusal: refusal.clone(), packets, new: 1 }
}

#[test]
fn both_ends_are_shown_by_name_with_the_setting_that_refused() {
    let refusals = refusals();
    refusals.hear("far", vec![heard(&refusal("10.32.0.1", "10.32.0.2", Rule::Grants), 3)]);
    let (shown, more) = refusals.shown();
    let one = &shown[0];
    assert_eq!((shown.len(), more, one.packets, one.port), (1, 0, 3, Some(80)));
    assert_eq!((one.caller.as_str(), one.called.as_str()), ("shop/web", "bank/db"));
    assert_eq!((one.from.as_str(), one.to.as_str()), ("shop", "bank"));
    assert_eq!(one.rule.as_deref(), Some("selvedge.allow"));
}

#[test]
fn what_two_hosts_and_the_kernel_counted_is_one_sum_and_the_busiest_comes_first() {
    let refusals = refusals();
    let (call, back) =
        (refusal("10.32.0.1", "10.32.0.2", Rule::Grants), refusal("10.32.0.2", "10.32.0.1", Rule::Host));
    lock(&refusals.counted).insert(call.clone(), 1);
    refusals.hear("far", vec![heard(&call, 2), heard(&back, 5)]);
    refusals.hear("farther", vec![heard(&call, 4)]);
    let packets = |refusals: &Refusals| refusals.shown().0.iter().map(|one| one.packets).collect::<Vec<_>>();
    assert_eq!(packets(&refusals), [7, 5]);
    refusals.hear("farther", vec![heard(&call, 6)]);
    assert_eq!(packets(&refusals), [9, 5], "a report replaces the last one of its host");
    refusals.hear_only(|host| host == "farther");
    assert_eq!(packets(&refusals), [7], "a host that is gone says nothing");
}

#[test]
fn no_more_are_shown_than_a_person_reads() {
    let refusals = refusals();
    let many =
        (0..150_u8).map(|last| heard(&refusal(&format!("10.32.9.{last}"), "10.32.0.2", Rule::Unknown), 1));
    refusals.hear("far", many.collect());
    let (shown, more) = refusals.shown();
    assert_eq!((shown.len(), more), (SHOWN, 50));
    assert_eq!(shown[0].caller, shown[0].from, "one that has no name is called by its address");
}

#[test]
fn a_caller_that_has_ended_is_to_be_written_down_once() {
    let refusals = refusals();
    let gone = record("gone", "10.32.0.9", "shop");
    refusals.people().put(&gone, &[]);
    refusals.people().ended("gone");
    refusals.hear("far", vec![heard(&refusal("10.32.0.9", "10.32.0.2", Rule::Grants), 1)]);
    let address: Ipv4Addr = "10.32.0.9".parse().unwrap();
    assert_eq!(refusals.unwritten(), [(address, "shop/gone".to_owned())]);
    lock(&refusals.written).insert(address);
    assert_eq!(refusals.unwritten(), []);
    assert_eq!(refusals.shown().0[0].caller, "shop/gone");
}

#[test]
fn only_what_is_new_is_told() {
    let (old, new) =
        (refusal("10.32.0.1", "10.32.0.2", Rule::Out), refusal("10.32.0.2", "10.32.0.1", Rule::Names));
    let now = HashMap::from([(old.clone(), 5), (new.clone(), 1)]);
    assert_eq!(more(now.clone(), &HashMap::from([(old.clone(), 5)])), [(new, 1)]);
    assert_eq!(more(HashMap::from([(old, 3)]), &now), [], "counts that were deleted begin again");
}
