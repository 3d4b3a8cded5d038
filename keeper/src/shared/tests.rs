//! Records, places and operations, as a successor finds them.

use crate::position::Position;
use crate::shared::Shared;
use crate::shared::board::{Board, Doing};
use crate::shared::log::{Key, read};
use crate::shared::memory::Memory;
use crate::shared::slots::{FlowState, Place, SlotTable};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// A second mapping of the memory with that number, as another process would have it.
fn again(number: i32) -> Memory {
    // SAFETY: the number of a memory that the caller keeps open.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    Memory::map(fd.try_clone_to_owned().unwrap()).unwrap()
}

fn records(shared: &Shared) -> Vec<(u64, Vec<u8>)> {
    let (_, log) = Board::open(again(shared.number())).unwrap().names();
    read(&again(log)).into_iter().map(|(key, value)| (key.number, value)).collect()
}

fn key(number: u64) -> Key {
    Key { kind: 1, number }
}

#[test]
fn records_count_from_the_commit_on() {
    let shared = Shared::new(4).unwrap();
    shared.put(key(1), &[b"one"]);
    shared.put(key(2), &[b"tw", b"o"]);
    assert!(records(&shared).is_empty());
    shared.commit();
    shared.remove(key(1));
    shared.put(key(2), &[b"second"]);
    shared.put(key(3), &[]);
    assert_eq!(records(&shared), [(1, b"one".to_vec()), (2, b"two".to_vec())]);
    shared.commit();
    assert_eq!(records(&shared), [(2, b"second".to_vec()), (3, Vec::new())]);
}

#[test]
fn records_survive_their_memory() {
    let shared = Shared::new(4).unwrap();
    let kept = vec![7; 100_000];
    shared.put(key(1), &[&kept]);
    for round in 0..2000_u64 {
        shared.put(key(2), &[&round.to_le_bytes(), &[0; 1000]]);
        shared.commit();
        let found = records(&shared);
        assert_eq!((found[0].1.len(), &found[1].1[..8]), (kept.len(), &round.to_le_bytes()[..]));
    }
    shared.put(key(4), &[&vec![1; 3 << 20]]);
    shared.commit();
    assert_eq!(records(&shared).len(), 3);
}

#[test]
fn a_buried_descriptor_is_closed_by_the_commit() {
    let shared = Shared::new(4).unwrap();
    let (near, far) = UnixStream::pair().unwrap();
    far.set_nonblocking(true).unwrap();
    shared.bury([OwnedFd::from(near)]);
    let is_open = || std::io::Read::read(&mut &far, &mut [0]).is_err();
    assert!(is_open());
    shared.commit();
    assert!(!is_open());
}

#[test]
fn a_place_holds_the_last_state_of_each_direction() {
    let shared = Shared::new(2).unwrap();
    let (up, down) = (Place { index: 1, direction: 0 }, Place { index: 1, direction: 1 });
    shared.place(up, FlowState::default());
    for seq in 1..5 {
        let state = FlowState { seq, position: Position::new(true), ..FlowState::default() };
        shared.place(down, state);
        let table = SlotTable::open(again(Board::open(again(shared.number())).unwrap().names().0));
        assert_eq!((table.read(up), table.read(down)), (FlowState::default(), state));
    }
    assert!(shared.has_slot(1) && !shared.has_slot(1 << 20));
}

#[test]
fn an_operation_says_what_the_kernel_did() {
    let shared = Shared::new(2).unwrap();
    let (near, mut far) = UnixStream::pair().unwrap();
    let place = Place { index: 1, direction: 1 };
    far.write_all(b"some bytes").unwrap();
    let seq = shared.arm(Doing::Copy(place));
    let board = Board::open(again(shared.number())).unwrap();
    assert_eq!((board.armed(), board.received(), board.sent()), (Some((Doing::Copy(place), seq)), 0, 0));
    assert_eq!(shared.receive(near.as_fd(), 1000), Ok(10));
    assert_eq!((board.received(), board.buffer(10)), (10, &b"some bytes"[..]));
    assert_eq!(shared.send(near.as_fd(), b"more"), Ok(4));
    assert_eq!((board.received(), board.sent()), (10, 4));
    shared.arm(Doing::Flush(place));
    assert_eq!((board.received(), board.sent()), (0, 0));
    assert_eq!(shared.receive(near.as_fd(), 1000), Err(rustix::io::Errno::AGAIN));
}

#[test]
fn bytes_come_before_the_error_that_a_closed_peer_leaves() {
    let shared = Shared::new(2).unwrap();
    let (near, mut far) = UnixStream::pair().unwrap();
    // Unread bytes make the kernel report a reset.
    (&near).write_all(b"never read").unwrap();
    far.write_all(b"last words").unwrap();
    drop(far);
    assert_eq!(shared.receive(near.as_fd(), 1000), Ok(10));
    assert_eq!(shared.receive(near.as_fd(), 1000), Ok(0));
}

#[test]
fn descriptors_travel_with_a_packet() {
    let shared = Shared::new(2).unwrap();
    let (near, far) = crate::channel::pair().unwrap();
    let ends: Vec<_> = (0..5).map(|_| UnixStream::pair().unwrap()).collect();
    let fds: Vec<_> = ends.iter().map(|(end, _)| end.as_fd()).collect();
    for count in [0, 1, 2, 5] {
        assert_eq!(shared.board().send(far.as_fd(), b"packet", &fds[..count]), Ok(6));
        let packet = shared.board().receive_packet(near.as_fd()).unwrap();
        assert_eq!((packet.bytes, packet.fds.len(), packet.is_cut), (&b"packet"[..], count, false));
        for (given, (_, far_end)) in packet.fds.into_iter().zip(&ends) {
            UnixStream::from(given).write_all(b"x").unwrap();
            assert_eq!(std::io::Read::read(&mut &*far_end, &mut [0]).unwrap(), 1);
        }
    }
    assert!(shared.board().receive_packet(near.as_fd()).is_err());
}
