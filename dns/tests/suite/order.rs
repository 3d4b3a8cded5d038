//! The order of resolv.conf(5): three name servers of every kind, in all orders, judged by what glibc makes of them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::Message;
use hickory_proto::rr::RData;
use selvedge_dns::resolv_conf::Turns;

use crate::support::{Lab, Manner, QUIET, Upstream, query};

/// What a name server can be like, as the support's labels have it: `silent` never answers, `tcp` answers by TCP only,
/// `cut` says that too and has no TCP.
const KINDS: [&str; 9] = ["right", "slow", "silent", "neg", "nodata", "servfail", "refused", "tcp", "cut"];
const NAME: &str = "order.test";
/// `options timeout:2 attempts:2`: a second less, and a busy machine takes a slow server for a silent one.
const TURNS: Turns = Turns { timeout: Duration::from_secs(2), attempts: 2 };

type Three = [usize; 3];

fn all_orders() -> Vec<Three> {
    let kinds = 0..KINDS.len();
    kinds
        .clone()
        .flat_map(|a| kinds.clone().flat_map(move |b| (0..KINDS.len()).map(move |c| [a, b, c])))
        .collect()
}

/// Each kind at each place, which shows in its address.
fn servers() -> Vec<Vec<Upstream>> {
    let at = |place: u8| {
        let with = |label| Upstream::with(Manner { label: Some(label), last: Some(place), ttl: None });
        KINDS.iter().map(|label| with(*label)).collect()
    };
    (1..=3).map(at).collect()
}

