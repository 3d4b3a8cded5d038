//! Our own names, judged by dig.

use std::collections::HashSet;

use selvedge_registry::table::Table;

use crate::support::{Lab, Upstream};

fn lab() -> Lab {
    let lab = Lab::start();
    lab.put("a", "10.32.0.1", &["db.shop", "db"], &[]);
    for last in 1..=100 {
        lab.put(&format!("w{last}"), &format!("10.32.1.{last}"), &["web"], &[]);
    }
    lab
}

#[test]
fn names_and_addresses() {
    let lab = lab();
    assert_eq!(lab.dig("+short db.shop.selvedge.internal"), "10.32.0.1\n");
    lab.says("+tcp db.shop.selvedge.internal", &["10.32.0.1", "status: NOERROR", "(TCP)"]);
    assert_eq!(lab.dig("+short -x 10.32.0.1"), "db.shop.selvedge.internal.\n");
    lab.says(
        "Db.SHOP.selvedge.Internal",
        &["Db.SHOP.selvedge.Internal. 1\tIN\tA\t10.32.0.1", "flags: qr aa rd ra;"],
    );
    lab.table.write().remove("a");
    lab.says("db.shop.selvedge.internal", &["status: NXDOMAIN"]);
    lab.put("a", "10.32.0.9", &["db.shop"], &[]);
    assert_eq!(lab.dig("+short db.shop.selvedge.internal"), "10.32.0.9\n");
}

#[test]
fn nothing_there_and_nothing_of_that_kind() {
    let lab = lab();
    let soa = "IN\tSOA\tselvedge.internal. hostmaster.selvedge.internal.";
    let said = lab.says("nope.selvedge.internal", &["status: NXDOMAIN", "flags: qr aa rd ra;", soa]);
    assert!(said.contains("ANSWER: 0, AUTHORITY: 1"), "{said}");
    lab.says("AAAA db.shop.selvedge.internal", &["status: NOERROR", "ANSWER: 0, AUTHORITY: 1", soa]);
    lab.says("MX db.shop.selvedge.internal", &["status: NOERROR", "ANSWER: 0, AUTHORITY: 1", soa]);
    lab.says("shop.selvedge.internal", &["status: NOERROR", "ANSWER: 0, AUTHORITY: 1", soa]);
    lab.says("-x 10.40.0.1", &["status: NXDOMAIN", "40.10.in-addr.arpa.\t1", soa]);
    lab.says("SOA selvedge.internal", &["ANSWER: 1", soa]);
    lab.says("NS selvedge.internal", &["ANSWER: 1", "NS\tselvedge.internal."]);
    assert_eq!(lab.server.stats().forwarded, 0);
}

#[test]
fn the_server_says_which_one_it_is_to_those_that_ask() {
    let upstream = Upstream::start();
    let lab = Lab::start_with(|settings| settings.server = "host7".to_owned());
    lab.put("me", "127.0.0.1", &["me"], &[upstream.address]);
    for name in ["CH TXT id.server", "CH TXT Hostname.Bind", "+tcp CH TXT id.server"] {
        lab.says(name, &["\tCH\tTXT\t\"host7\"", "status: NOERROR", "flags: qr aa rd ra;"]);
    }
    for other in ["CH TXT version.bind", "CH A id.server", "CH TXT selvedge.internal"] {
        lab.says(other, &["status: REFUSED"]);
    }
    let nsid = "NSID: 68 6f 73 74 37 (\"host7\")";
    for name in ["me.selvedge.internal", "nope.selvedge.internal", "CH TXT id.server", "ok.test", "ok.test"] {
        lab.says(&format!("+nsid {name}"), &[nsid]);
    }
    assert!(!lab.dig("me.selvedge.internal").contains("NSID"));
}

#[test]
fn while_names_are_not_known_yet_the_answer_says_so() {
    let lab = Lab::start();
    lab.table.write().set_partial(true);
    lab.says("nope.selvedge.internal", &["status: SERVFAIL", "EDE: 14 (Not Ready)"]);
}

/// A server whose containers have IPv6 addresses.
fn dual_stack() -> Lab {
    let lab = Lab::start();
    {
        let mut table = lab.table.write();
        *table = Table::new(table.domain().clone()).with_pool6("fd00:5e:1::/48".parse().unwrap());
    }
    lab.put("a", "10.32.0.1", &["db.shop"], &[]);
    for last in 1..=100 {
        lab.put(&format!("host-b/w{last}"), &format!("10.33.1.{last}"), &["web"], &[]);
    }
    lab
}

