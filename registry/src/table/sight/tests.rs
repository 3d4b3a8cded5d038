//! What an asker sees of the table, and what follows from the names that it sees.

use super::*;
use crate::allow;
use crate::record::Traits;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn record(last: u8, tenant: &str, names: &[&str], more: impl FnOnce(&mut Traits)) -> Record {
    let names = names.iter().map(|text| name(text)).collect();
    let mut record = Record::new(format!("h/{last}"), Ipv4Addr::new(10, 32, 0, last), names);
    record.traits.tenant = Some(tenant.into());
    more(&mut record.traits);
    record
}

fn ports(traits: &mut Traits) {
    traits.ports = ["http:8080/tcp", "dns:53/udp"].map(|text| NamedPort::parse(text).unwrap()).into();
}

fn table() -> Table {
    let mut table = Table::new(name("d")).with_shared_domain(name("mesos"));
    table.put(record(1, "shop", &["web.shop", "web-shop.marathon.mesos."], ports));
    table.put(record(2, "shop", &["web.shop"], ports));
    table.put(record(3, "bank", &["vault", "below.web.shop"], |_| ()));
    table.put(record(4, "bank", &["db"], |traits| {
        traits.allow = allow::parse("tenant:shop 5432/tcp").unwrap().into();
    }));
    table
}

fn told(sight: Sight<'_>, text: &str) -> String {
    let whole = name(text);
    let last = |address: &Ipv4Addr| address.octets()[3].to_string();
    match sight.lookup(whole.wire()) {
        Found::Addresses(addresses) => addresses.iter().map(last).collect::<Vec<_>>().join(" "),
        Found::Empty => "empty".to_owned(),
        Found::Missing | Found::Shared | Found::Outside => match sight.compute(whole.wire()) {
            None => "nothing".to_owned(),
            Some(Computed::Hosts(hosts)) => {
                format!("hosts {}", hosts.iter().map(last).collect::<Vec<_>>().join(" "))
            }
            Some(Computed::Empty) => "computed empty".to_owned(),
            Some(Computed::Instance(address)) => format!("instance {}", last(&address)),
            Some(Computed::Services(services)) => {
                let one = |service: &Service| format!("{}:{}", service.target, service.port);
                services.iter().map(one).collect::<Vec<_>>().join(" ")
            }
        },
    }
}

#[test]
fn a_name_is_seen_by_those_who_may_call_it() {
    let mut table = table();
    table.set_isolated(true);
    let by = |last: u8, text: &str| {
        let caller = table.owner(Ipv4Addr::new(10, 32, 0, last)).map(Caller::Container);
        told(Sight::new(&table, caller), text)
    };
    for (asker, text, expected) in [
        (1, "web.shop.d.", "1 2"),
        (1, "db.d.", "4"),
        (1, "vault.d.", "nothing"),
        (1, "10-32-0-3.vault.d.", "nothing"),
        (3, "vault.d.", "3"),
        (3, "db.d.", "4"),
        (3, "web.shop.d.", "empty"),
        (3, "_http._tcp.web.shop.d.", "nothing"),
        (3, "below.web.shop.d.", "3"),
    ] {
        assert_eq!(by(asker, text), expected, "{asker} asks for {text}");
    }
    let stranger = Sight::new(&table, Some(Caller::Stranger([192, 168, 0, 1].into())));
    assert_eq!(told(stranger, "web.shop.d."), "empty");
    assert_eq!(told(Sight::from(&table), "vault.d."), "3", "the host itself sees all");
    assert_eq!(stranger.reverse(Ipv4Addr::new(10, 32, 0, 3)), None);
    table.set_isolated(false);
    let caller = table.owner(Ipv4Addr::new(10, 32, 0, 1)).map(Caller::Container);
    assert_eq!(told(Sight::new(&table, caller), "vault.d."), "3");
}

