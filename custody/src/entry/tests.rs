//! Records as the next worker finds them.

use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::*;
use crate::ledger::Ledger;

struct Scene {
    ledger: Arc<Ledger>,
    memory: OwnedFd,
    client: UnixStream,
    socket: UnixStream,
}

fn scene() -> Scene {
    let (ledger, memory) = Ledger::create().unwrap();
    let (client, socket) = UnixStream::pair().unwrap();
    Scene { ledger, memory, client, socket }
}

impl Scene {
    /// What the next worker finds.
    fn left(&self) -> Vec<Entry> {
        Ledger::read(self.memory.try_clone().unwrap()).unwrap()
    }

    fn takes_over(&self, left: &Entry) -> Entry {
        let (ledger, _memory) = Ledger::create().unwrap();
        let entry = ledger.open(left.client()).unwrap();
        entry.take_over(left, 99).unwrap();
        entry
    }
}

#[test]
fn a_request_that_was_read_is_there_for_the_next_worker() {
    let mut scene = scene();
    let entry = scene.ledger.open(7).unwrap();
    let mut read = b"from before ".to_vec();
    entry.receive_before(&read).unwrap();
    for part in ["GET /_ping ", "HTTP/1.1\r\n\0\0"] {
        scene.client.write_all(part.as_bytes()).unwrap();
        let received = entry.receive(scene.socket.as_fd(), &mut read).unwrap();
        assert_eq!(received, Received { len: part.len(), drained: true });
    }
    let empty = entry.receive(scene.socket.as_fd(), &mut read).unwrap_err();
    assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
    assert_eq!(read, b"from before GET /_ping HTTP/1.1\r\n\0\0");
    std::mem::forget(entry);
    let left = scene.left();
    assert_eq!((left.len(), left[0].client(), left[0].phase()), (1, 7, Phase::Reading));
    assert_eq!(scene.takes_over(&left[0]).asked(), read);
}

#[test]
fn the_end_of_a_stream_is_no_bytes() {
    let scene = scene();
    let entry = scene.ledger.open(1).unwrap();
    scene.client.shutdown(std::net::Shutdown::Write).unwrap();
    let received = entry.receive(scene.socket.as_fd(), &mut Vec::new()).unwrap();
    assert_eq!(received, Received { len: 0, drained: false });
}

#[test]
fn a_socket_is_empty_when_a_call_got_less_than_it_asked_for_and_no_descriptor_cut_it_short() {
    let mut scene = scene();
    let entry = scene.ledger.open(1).unwrap();
    scene.client.set_nonblocking(true).unwrap();
    let sent = scene.client.write(&vec![7; 80 << 10]).unwrap();
    let mut read = Vec::new();
    let first = entry.receive(scene.socket.as_fd(), &mut read).unwrap();
    assert_eq!(first, Received { len: 64 << 10, drained: false });
    let rest = entry.receive(scene.socket.as_fd(), &mut read).unwrap();
    assert_eq!(rest, Received { len: sent - (64 << 10), drained: true });
    let (part, fds) = ([IoSlice::new(b"with a descriptor")], [scene.memory.as_raw_fd()]);
    let descriptor = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(scene.client.as_raw_fd(), &part, &descriptor, MsgFlags::empty(), None).unwrap();
    scene.client.write_all(b", and without").unwrap();
    assert_eq!(entry.receive(scene.socket.as_fd(), &mut read).unwrap(), Received { len: 17, drained: false });
    assert_eq!(entry.receive(scene.socket.as_fd(), &mut read).unwrap(), Received { len: 13, drained: true });
}

