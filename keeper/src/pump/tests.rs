//! Each way in which a stream can go on and end, over real sockets.

mod input;

use crate::relay::Relay;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A relay with one stream, and the far ends of it: the client's, the engine's.
struct Scene {
    relay: Relay,
    client: UnixStream,
    engine: UnixStream,
}

fn scene() -> Scene {
    scene_with([Vec::new(), Vec::new()])
}

fn scene_with(pending: [Vec<u8>; 2]) -> Scene {
    let (client, near_client) = UnixStream::pair().unwrap();
    let (engine, near_engine) = UnixStream::pair().unwrap();
    let mut relay = Relay::new().unwrap();
    relay.give(near_client.into(), near_engine.into(), pending).unwrap();
    for end in [&client, &engine] {
        end.set_nonblocking(true).unwrap();
    }
    Scene { relay, client, engine }
}

impl Scene {
    /// Turns until nothing happens any more.
    fn settle(&mut self) {
        settle(&mut self.relay);
    }

    /// Writes all of it, turning in between; the other side reads with `take` meanwhile.
    fn carry(&mut self, down: bool, bytes: &[u8]) -> Vec<u8> {
        let (mut from, mut to) =
            if down { (&self.engine, &self.client) } else { (&self.client, &self.engine) };
        let (mut sent, mut got) = (0, Vec::new());
        let mut buffer = vec![0; 300_000];
        while got.len() < bytes.len() {
            match from.write(&bytes[sent..]) {
                Ok(written) => sent += written,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            self.relay.turn(Some(Duration::ZERO)).unwrap();
            match to.read(&mut buffer) {
                Ok(read) => got.extend_from_slice(&buffer[..read]),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        got
    }
}

fn settle(relay: &mut Relay) {
    for _ in 0..50 {
        relay.turn(Some(Duration::from_millis(1))).unwrap();
    }
}

fn read_now(mut from: &UnixStream) -> Vec<u8> {
    let mut got = Vec::new();
    let _ = from.read_to_end(&mut got);
    got
}

/// True if the end was read; false if there is just nothing now.
fn at_end(mut from: &UnixStream) -> bool {
    match from.read(&mut [0; 1]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

#[test]
fn bytes_already_read_come_first() {
    let mut scene = scene_with([b"head ".to_vec(), b"answer ".to_vec()]);
    scene.client.write_all(b"body").unwrap();
    scene.engine.write_all(b"more").unwrap();
    scene.settle();
    assert_eq!(read_now(&scene.engine), b"head body");
    assert_eq!(read_now(&scene.client), b"answer more");
}

#[test]
fn half_a_mebibyte_of_pending_bytes_waits_for_a_slow_reader() {
    let pending = pattern(512 << 10);
    let mut scene = scene_with([Vec::new(), pending.clone()]);
    scene.engine.write_all(b"end").unwrap();
    scene.engine.shutdown(Shutdown::Write).unwrap();
    let mut got = Vec::new();
    while got.len() < pending.len() + 3 {
        scene.settle();
        let more = read_now(&scene.client);
        assert!(!more.is_empty(), "stuck at {}", got.len());
        got.extend(more);
    }
    assert!(got.starts_with(&pending) && got.ends_with(b"end"));
}

#[test]
fn bulk_arrives_whole_in_both_directions() {
    let bytes = pattern(20 << 20);
    let mut scene = scene();
    assert!(scene.carry(true, &bytes) == bytes);
    assert!(scene.carry(false, &bytes) == bytes);
    // And small ones again after that.
    assert_eq!(scene.carry(true, b"x"), b"x");
    assert_eq!(scene.carry(false, b"y"), b"y");
}

#[test]
fn the_clients_half_close_leaves_the_other_direction_open() {
    let mut scene = scene();
    scene.client.write_all(b"stdin").unwrap();
    scene.client.shutdown(Shutdown::Write).unwrap();
    scene.settle();
    assert_eq!(read_now(&scene.engine), b"stdin");
    assert!(at_end(&scene.engine));
    for _ in 0..3 {
        scene.engine.write_all(b"output").unwrap();
        scene.settle();
        assert_eq!(read_now(&scene.client), b"output");
    }
    assert_eq!(scene.relay.streams(), 1);
    drop(scene.engine);
    settle(&mut scene.relay);
    assert!(at_end(&scene.client));
    assert_eq!(scene.relay.streams(), 0);
}

#[test]
fn the_engines_half_close_leaves_the_other_direction_open() {
    let mut scene = scene();
    scene.engine.write_all(b"early answer").unwrap();
    scene.engine.shutdown(Shutdown::Write).unwrap();
    scene.settle();
    assert_eq!(read_now(&scene.client), b"early answer");
    assert!(at_end(&scene.client));
    scene.client.write_all(b"still uploading").unwrap();
    scene.settle();
    assert_eq!(read_now(&scene.engine), b"still uploading");
    scene.client.shutdown(Shutdown::Write).unwrap();
    scene.settle();
    assert!(at_end(&scene.engine));
    assert_eq!(scene.relay.streams(), 0);
}

#[test]
fn an_abandoned_stream_ends() {
    let mut scene = scene();
    scene.client.write_all(b"GET /events").unwrap();
    drop(scene.client);
    settle(&mut scene.relay);
    assert_eq!(scene.relay.streams(), 0, "the engine would send events for ever");
    assert_eq!(read_now(&scene.engine), b"GET /events");
    assert!(at_end(&scene.engine));
    assert_eq!((&scene.engine).write(b"event").unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[test]
fn a_client_that_went_away_still_has_its_bytes_delivered() {
    let mut scene = scene();
    let bytes = pattern(2 << 20);
    let mut sent = 0;
    loop {
        match scene.client.write(&bytes[sent..]) {
            Ok(written) => sent += written,
            Err(_) if scene.relay.turn(Some(Duration::ZERO)).is_ok() => {
                // Until everything on the way is full.
                if scene.client.write(&bytes[sent..]).map(|written| sent += written).is_err() {
                    break;
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
    drop(scene.client);
    settle(&mut scene.relay);
    assert_eq!(scene.relay.streams(), 1);
    // Between an engine and its client, this write would fail too.
    assert_eq!((&scene.engine).write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    let mut got = Vec::new();
    for _ in 0..100 {
        got.extend(read_now(&scene.engine));
        scene.relay.turn(Some(Duration::from_millis(1))).unwrap();
    }
    assert!(got == bytes[..sent], "{} of {sent}", got.len());
    assert_eq!(scene.relay.streams(), 0);
}

#[test]
fn an_engine_that_dies_ends_the_stream_after_its_last_bytes() {
    let mut scene = scene();
    scene.engine.write_all(b"last words").unwrap();
    scene.client.write_all(b"unheard").unwrap();
    drop(scene.engine);
    settle(&mut scene.relay);
    assert_eq!(read_now(&scene.client), b"last words");
    assert!(at_end(&scene.client));
    assert_eq!(scene.relay.streams(), 0);
    assert_eq!((&scene.client).write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[test]
fn a_client_that_wants_no_answer_is_felt_by_the_engine() {
    let mut scene = scene();
    scene.client.shutdown(Shutdown::Read).unwrap();
    scene.engine.write_all(b"x").unwrap();
    scene.settle();
    assert_eq!((&scene.engine).write(b"y").unwrap_err().kind(), ErrorKind::BrokenPipe);
    scene.client.write_all(b"but input").unwrap();
    scene.settle();
    assert_eq!(read_now(&scene.engine), b"but input");
}

#[test]
fn a_slow_reader_stops_the_writer_and_loses_nothing() {
    let mut scene = scene();
    let bytes = pattern(64 << 20);
    let mut sent = 0;
    for _ in 0..2000 {
        if let Ok(written) = scene.engine.write(&bytes[sent..]) {
            sent += written;
        }
        scene.relay.turn(Some(Duration::ZERO)).unwrap();
    }
    assert!(sent < 4 << 20, "{sent} bytes were taken from a writer whose reader sleeps");
    let mut got = Vec::new();
    while got.len() < sent {
        got.extend(read_now(&scene.client));
        scene.relay.turn(Some(Duration::ZERO)).unwrap();
    }
    assert!(got == bytes[..sent]);
    // A client that is killed while it does not read must not keep the stream.
    scene.carry_blocked(&bytes);
    drop(scene.client);
    settle(&mut scene.relay);
    drop(scene.engine);
    settle(&mut scene.relay);
    assert_eq!(scene.relay.streams(), 0);
}

impl Scene {
    fn carry_blocked(&mut self, bytes: &[u8]) {
        for _ in 0..100 {
            let _ = (&self.engine).write(bytes);
            self.relay.turn(Some(Duration::ZERO)).unwrap();
        }
    }
}

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (far, listener.accept().unwrap().0)
}

fn tcp_scene() -> (Relay, TcpStream, UnixStream) {
    let (client, near_client) = tcp_pair();
    let (engine, near_engine) = UnixStream::pair().unwrap();
    let mut relay = Relay::new().unwrap();
    relay.give(near_client.into(), near_engine.into(), [Vec::new(), Vec::new()]).unwrap();
    (relay, client, engine)
}

#[test]
fn a_tcp_client_half_closes_and_gets_all_before_the_end() {
    let (mut relay, mut client, mut engine) = tcp_scene();
    client.write_all(b"in").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    settle(&mut relay);
    let mut input = Vec::new();
    engine.read_to_end(&mut input).unwrap();
    assert_eq!(input, b"in");
    let bytes = pattern(8 << 20);
    let expected = bytes.clone();
    let writer = std::thread::spawn(move || engine.write_all(&bytes).unwrap());
    let reader = std::thread::spawn(move || {
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        got
    });
    while relay.streams() > 0 {
        relay.turn(Some(Duration::from_millis(10))).unwrap();
    }
    writer.join().unwrap();
    assert!(reader.join().unwrap() == expected);
}

#[test]
fn an_engine_that_closes_early_does_not_reset_its_tcp_client() {
    let (mut relay, mut client, engine) = tcp_scene();
    client.write_all(b"never read").unwrap();
    (&engine).write_all(b"answer").unwrap();
    drop(engine);
    settle(&mut relay);
    assert_eq!(relay.streams(), 0);
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"answer");
}

#[test]
fn a_reset_by_a_tcp_client_ends_the_stream() {
    let (mut relay, client, engine) = tcp_scene();
    settle(&mut relay);
    (&engine).write_all(b"unread").unwrap();
    settle(&mut relay);
    // Closing with unread bytes sends a reset.
    drop(client);
    settle(&mut relay);
    assert_eq!(relay.streams(), 0);
    engine.set_nonblocking(true).unwrap();
    assert!(at_end(&engine));
}

#[test]
fn what_is_no_stream_socket_is_refused_and_closed() {
    let (mut far, near) = UnixStream::pair().unwrap();
    let file: OwnedFd = tempfile::tempfile().unwrap().into();
    let mut relay = Relay::new().unwrap();
    assert!(relay.give(near.into(), file, [Vec::new(), Vec::new()]).is_err());
    assert_eq!(relay.streams(), 0);
    assert_eq!(far.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_busy_stream_leaves_others_their_turn() {
    let mut scene = scene();
    let (mut far_client, near_client) = UnixStream::pair().unwrap();
    let (mut far_engine, near_engine) = UnixStream::pair().unwrap();
    scene.relay.give(near_client.into(), near_engine.into(), [Vec::new(), Vec::new()]).unwrap();
    let (busy_engine, busy_client) = (scene.engine, scene.client);
    for end in [&busy_engine, &busy_client] {
        end.set_nonblocking(false).unwrap();
    }
    let mut relay = scene.relay;
    std::thread::spawn(move || while (&busy_engine).write_all(&[7; 65536]).is_ok() {});
    std::thread::spawn(move || while (&busy_client).read(&mut [0; 65536]).is_ok_and(|read| read > 0) {});
    let asker = std::thread::spawn(move || {
        let mut worst = Duration::ZERO;
        for _ in 0..200 {
            let start = Instant::now();
            far_client.write_all(b"?").unwrap();
            far_engine.read_exact(&mut [0]).unwrap();
            worst = worst.max(start.elapsed());
        }
        worst
    });
    while !asker.is_finished() {
        relay.turn(Some(Duration::from_millis(1))).unwrap();
    }
    let worst = asker.join().unwrap();
    assert!(worst < Duration::from_millis(500), "{worst:?}");
}

#[test]
fn frames_of_all_lengths_are_followed_to_the_byte() {
    let (client, near_client) = UnixStream::pair().unwrap();
    let (engine, near_engine) = UnixStream::pair().unwrap();
    for end in [&client, &engine] {
        end.set_nonblocking(true).unwrap();
    }
    let mut relay = Relay::new().unwrap();
    relay.follow(near_client.into(), near_engine.into()).unwrap();
    let mut scene = Scene { relay, client, engine };
    let (mut bytes, mut passed) = (Vec::new(), [0; 3]);
    for (number, length) in
        [5, 0, 32_768, 32_768, 100_000, 7, 300_000, 1, 16_384, 40].repeat(20).iter().enumerate()
    {
        let kind = 1 + number % 2;
        bytes.extend_from_slice(&[kind as u8, 0, 0, 0]);
        bytes.extend_from_slice(&(*length as u32).to_be_bytes());
        bytes.extend((0..*length).map(|at| (at % 251) as u8));
        passed[kind] += *length as u64;
    }
    // The last one breaks off.
    bytes.truncate(bytes.len() - 10);
    passed[2] -= 10;
    assert!(scene.carry(true, &bytes) == bytes);
    drop(scene.engine);
    settle(&mut scene.relay);
    let ended = scene.relay.ended();
    let frames = ended[0].frames.unwrap();
    assert_eq!((ended[0].moved, frames.passed), (bytes.len() as u64, passed));
    assert_eq!((frames.kind, frames.left, frames.lost), (2, 10, false));
}