#[test]
fn both_kinds_of_addresses() {
    let lab = dual_stack();
    assert_eq!(lab.dig("+short db.shop.selvedge.internal"), "10.32.0.1\n");
    assert_eq!(lab.dig("+short AAAA db.shop.selvedge.internal"), "fd00:5e:1::a20:1\n");
    assert_eq!(lab.dig("+short +tcp AAAA db.shop.selvedge.internal"), "fd00:5e:1::a20:1\n");
    assert_eq!(lab.dig("+short -x fd00:5e:1::a20:1"), "db.shop.selvedge.internal.\n");
    let both = ["ANSWER: 2,", "\tA\t10.32.0.1", "\tAAAA\tfd00:5e:1::a20:1"];
    lab.says("ANY db.shop.selvedge.internal +notcp", &both);
    lab.says("AAAA Db.SHOP.selvedge.Internal", &["Db.SHOP.selvedge.Internal. 1\tIN\tAAAA", "qr aa rd ra;"]);
    lab.says("-x fd00:5e:1::a20:2", &["status: NXDOMAIN", "1.0.0.0.e.5.0.0.0.0.d.f.ip6.arpa. 1 IN\tSOA"]);
    // 12 bytes of header, 27 of question, 11 of OPT; 28 an address.
    lab.says("AAAA web.selvedge.internal +noedns +ignore", &["flags: qr aa tc rd ra;", "ANSWER: 16,"]);
    lab.says("AAAA web.selvedge.internal +bufsize=1232 +ignore", &["flags: qr aa tc rd ra;", "ANSWER: 42,"]);
    lab.says("AAAA web.selvedge.internal +bufsize=4096 +ignore", &["flags: qr aa rd ra;", "ANSWER: 100,"]);
    lab.says("AAAA web.selvedge.internal", &["flags: qr aa rd ra;", "ANSWER: 100,", "(TCP)"]);
    let orders: HashSet<String> =
        (0..20).map(|_| lab.dig("+short +tcp AAAA web.selvedge.internal")).collect();
    assert!(orders.len() > 10, "{}", orders.len());
    assert_eq!(lab.server.stats().forwarded, 0);
}

#[test]
fn nothing_is_denied_before_all_is_read() {
    let (lab, upstream) = (lab(), Upstream::start());
    lab.put("me", "127.0.0.2", &["me"], &[upstream.address]);
    lab.table.write().set_partial(true);
    let failed = ["status: SERVFAIL", "flags: qr rd ra;", "ANSWER: 0, AUTHORITY: 0"];
    lab.says("nope.selvedge.internal", &failed);
    lab.says("shop.selvedge.internal +tcp", &failed);
    lab.says("-x 10.40.0.1", &failed);
    lab.says("nope", &failed);
    assert_eq!(lab.dig("+short db.shop.selvedge.internal"), "10.32.0.1\n");
    lab.says("AAAA db.shop.selvedge.internal", &["status: NOERROR", "ANSWER: 0, AUTHORITY: 1"]);
    assert_eq!(lab.dig("+short -x 10.32.0.1"), "db.shop.selvedge.internal.\n");
    let stats = lab.server.stats();
    assert_eq!((stats.servfail, stats.local, stats.forwarded), (4, 3, 0));
    // Who has servers of its own is not denied by us, but a name that is there stays ours.
    assert_eq!(lab.dig("-b 127.0.0.2 +short printer"), "192.0.2.1\n");
    lab.says("-b 127.0.0.2 shop", &failed);
    lab.says("-b 127.0.0.2 nope.selvedge.internal", &failed);
    assert_eq!(lab.server.stats().forwarded, 1);
    lab.table.write().set_partial(false);
    lab.says("nope.selvedge.internal", &["status: NXDOMAIN", "IN\tSOA"]);
    lab.says("-x 10.40.0.1", &["status: NXDOMAIN", "IN\tSOA"]);
}

#[test]
fn edns_and_sizes() {
    let lab = lab();
    lab.says("db.shop.selvedge.internal +bufsize=4096", &["version: 0, flags:; udp: 1232"]);
    lab.says("db.shop.selvedge.internal +dnssec", &["version: 0, flags: do; udp: 1232"]);
    assert!(!lab.dig("db.shop.selvedge.internal +noedns").contains("OPT PSEUDOSECTION"));
    lab.says("db.shop.selvedge.internal +edns=7 +noednsneg", &["status: BADVERS"]);
    // 12 bytes of header, 27 of question, 11 of OPT; 16 an address.
    lab.says("web.selvedge.internal +noedns +ignore", &["flags: qr aa tc rd ra;", "ANSWER: 29,"]);
    lab.says("web.selvedge.internal +bufsize=1232 +ignore", &["flags: qr aa tc rd ra;", "ANSWER: 73,"]);
    lab.says("web.selvedge.internal +bufsize=100 +ignore", &["flags: qr aa tc rd ra;", "ANSWER: 28,"]);
    lab.says("web.selvedge.internal +bufsize=4096 +ignore", &["flags: qr aa rd ra;", "ANSWER: 100,"]);
    lab.says("web.selvedge.internal +noedns", &["flags: qr aa rd ra;", "ANSWER: 100,", "(TCP)"]);
}

#[test]
fn answers_come_in_random_order() {
    let lab = Lab::start();
    for last in 1..=4 {
        lab.put(&format!("w{last}"), &format!("10.32.1.{last}"), &["web"], &[]);
    }
    let orders: HashSet<String> = (0..40).map(|_| lab.dig("+short web.selvedge.internal")).collect();
    assert!(orders.len() > 6, "{orders:?}");
}

#[test]
fn what_is_not_done_is_said() {
    let lab = lab();
    lab.says("+opcode=notify db.selvedge.internal", &["status: NOTIMP"]);
    lab.says("+opcode=update db.selvedge.internal", &["status: NOTIMP"]);
    lab.says("-c CH -t TXT version.bind", &["status: REFUSED"]);
    lab.says("AXFR selvedge.internal +noall +comments", &["Transfer failed"]);
    assert_eq!(lab.server.stats().refused, 4);
}

#[test]
fn our_names_of_one_label_never_leave_the_host() {
    let lab = lab();
    assert_eq!(lab.dig("+short db"), "10.32.0.1\n");
    lab.says("AAAA db", &["status: NOERROR", "ANSWER: 0, AUTHORITY: 0"]);
    assert_eq!(lab.dig("+short localhost"), "127.0.0.1\n");
    assert_eq!(lab.dig("+short AAAA localhost"), "::1\n");
    assert_eq!(lab.server.stats().forwarded, 0);
}
