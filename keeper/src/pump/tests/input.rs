//! Streams whose client's bytes go to another socket than the one that it is answered from: each end ends first.

use super::{at_end, pattern, read_now, settle};
use crate::relay::Relay;
use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

/// The far ends of one such stream.
struct Split {
    relay: Relay,
    client: UnixStream,
    output: UnixStream,
    input: UnixStream,
}

fn split() -> Split {
    let ends = [(); 3].map(|()| UnixStream::pair().unwrap());
    let [(client, near_client), (output, near_output), (input, near_input)] = ends;
    let mut relay = Relay::new().unwrap();
    relay.split(near_client.into(), near_output.into(), near_input.into()).unwrap();
    for end in [&client, &output, &input] {
        end.set_nonblocking(true).unwrap();
    }
    Split { relay, client, output, input }
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[1, 0, 0, 0], &length[..], payload].concat()
}

impl Split {
    fn settle(&mut self) {
        settle(&mut self.relay);
    }

    /// Says something on stdout, and sees the client get it.
    fn says(&mut self, what: &[u8]) {
        self.output.write_all(&frame(what)).unwrap();
        self.settle();
        assert_eq!(read_now(&self.client), frame(what));
    }

    /// Has the client type something, and sees the input get it.
    fn types(&mut self, what: &[u8]) {
        self.client.write_all(what).unwrap();
        self.settle();
        assert_eq!(read_now(&self.input), what);
    }

    /// What the client had got of stdout when its stream was set aside.
    fn parked_at(&mut self) -> u64 {
        self.settle();
        let ended = self.relay.ended();
        assert_eq!((ended.len(), self.relay.streams()), (1, 0));
        // Only what no record names any more is closed.
        self.settle();
        ended[0].frames.unwrap().passed[1]
    }
}

/// Moves all of it from one socket to the other.
fn carry(relay: &mut Relay, (mut from, to): (&UnixStream, &UnixStream), bytes: &[u8]) -> Vec<u8> {
    let (mut sent, mut got) = (0, Vec::new());
    while got.len() < bytes.len() {
        match from.write(&bytes[sent..]) {
            Ok(written) => sent += written,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        relay.turn(Some(std::time::Duration::ZERO)).unwrap();
        got.extend(read_now(to));
    }
    got
}

#[test]
fn each_direction_has_a_socket_of_its_own() {
    let mut split = split();
    split.types(b"in");
    split.says(b"out");
    assert!(read_now(&split.output).is_empty() && !at_end(&split.output));
    let bytes = pattern(8 << 20);
    let ends = (&split.client, &split.input);
    assert!(carry(&mut split.relay, ends, &bytes) == bytes);
    let framed = frame(&bytes);
    let ends = (&split.output, &split.client);
    assert!(carry(&mut split.relay, ends, &framed) == framed);
    split.types(b"in");
    split.says(b"out");
}

#[test]
fn the_clients_half_close_is_the_inputs_and_not_the_upstreams() {
    let mut split = split();
    split.client.write_all(b"last").unwrap();
    split.client.shutdown(Shutdown::Write).unwrap();
    split.settle();
    assert_eq!(read_now(&split.input), b"last");
    assert!(at_end(&split.input));
    assert!(!at_end(&split.output), "it would be taken for the client leaving");
    split.says(b"out");
    // That the engine has read the end of it is no news.
    split.input.shutdown(Shutdown::Both).unwrap();
    split.says(b"more");
    split.output.shutdown(Shutdown::Both).unwrap();
    assert_eq!(split.parked_at(), 7);
}

#[test]
fn an_input_that_ends_leaves_the_output_and_the_client() {
    let mut split = split();
    split.says(b"before");
    let (input, other) = UnixStream::pair().unwrap();
    drop(std::mem::replace(&mut split.input, input));
    drop(other);
    split.settle();
    // As with an engine that no longer reads: no error, and in the end no room.
    split.client.write_all(b"to no program").unwrap();
    split.settle();
    assert!(!at_end(&split.client));
    for _ in 0..3 {
        split.says(b"after");
    }
    split.output.shutdown(Shutdown::Both).unwrap();
    assert_eq!(split.parked_at(), 6 + 3 * 5);
}

#[test]
fn an_output_that_ends_sets_the_client_aside_and_ends_the_input() {
    let mut split = split();
    split.types(b"in");
    split.says(b"out");
    split.output.write_all(&frame(b"last words")[..12]).unwrap();
    split.output.shutdown(Shutdown::Both).unwrap();
    assert_eq!(split.parked_at(), 3 + 4);
    assert!(at_end(&split.input), "two would be attached");
}

#[test]
fn a_client_that_leaves_has_its_bytes_delivered_and_ends_both() {
    let mut split = split();
    split.client.write_all(b"last").unwrap();
    let (client, _) = UnixStream::pair().unwrap();
    drop(std::mem::replace(&mut split.client, client));
    split.settle();
    assert_eq!((read_now(&split.input).as_slice(), split.relay.streams()), (&b"last"[..], 0));
    assert!(at_end(&split.input) && at_end(&split.output));
    assert!(split.relay.ended().is_empty());
}

#[test]
fn an_input_that_is_not_read_holds_up_no_output() {
    let mut split = split();
    let bytes = pattern(8 << 20);
    let mut sent = 0;
    for _ in 0..500 {
        sent += split.client.write(&bytes[sent..]).unwrap_or(0);
        split.relay.turn(Some(std::time::Duration::ZERO)).unwrap();
    }
    assert!(sent < 4 << 20, "{sent} bytes were taken from a client whose program sleeps");
    split.says(b"out");
    let mut got = Vec::new();
    while got.len() < sent {
        got.extend(read_now(&split.input));
        split.relay.turn(Some(std::time::Duration::ZERO)).unwrap();
    }
    assert!(got == bytes[..sent]);
}