#[test]
fn an_answer_goes_on_from_the_very_byte() {
    let mut scene = scene();
    let entry = scene.ledger.open(1).unwrap();
    scene.client.write_all(b"one two").unwrap();
    entry.receive(scene.socket.as_fd(), &mut Vec::new()).unwrap();
    let answer: Vec<u8> = (0..3 << 20).map(|n: u32| (n >> 3) as u8).collect();
    entry.answer(&answer, 4, true).unwrap();
    scene.socket.set_nonblocking(true).unwrap();
    assert!(!entry.write(scene.socket.as_fd()).unwrap_or(false), "more than a socket takes at once");
    std::mem::forget(entry);
    let left = scene.left().remove(0);
    let next = scene.takes_over(&left);
    assert_eq!(next.phase(), Phase::Answering { keep: true });
    let (mut client, socket) = (scene.client, scene.socket);
    let reader = std::thread::spawn(move || {
        let mut got = vec![0; answer.len()];
        client.read_exact(&mut got).unwrap();
        assert!(got == answer, "every byte once");
        client
    });
    loop {
        match next.write(socket.as_fd()) {
            Ok(true) => break,
            Ok(false) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
    reader.join().unwrap();
    next.next();
    assert_eq!((next.phase(), next.asked().as_slice()), (Phase::Reading, &b" two"[..]));
}

#[test]
fn what_was_asked_of_the_engine_is_sent_once() {
    let mut scene = scene();
    let entry = scene.ledger.open(1).unwrap();
    entry.receive_before(b"POST").unwrap();
    let (mut engine, ours) = UnixStream::pair().unwrap();
    entry.ask(3, b"{note}", b"create it").unwrap();
    assert!(!entry.is_told() && entry.tell(ours.as_fd()).unwrap() && entry.tell(ours.as_fd()).unwrap());
    engine.write_all(b"HTTP/1.1 201 Cre").unwrap();
    entry.hear(ours.as_fd(), &mut Vec::new()).unwrap();
    std::mem::forget(entry);
    engine.write_all(b"ated").unwrap();
    let left = scene.left().remove(0);
    assert_eq!((left.phase(), left.engine()), (Phase::Asking, 3));
    let next = scene.takes_over(&left);
    assert_eq!((next.engine(), next.note().as_slice()), (99, &b"{note}"[..]));
    assert!(next.tell(ours.as_fd()).unwrap(), "all has been sent");
    let mut heard = next.heard();
    next.hear(ours.as_fd(), &mut heard).unwrap();
    assert_eq!(heard, b"HTTP/1.1 201 Created");
    let mut told = [0; 64];
    let got = engine.read(&mut told).unwrap();
    assert_eq!(&told[..got], b"create it");
    next.take_back();
    assert_eq!((next.phase(), next.asked().as_slice()), (Phase::Reading, &b"POST"[..]));
    scene.client.flush().unwrap();
}

#[test]
fn places_are_used_again_and_nothing_of_the_last_request_is_in_them() {
    let scene = scene();
    for number in 0..100 {
        let entry = scene.ledger.open(number).unwrap();
        assert_eq!((entry.asked().len(), entry.heard().len(), entry.note().len()), (0, 0, 0));
        entry.receive_before(&vec![1; 1 << 20]).unwrap();
        entry.ask(1, b"n", &[2; 100]).unwrap();
        entry.answer(&[3; 100], 0, false).unwrap();
    }
    assert!(scene.left().is_empty());
    let file = std::fs::File::from(scene.memory.try_clone().unwrap());
    let blocks = std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap());
    assert!(blocks * 512 < 1 << 20, "what a large request took is given back: {blocks}");
}

#[test]
fn what_is_too_large_is_refused_and_nothing_of_it_counts() {
    let scene = scene();
    let entry = scene.ledger.open(1).unwrap();
    let large = vec![0; 65 << 20];
    assert_eq!(entry.answer(&large, 0, true).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    assert_eq!(entry.ask(1, b"", &large).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    assert_eq!(entry.phase(), Phase::Reading);
}

#[derive(Debug)]
struct NoKeeper;

impl crate::incoming::Closer for NoKeeper {
    fn end(&self, _: u64, _: Option<Arc<Entry>>) {}
}

#[test]
fn a_request_has_one_number_until_it_is_answered_whoever_serves_it() {
    let scene = scene();
    let mut client = crate::Incoming::new(Arc::clone(&scene.ledger), Arc::new(NoKeeper), 7);
    let first = client.request().unwrap();
    assert_eq!(first.to_string(), format!("{}.1", std::process::id()));
    assert_eq!(client.request(), Some(first), "it is the same request");
    let next = scene.takes_over(&scene.left()[0]);
    assert_eq!(next.request(), first.number(), "another worker goes on with it");
    client.next(false);
    let second = client.request().unwrap();
    assert_eq!(second.to_string(), format!("{}.2", std::process::id()));
    client.next(true);
    assert_ne!(client.request(), Some(second), "an idle connection has none");
}