#[test]
fn whoever_sees_none_of_the_healthy_sees_the_others() {
    let mut table = Table::new(name("d"));
    table.set_isolated(true);
    table.put(record(1, "shop", &["web"], |traits| traits.unhealthy = true));
    table.put(record(2, "bank", &["web"], |_| ()));
    let of = |last: u8| table.owner(Ipv4Addr::new(10, 32, 0, last)).map(Caller::Container);
    assert_eq!(told(Sight::new(&table, of(1)), "web.d."), "1");
    assert_eq!(told(Sight::new(&table, of(2)), "web.d."), "2");
}

#[test]
fn nobody_puts_itself_behind_another_tenant_s_name() {
    let mut table = Table::new(name("d"));
    table.set_isolated(true);
    table.put(record(1, "shop", &["db"], |_| ()));
    table.put(record(2, "bank", &["db"], |traits| traits.allow = allow::parse("any").unwrap().into()));
    table.put(record(3, "web", &["web"], |_| ()));
    let of = |last: u8| table.owner(Ipv4Addr::new(10, 32, 0, last)).map(Caller::Container);
    assert_eq!(told(Sight::new(&table, of(1)), "db.d."), "1");
    assert_eq!(told(Sight::new(&table, of(3)), "db.d."), "2");
}

#[test]
fn services_and_instances_follow_from_the_names_that_there_are() {
    let table = table();
    let sight = Sight::from(&table);
    for (text, expected) in [
        ("_http._tcp.web.shop.d.", "10-32-0-1.web.shop.d.:8080 10-32-0-2.web.shop.d.:8080"),
        ("_dns._udp.web.shop.d.", "10-32-0-1.web.shop.d.:53 10-32-0-2.web.shop.d.:53"),
        ("_http._udp.web.shop.d.", "nothing"),
        ("_https._tcp.web.shop.d.", "nothing"),
        ("_http._tcp.vault.d.", "nothing"),
        ("_tcp.web.shop.d.", "computed empty"),
        ("_tcp.vault.d.", "nothing"),
        ("10-32-0-2.web.shop.d.", "instance 2"),
        ("10-32-0-3.web.shop.d.", "nothing"),
        ("10-32-0-02.web.shop.d.", "nothing"),
        ("_web-shop._tcp.marathon.mesos.", "10-32-0-1.web-shop.marathon.mesos.:8080"),
        ("_http._web-shop._tcp.marathon.mesos.", "10-32-0-1.web-shop.marathon.mesos.:8080"),
        ("_dns._web-shop._tcp.marathon.mesos.", "nothing"),
        ("_web._tcp.shop.d.", "nothing"),
        ("_._tcp.web.shop.d.", "nothing"),
    ] {
        assert_eq!(told(sight, text), expected, "{text}");
    }
}

#[test]
fn a_task_s_hosts_are_found_by_the_name_that_mesos_dns_gives_them() {
    let mut table = table();
    table.put(record(5, "bank", &["vault.marathon.mesos."], |_| ()));
    table.put(Record::new("0a1b", [10, 32, 0, 6].into(), vec![name("web-shop.marathon.mesos.")]));
    let slave = "web-shop.marathon.slave.mesos.";
    assert_eq!(told(Sight::from(&table), slave), "nothing", "no host's address is known");
    let hosts = [("", 100), ("h", 101)].map(|(host, last)| (host.into(), [192, 168, 1, last].into()));
    table.set_hosts(hosts.into_iter().collect());
    for (text, expected) in [
        (slave, "hosts 100 101"),
        ("other.marathon.slave.mesos.", "nothing"),
        ("slave.mesos.", "nothing"),
        ("web.shop.slave.d.", "nothing"),
        ("web.slave.shop.d.", "nothing"),
    ] {
        assert_eq!(told(Sight::from(&table), text), expected, "{text}");
    }
    table.set_isolated(true);
    let web = table.owner(Ipv4Addr::new(10, 32, 0, 1)).map(Caller::Container);
    let sight = Sight::new(&table, web);
    assert_eq!(told(sight, "vault.marathon.slave.mesos."), "nothing");
    assert!(sight.hides(name("vault.marathon.slave.mesos.").wire()));
    assert!(!sight.hides(name("leader.mesos.").wire()));
}
