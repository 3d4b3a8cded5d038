//! Packets through a real socket pair, good and bad.

use super::{FDS_MAX, PACKET_MAX, Received, pair, receive, send, send_raw};
use serde_json::{Value, json};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

fn get(socket: &OwnedFd) -> Option<Received<Value>> {
    receive(socket.as_fd(), &mut vec![0; PACKET_MAX], 1 << 20).unwrap()
}

#[test]
fn small_and_large_bytes_arrive_with_their_descriptors() {
    let (a, b) = pair().unwrap();
    for length in [0, 5, PACKET_MAX, 512 << 10] {
        let bytes: Vec<u8> = (0..length).map(|at| at as u8).collect();
        let (kept, sent) = UnixStream::pair().unwrap();
        send(a.as_fd(), &json!({"n": length}), &[&bytes], &[sent.as_fd()]).unwrap();
        drop(sent);
        let Some(Received::Packet(mut packet)) = get(&b) else { panic!("no packet") };
        assert_eq!((packet.head["n"].as_u64(), packet.bytes), (Some(length as u64), bytes));
        use std::io::Write;
        (&kept).write_all(b"x").unwrap();
        let mut byte = [0];
        UnixStream::from(packet.fds.remove(0)).read_exact(&mut byte).unwrap();
        assert!(packet.fds.is_empty());
    }
}

#[test]
fn the_last_words_of_a_peer_that_had_words_unread_are_heard() {
    let (a, b) = pair().unwrap();
    send(b.as_fd(), &json!({"never": "read"}), &[], &[]).unwrap();
    for number in 0..3 {
        send(a.as_fd(), &json!({"n": number}), &[], &[]).unwrap();
    }
    drop(a);
    for number in 0..3 {
        let Some(Received::Packet(packet)) = get(&b) else { panic!("{number} is lost") };
        assert_eq!(packet.head["n"], number);
    }
    assert!(matches!(get(&b), Some(Received::Closed)));
}

#[test]
fn garbage_is_told_and_its_descriptors_are_closed() {
    let (a, b) = pair().unwrap();
    let long = vec![b'x'; PACKET_MAX + 1];
    for garbage in [&b"x"[..], b"", b"SK\x01\x00\xff\xff\xff\xff{}", b"SK\x01\x00\x02\x00\x00\x00{x", &long] {
        let (mut kept, sent) = UnixStream::pair().unwrap();
        send_raw(a.as_fd(), garbage, &[sent.as_fd()]).unwrap();
        drop(sent);
        assert!(matches!(get(&b), Some(Received::Garbage(_))), "{garbage:?}");
        assert_eq!(kept.read(&mut [0]).unwrap(), 0, "the descriptor leaked");
    }
    send_raw(a.as_fd(), b"", &[]).unwrap();
    assert!(matches!(get(&b), Some(Received::Garbage(_))));
    assert!(get(&b).is_none());
}

#[test]
fn a_file_that_is_no_sealed_memfd_is_not_read() {
    let (a, b) = pair().unwrap();
    let file = tempfile::tempfile().unwrap();
    send_raw(a.as_fd(), b"SK\x01\x01\x02\x00\x00\x00{}", &[file.as_fd()]).unwrap();
    assert!(matches!(get(&b), Some(Received::Garbage(_))));
    send(a.as_fd(), &json!({}), &[&vec![0; (1 << 20) + 1]], &[]).unwrap();
    assert!(matches!(get(&b), Some(Received::Garbage(_))), "more than allowed");
}

#[test]
fn what_was_said_is_heard_before_the_end() {
    let (a, b) = pair().unwrap();
    send(a.as_fd(), &json!(1), &[], &[]).unwrap();
    drop(a);
    assert!(matches!(get(&b), Some(Received::Packet(_))));
    assert!(matches!(get(&b), Some(Received::Closed)));
}

#[test]
fn a_full_queue_is_told() {
    let (a, _b) = pair().unwrap();
    let bytes = vec![0; 60_000];
    let error = (0..100).find_map(|_| send(a.as_fd(), &json!(1), &[&bytes], &[]).err()).unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn a_whole_chunk_of_descriptors_fits() {
    let (a, b) = pair().unwrap();
    let fds = vec![a.as_fd(); FDS_MAX];
    send(a.as_fd(), &json!(1), &[], &fds).unwrap();
    let Some(Received::Packet(packet)) = get(&b) else { panic!("no packet") };
    assert_eq!(packet.fds.len(), FDS_MAX);
}

#[test]
fn of_a_packet_without_room_for_its_descriptors_the_head_is_known() {
    let (a, _b) = pair().unwrap();
    let packet = b"SK\x01\x00\x01\x00\x00\x007";
    let cut = |bytes: &'static [u8]| {
        crate::channel::understand::<u32>(
            a.as_fd(),
            crate::shared::board::RawPacket { bytes, fds: Vec::new(), is_cut: true },
            0,
        )
    };
    assert!(matches!(cut(packet), Received::Cut(7)));
    assert!(matches!(cut(&packet[..8]), Received::Garbage(_)), "its bytes did not fit, either");
}
