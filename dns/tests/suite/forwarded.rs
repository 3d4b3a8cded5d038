//! Names that others know: who is asked, what is kept, and what happens when they do not answer.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::support::{Lab, Manner, Upstream};

/// A server to which 127.0.0.1 is a container with these upstreams.
fn lab(upstreams: &[SocketAddr]) -> Lab {
    let lab = Lab::start();
    lab.put("me", "127.0.0.1", &["me"], upstreams);
    lab
}

#[test]
fn an_answer_is_passed_on_and_kept() {
    let upstream = Upstream::start();
    let lab = lab(&[upstream.address]);
    lab.says("oK.Test", &["oK.Test.\t\t60\tIN\tA\t192.0.2.1", "flags: qr rd ra;", "udp: 1232"]);
    std::thread::sleep(Duration::from_millis(1100));
    let said = lab.says("Ok.tesT", &["Ok.tesT.", "A\t192.0.2.1"]);
    assert!(said.contains("\t59\t") || said.contains("\t58\t"), "{said}");
    assert_eq!(upstream.asked("udp ok.test."), 1);
    // Another key: DO.
    lab.says("ok.test +dnssec", &["A\t192.0.2.1", "flags: do; udp"]);
    lab.says("ok.test +noedns", &["A\t192.0.2.1"]);
    assert_eq!(upstream.asked("udp ok.test."), 3);
    let stats = lab.server.stats();
    assert_eq!((stats.forwarded, stats.cache_hits), (3, 1));
}

#[test]
fn no_such_name_is_kept_too() {
    let upstream = Upstream::start();
    let lab = lab(&[upstream.address]);
    for _ in 0..3 {
        lab.says("neg.test", &["status: NXDOMAIN", "SOA"]);
    }
    assert_eq!(upstream.asked("udp neg.test."), 1);
    for _ in 0..2 {
        lab.says("servfail.test", &["status: SERVFAIL"]);
    }
    assert_eq!(upstream.asked("udp servfail.test."), 2);
}

#[test]
fn an_answer_past_its_time_is_given_while_no_server_answers_and_says_so() {
    let upstream = Upstream::with(Manner { ttl: Some(1), ..Manner::default() });
    let lab = lab(&[upstream.address]);
    lab.says("ok.test", &["A\t192.0.2.1"]);
    upstream.set_silent(true);
    std::thread::sleep(Duration::from_millis(1100));
    let stale = ["ok.test.\t\t30\tIN\tA\t192.0.2.1", "EDE: 3 (Stale Answer)", "status: NOERROR"];
    lab.says("ok.test", &stale);
    // The servers have just been asked in vain: the next one does not wait for them.
    let start = Instant::now();
    lab.says("ok.test", &stale);
    assert!(start.elapsed() < Duration::from_millis(900), "{:?}", start.elapsed());
    assert_eq!(lab.server.stats().stale, 2);
    lab.says("ok.test +noedns", &["status: SERVFAIL"]);
    lab.says("other.test", &["status: SERVFAIL", "EDE: 22 (No Reachable Authority)"]);
}

#[test]
fn an_answer_that_is_asked_for_is_renewed_before_its_time_is_over() {
    let upstream = Upstream::with(Manner { ttl: Some(10), ..Manner::default() });
    let lab = lab(&[upstream.address]);
    lab.says("ok.test", &["A\t192.0.2.1"]);
    std::thread::sleep(Duration::from_millis(9200));
    lab.says("ok.test", &["ok.test.\t\t1\tIN\tA\t192.0.2.1"]);
    std::thread::sleep(Duration::from_millis(1000));
    let said = lab.says("ok.test", &["A\t192.0.2.1"]);
    assert!(!said.contains("\t10\tIN"), "from the cache: {said}");
    assert_eq!((upstream.asked("udp ok.test."), lab.server.stats().cache_hits), (2, 2));
}

#[test]
fn servers_that_cannot_be_reached_are_told_from_silent_ones() {
    let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    lab(&[closed]).says("ok.test", &["status: SERVFAIL", "EDE: 23 (Network Error)"]);
}

#[test]
fn long_answers_come_over_tcp() {
    let upstream = Upstream::start();
    let lab = lab(&[upstream.address]);
    lab.says("big.test +ignore", &["flags: qr tc rd ra;", "ANSWER: 0,"]);
    assert_eq!((upstream.asked("udp big.test."), upstream.asked("tcp big.test.")), (1, 1));
    lab.says("big.test", &["ANSWER: 200,", "(TCP)"]);
    lab.says("big.test +bufsize=4096 +ignore", &["ANSWER: 200,", "(UDP)"]);
    assert_eq!((upstream.asked("udp big.test."), upstream.asked("tcp big.test.")), (1, 1));
    lab.says("other.test +tcp", &["A\t192.0.2.1", "(TCP)"]);
    assert_eq!((upstream.asked("udp other.test."), upstream.asked("tcp other.test.")), (0, 1));
}

