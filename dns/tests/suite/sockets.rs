//! What must not harm the server, and what it must not do to sockets that it shares.

use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use selvedge_dns::{Error, Server, Settings};

use crate::support::{Lab, Upstream, query, receive, send};

fn client(lab: &Lab) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    socket.connect(lab.address).unwrap();
    socket
}

fn connect(lab: &Lab) -> TcpStream {
    let stream = TcpStream::connect(lab.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    stream
}

#[test]
fn garbage_does_no_harm() {
    let lab = Lab::start();
    lab.put("a", "10.32.0.1", &["db"], &[]);
    let socket = client(&lab);
    let mut bytes = [0; 4096];
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = prop::collection::vec(any::<u8>(), 0..600);
    for number in 0..2000 {
        let garbage = strategy.new_tree(&mut runner).unwrap().current();
        socket.send(&garbage).unwrap();
        if number % 50 == 0 {
            // Neither socket's buffer is to overflow: the test is of the reader.
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    std::thread::sleep(Duration::from_millis(100));
    socket.set_nonblocking(true).unwrap();
    while socket.recv(&mut bytes).is_ok() {}
    socket.set_nonblocking(false).unwrap();
    // A response is never answered, a message without a whole header neither.
    socket.send(&[0, 9, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
    socket.send(&query(8, "db.selvedge.internal")[..11]).unwrap();
    socket.send(&query(7, "db.selvedge.internal")).unwrap();
    loop {
        let length = socket.recv(&mut bytes).unwrap();
        assert!(length >= 12 && bytes[2] & 0x80 != 0);
        if bytes[..2] == [0, 7] && length > 40 && bytes[length - 4..length] == [10, 32, 0, 1] {
            break;
        }
    }
    assert!(lab.server.is_running());
}

#[test]
fn a_broken_query_with_an_id_is_told_so() {
    let lab = Lab::start();
    let socket = client(&lab);
    let mut broken = query(0x1234, "db.selvedge.internal");
    broken.truncate(20);
    let mut bytes = [0; 512];
    for message in [
        &broken[..],
        &[0x12, 0x34, 1, 0, 0, 2, 0, 0, 0, 0, 0, 0],
        &[0x12, 0x34, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ] {
        socket.send(message).unwrap();
        assert_eq!(socket.recv(&mut bytes).unwrap(), 12);
        assert_eq!(bytes[..4], [0x12, 0x34, 0x81, 0x81], "FORMERR");
    }
}

#[test]
fn many_queries_on_one_connection() {
    let (lab, upstream) = (Lab::start(), Upstream::start());
    lab.put("me", "127.0.0.1", &["me"], &[upstream.address]);
    let mut stream = connect(&lab);
    send(&mut stream, &query(1, "slow.test"));
    for id in 2..=100 {
        send(&mut stream, &query(id, "me.selvedge.internal"));
    }
    let ids: Vec<u16> = (0..100)
        .map(|_| receive(&mut stream).map(|message| u16::from_be_bytes([message[0], message[1]])).unwrap())
        .collect();
    assert_eq!(ids[99], 1, "the slow one does not hold up the others");
    // A client that says it has no more to send still gets its answers.
    send(&mut stream, &query(101, "slow.two.test"));
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(receive(&mut stream).is_some());
    assert!(receive(&mut stream).is_none());
}

#[test]
fn idle_and_slow_clients_are_let_go() {
    let lab = Lab::start_with(|settings| settings.limits.connections = 8);
    lab.put("a", "10.32.0.1", &["db"], &[]);
    let mut idle = connect(&lab);
    let mut slow = connect(&lab);
    std::io::Write::write_all(&mut slow, &[0]).unwrap();
    // One address may have a quarter of 8.
    let mut turned_away = connect(&lab);
    assert!(receive(&mut turned_away).is_none());
    lab.says("-b 127.0.0.3 +tcp db.selvedge.internal", &["10.32.0.1"]);
    let start = Instant::now();
    assert!(receive(&mut idle).is_none() && receive(&mut slow).is_none());
    assert!(start.elapsed() < Duration::from_secs(2));
    lab.says("+tcp db.selvedge.internal", &["10.32.0.1"]);
    assert_eq!(lab.server.stats().overload, 1);
}

#[test]
fn stop_finishes_what_is_in_hand_and_leaves_the_sockets_to_others() {
    let (lab, upstream) = (Lab::start(), Upstream::start());
    lab.put("me", "127.0.0.1", &["me"], &[upstream.address]);
    let (socket, mut stream) = (client(&lab), connect(&lab));
    socket.send(&query(1, "slow.test")).unwrap();
    send(&mut stream, &query(2, "slow.two.test"));
    std::thread::sleep(Duration::from_millis(100));
    let Lab { server, address, table, udp, tcp, .. } = lab;
    let start = Instant::now();
    server.stop();
    assert!(start.elapsed() < Duration::from_millis(900), "{:?}", start.elapsed());
    let mut bytes = [0; 512];
    assert!(socket.recv(&mut bytes).unwrap() > 40);
    assert!(receive(&mut stream).is_some());
    // Asked while nobody reads: answered by who reads next.
    socket.send(&query(3, "me.selvedge.internal")).unwrap();
    let mut waiting = TcpStream::connect(address).unwrap();
    send(&mut waiting, &query(4, "me.selvedge.internal"));
    let settings = Settings::new(table.reader(), address, "10.32.0.0/12".parse().unwrap());
    let next = Server::spawn(settings, vec![udp], vec![tcp]).unwrap();
    assert!(socket.recv(&mut bytes).unwrap() > 40);
    assert_eq!(bytes[1], 3);
    assert!(receive(&mut waiting).is_some());
    next.stop();
}

#[test]
fn two_servers_share_the_sockets_without_losing_a_query() {
    let lab = Lab::start();
    lab.put("a", "10.32.0.1", &["db"], &[]);
    let settings = Settings::new(lab.table.reader(), lab.address, "10.32.0.0/12".parse().unwrap());
    let sockets = (lab.udp.try_clone().unwrap(), lab.tcp.try_clone().unwrap());
    let second = Server::spawn(settings, vec![sockets.0], vec![sockets.1]).unwrap();
    let socket = client(&lab);
    let mut bytes = [0; 512];
    let ask = |bytes: &mut [u8]| {
        socket.send(&query(1, "db.selvedge.internal")).unwrap();
        socket.recv(bytes).unwrap();
    };
    (0..500).for_each(|_| ask(&mut bytes));
    lab.server.stop();
    (0..500).for_each(|_| ask(&mut bytes));
    second.stop();
}

#[test]
fn a_socket_for_all_addresses_is_not_taken() {
    let lab = Lab::start();
    let settings = Settings::new(lab.table.reader(), lab.address, "10.32.0.0/12".parse().unwrap());
    let any = UdpSocket::bind("0.0.0.0:0").unwrap();
    assert!(matches!(Server::spawn(settings, vec![any], vec![]), Err(Error::Unspecified(_))));
}