/// A program that asks glibc's resolver, with servers that have ports.
fn glibc(dir: &Path) -> impl Fn(&[SocketAddr]) -> String + Sync {
    let (source, program) = (dir.join("ask.c"), dir.join("ask"));
    std::fs::write(&source, ASK).unwrap();
    let made = Command::new("cc").arg("-o").arg(&program).arg(&source).arg("-lresolv").status().unwrap();
    assert!(made.success(), "cc and libc's headers are installed");
    move |servers| {
        let ports = servers.iter().map(|server| server.port().to_string());
        let output = Command::new(&program).arg(NAME).args(ports).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

const ASK: &str = r#"
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <netdb.h>
#include <resolv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(int argc, char **argv) {
    struct __res_state state;
    memset(&state, 0, sizeof state);
    if (res_ninit(&state) != 0) return 1;
    state.nscount = argc - 2;
    state.retrans = 2;
    state.retry = 2;
    for (int i = 0; i < state.nscount; i++) {
        struct sockaddr_in *at = &state.nsaddr_list[i];
        memset(at, 0, sizeof *at);
        at->sin_family = AF_INET;
        at->sin_port = htons(atoi(argv[i + 2]));
        at->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    }
    unsigned char answer[65536];
    int length = res_nquery(&state, argv[1], ns_c_in, ns_t_a, answer, sizeof answer);
    if (length < 0) {
        int why = state.res_h_errno;
        puts(why == HOST_NOT_FOUND ? "NXDOMAIN" : why == NO_DATA ? "NODATA" : "fails");
        return 0;
    }
    ns_msg message;
    ns_rr record;
    if (ns_initparse(answer, length, &message) != 0 || ns_parserr(&message, ns_s_an, 0, &record) != 0) return 1;
    char text[INET_ADDRSTRLEN];
    puts(inet_ntop(AF_INET, ns_rr_rdata(record), text, sizeof text));
}
"#;

/// What a libc with only us in its resolv.conf makes of our answers: it asks twice, for two seconds each.
fn through(lab: &Lab, asker: IpAddr) -> String {
    let socket = UdpSocket::bind((asker, 0)).unwrap();
    socket.connect(lab.address).unwrap();
    socket.set_read_timeout(Some(TURNS.timeout)).unwrap();
    for _ in 0..TURNS.attempts {
        socket.send(&query(7, NAME)).unwrap();
        let mut bytes = [0; 512];
        let Ok(length) = socket.recv(&mut bytes) else { continue };
        let message = Message::from_vec(&bytes[..length]).unwrap();
        let code = message.metadata.response_code.to_str();
        return match (code, message.answers.first().map(|record| &record.data)) {
            ("No Error", Some(RData::A(address))) => address.to_string(),
            ("No Error", None) if message.metadata.truncation => "fails".to_owned(),
            ("No Error", None) => "NODATA".to_owned(),
            ("Non-Existent Domain", _) => "NXDOMAIN".to_owned(),
            _ => "fails".to_owned(),
        };
    }
    "fails".to_owned()
}

/// Does this with all of them, many at a time: most only wait.
fn with_all<T: Send>(all: &[Three], work: impl Fn(usize, &Three) -> T + Sync) -> Vec<T> {
    let next = Mutex::new(all.iter().enumerate());
    let take = || next.lock().unwrap().next();
    let mut done: Vec<(usize, T)> = std::thread::scope(|scope| {
        let row = || std::iter::from_fn(take).map(|(at, three)| (at, work(at, three))).collect::<Vec<_>>();
        let rows: Vec<_> = (0..48).map(|_| scope.spawn(row)).collect();
        rows.into_iter().flat_map(|row| row.join().unwrap()).collect()
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, value)| value).collect()
}

#[test]
fn three_servers_of_every_kind_in_all_orders_mean_to_us_what_they_mean_to_glibc() {
    let _busy = QUIET.write().unwrap_or_else(PoisonError::into_inner);
    let began = Instant::now();
    let (servers, all, dir) = (servers(), all_orders(), tempfile::tempdir().unwrap());
    let of = |three: &Three| -> Vec<SocketAddr> {
        three.iter().enumerate().map(|(at, kind)| servers[at][*kind].address).collect()
    };
    let ask = glibc(dir.path());
    let theirs = with_all(&all, |_, three| ask(&of(three)));
    let asker = |at: usize| Ipv4Addr::from(0x7f01_0000 + u32::try_from(at).unwrap() + 1);
    let lab = Lab::start_in_noise(|settings| {
        settings.limits = selvedge_dns::Limits { turns: Some(TURNS), ..selvedge_dns::Limits::default() };
    });
    for (at, three) in all.iter().enumerate() {
        lab.put(&at.to_string(), &asker(at).to_string(), &[], &of(three));
    }
    let ours = with_all(&all, |at, _| through(&lab, asker(at).into()));
    let differ: Vec<String> = all
        .iter()
        .zip(theirs.iter().zip(&ours))
        .filter(|(three, (theirs, ours))| theirs != ours && !is_given_up_early(three, theirs))
        .map(|(three, (theirs, ours))| {
            format!("{:?}: glibc {theirs}, we {ours}", three.map(|kind| KINDS[kind]))
        })
        .collect();
    println!(
        "{} orders in {:?}; glibc finds an address in {}",
        all.len(),
        began.elapsed(),
        theirs.iter().filter(|one| one.starts_with("192.")).count()
    );
    assert!(theirs.iter().any(|one| one == "NXDOMAIN") && theirs.iter().any(|one| one == "NODATA"));
    assert!(differ.is_empty(), "{} differ:\n{}", differ.len(), differ.join("\n"));
}

/// After a server that cuts off and has no TCP, glibc asks all others by TCP, and takes whatever they say by that for
/// the end, SERVFAIL too. We go on to the next server.
fn is_given_up_early(three: &Three, theirs: &str) -> bool {
    KINDS[three[0]] == "cut" && matches!(KINDS[three[1]], "servfail" | "refused") && theirs == "fails"
}

/// A server that gives this address after a while, as in a company that is far away.
fn slow_but_right() -> Upstream {
    Upstream::with(Manner { label: Some("slow"), last: Some(1), ttl: None })
}

fn lab(upstreams: &[&Upstream]) -> Lab {
    let lab = Lab::start();
    let upstreams: Vec<SocketAddr> = upstreams.iter().map(|one| one.address).collect();
    lab.put("me", "127.0.0.1", &["me"], &upstreams);
    lab
}

#[test]
fn a_name_server_that_is_slow_but_right_is_waited_for() {
    for second in ["neg", "nodata", "right"] {
        for transport in ["+notcp", "+tcp"] {
            let (first, second) =
                (slow_but_right(), Upstream::with(Manner { label: Some(second), ..Manner::default() }));
            let lab = lab(&[&first, &second]);
            // More than one name: the first must not be demoted for its slowness.
            for name in ["one.test", "two.test", "one.test"] {
                assert_eq!(lab.dig(&format!("{transport} +short {name}")), "192.0.2.1\n");
            }
        }
    }
}

#[test]
fn a_no_of_the_second_server_is_not_kept_for_when_the_first_is_back() {
    let (first, second) = (std::net::UdpSocket::bind("127.0.0.1:0").unwrap(), Upstream::start());
    let lab = Lab::start();
    lab.put("me", "127.0.0.1", &["me"], &[first.local_addr().unwrap(), second.address]);
    lab.says("neg.test", &["status: NXDOMAIN"]);
    // Now it answers, and is heard although it was silent for a whole turn a moment ago.
    std::thread::spawn(move || {
        let mut bytes = [0; 512];
        while let Ok((length, from)) = first.recv_from(&mut bytes) {
            let _ = first.send_to(&with_address(bytes[..length].to_vec()), from);
        }
    });
    assert_eq!(lab.dig("+short neg.test"), "192.0.2.99\n");
}

#[test]
fn a_dead_server_holds_up_a_no_no_more_and_counts_again_from_its_first_answer_on() {
    let (first, second) =
        (Upstream::start(), Upstream::with(Manner { label: Some("neg"), ..Manner::default() }));
    let lab = lab(&[&first, &second]);
    first.set_silent(true);
    let turn = Duration::from_millis(540);
    let took = |name: &str| {
        let start = Instant::now();
        lab.says(name, &["status: NXDOMAIN"]);
        start.elapsed()
    };
    assert!(took("n0.test") >= turn, "a server that was silent once is waited for");
    let known_dead = (1..20).find(|n| took(&format!("n{n}.test")) < turn);
    assert!(known_dead.is_some(), "a dead one was waited for, again and again");
    first.set_silent(false);
    assert_eq!(lab.dig("+short n99.test"), "192.0.2.1\n");
}

/// The query made an answer with one address, its other sections dropped.
fn with_address(mut reply: Vec<u8>) -> Vec<u8> {
    reply[2] |= 0x80;
    reply[3] |= 0x80;
    reply[4..12].copy_from_slice(&[0, 1, 0, 1, 0, 0, 0, 0]);
    let end = 12 + reply[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
    reply.truncate(end);
    reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 99]);
    reply
}