#[test]
fn only_the_answer_to_our_question_is_taken() {
    let upstream = Upstream::start();
    let lab = lab(&[upstream.address]);
    assert_eq!(lab.dig("+short spoofed.test"), "192.0.2.1\n");
    lab.says("malformed.test", &["status: SERVFAIL"]);
}

#[test]
fn equal_questions_are_asked_once() {
    let upstream = Upstream::start();
    let lab = lab(&[upstream.address]);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(lab.dig("+short slow.test"), "192.0.2.5\n"));
        }
    });
    // Asked again after 150 ms, as the answer takes 300: but by one lookup.
    assert_eq!(lab.server.stats().forwarded, 1);
    assert!(upstream.asked("udp slow.test.") <= 2);
}

#[test]
fn a_dead_upstream_costs_one_wait() {
    let (silent, upstream) = (std::net::UdpSocket::bind("127.0.0.1:0").unwrap(), Upstream::start());
    let refusing = {
        let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        closed.local_addr().unwrap()
    };
    let lab = lab(&[refusing, silent.local_addr().unwrap(), upstream.address]);
    let start = Instant::now();
    assert_eq!(lab.dig("+short one.test"), "192.0.2.1\n");
    let first = start.elapsed();
    assert!(first >= Duration::from_millis(800) && first < Duration::from_millis(1500), "{first:?}");
    let start = Instant::now();
    assert_eq!(lab.dig("+short two.test"), "192.0.2.1\n");
    assert!(start.elapsed() < Duration::from_millis(140), "{:?}", start.elapsed());
}

#[test]
fn servfail_comes_in_time() {
    let upstream = Upstream::start();
    let lab = lab(&[upstream.address]);
    let start = Instant::now();
    lab.says("silent.test", &["status: SERVFAIL", "udp: 1232"]);
    let took = start.elapsed();
    assert!(took > Duration::from_millis(1100) && took < Duration::from_millis(1900), "{took:?}");
    assert!(upstream.asked("udp silent.test.") >= 2);
    assert_eq!(lab.server.stats().servfail, 1);
}

#[test]
fn each_asker_has_its_own_upstreams() {
    let (mine, others) = (Upstream::start(), Upstream::start());
    let lab = lab(&[mine.address]);
    lab.put("other", "127.0.0.2", &["other"], &[others.address]);
    assert_eq!(lab.dig("+short ok.test"), "192.0.2.1\n");
    assert_eq!(lab.dig("-b 127.0.0.2 +short ok.test"), "192.0.2.1\n");
    assert_eq!((mine.asked("udp ok.test."), others.asked("udp ok.test.")), (1, 1));
    // Who has upstreams wants them to be asked for short names too, but never for our own.
    assert_eq!(lab.dig("+short printer"), "192.0.2.1\n");
    assert_eq!(lab.dig("+short me"), "127.0.0.1\n");
    assert_eq!((mine.asked("udp printer."), mine.asked("udp me.")), (1, 0));
}

#[test]
fn the_hosts_servers_are_asked_for_all_others() {
    // Only root may have port 53, and resolv.conf knows no other.
    let Some(upstream) = Upstream::on_port_53("127.77.53.1") else { return };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("resolv.conf");
    std::fs::write(&path, "nameserver 127.77.53.9\n").unwrap();
    let lab = Lab::start_with(|settings| settings.resolv_conf = path.clone());
    lab.says("ok.test", &["status: SERVFAIL"]);
    std::fs::write(&path, "search x\nnameserver 127.77.53.1\n").unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(lab.dig("+short ok.test"), "192.0.2.1\n");
    assert_eq!(upstream.asked("udp ok.test."), 1);
    // Names of one label too: a LAN's server knows such.
    assert_eq!(lab.dig("+short printer"), "192.0.2.1\n");
    lab.says("neg", &["status: NXDOMAIN"]);
    assert_eq!((upstream.asked("udp printer."), upstream.asked("udp neg.")), (1, 1));
}

#[test]
fn too_many_questions_are_refused_at_once() {
    let upstream = Upstream::start();
    let lab = Lab::start_with(|settings| settings.limits.lookups = 12);
    lab.put("me", "127.0.0.1", &["me"], &[upstream.address]);
    lab.put("other", "127.0.0.2", &["other"], &[upstream.address]);
    std::thread::scope(|scope| {
        for number in 0..6 {
            let lab = &lab;
            scope.spawn(move || lab.says(&format!("silent.n{number}.test"), &["status: SERVFAIL"]));
        }
        std::thread::sleep(Duration::from_millis(400));
        // Another asker has room.
        assert_eq!(lab.dig("-b 127.0.0.2 +short ok.test"), "192.0.2.1\n");
    });
    let stats = lab.server.stats();
    assert_eq!((stats.forwarded, stats.overload, stats.servfail), (4, 3, 3), "a quarter of 12");
}
