//! The part of a log that a client has not got: what it has is passed over, and what is left of a frame in which its
//! stream broke off comes first.
//!
//! It must never cut a frame, nor let one in between the halves of another.

use selvedge_keeper::position::{Frames, Position};

// The engine cuts its messages at 16 KiB; a frame of more than this is none of a log.
const LONGEST: usize = 4 * 1024 * 1024;

/// Not what the engine's logs are made of.
#[derive(Debug, thiserror::Error)]
#[error("the engine's log is not in its format")]
pub(crate) struct NotALog;

/// Cuts a log into its messages: frames, or lines where there are none (a terminal's output).
#[derive(Debug)]
pub(crate) struct Messages {
    framed: bool,
    buffer: Vec<u8>,
    used: usize,
}

impl Messages {
    pub(crate) fn new(framed: bool) -> Self {
        Self { framed, buffer: Vec::new(), used: 0 }
    }

    /// More bytes have come.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.used);
        self.used = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message: its kind (1 where there are none), and what it says.
    ///
    /// # Errors
    /// [`NotALog`].
    pub(crate) fn next(&mut self) -> Result<Option<(u8, &[u8])>, NotALog> {
        let rest = &self.buffer[self.used..];
        let found = if self.framed { frame(rest)? } else { line(rest) };
        if rest.len() > LONGEST && found.is_none() {
            return Err(NotALog);
        }
        let Some((kind, skip, len)) = found else { return Ok(None) };
        let start = self.used + skip;
        self.used = start + len;
        Ok(Some((kind, &self.buffer[start..start + len])))
    }

    /// What is no whole message yet.
    pub(crate) fn into_rest(mut self) -> Vec<u8> {
        self.buffer.split_off(self.used)
    }
}

/// Kind, length of the header, length of the payload.
fn frame(bytes: &[u8]) -> Result<Option<(u8, usize, usize)>, NotALog> {
    let Some([kind, a, b, c, length @ ..]) = bytes.first_chunk::<8>() else { return Ok(None) };
    if *kind > 2 || (*a, *b, *c) != (0, 0, 0) {
        return Err(NotALog);
    }
    let length = u32::from_be_bytes(*length) as usize;
    Ok((bytes.len() >= 8 + length).then_some((*kind, 8, length)))
}

fn line(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    bytes.iter().position(|b| *b == b'\n').map(|end| (1, 0, end + 1))
}

// "2026-11-23T04:10:34.123456789Z " before each message with `timestamps=1`.
const STAMP: usize = 31;

/// How many bytes were logged up to a moment, and in all.
#[derive(Debug)]
pub(crate) struct Tally {
    until: String,
    stamps_count: bool,
    /// By kind.
    pub(crate) bytes: [u64; 3],
    /// Those behind that moment, too, of all kinds.
    pub(crate) all: u64,
}

impl Tally {
    /// Counts up to that moment (nanoseconds of the Unix epoch); `stamps_count` says that the client sees the
    /// timestamps too.
    pub(crate) fn new(until: u64, stamps_count: bool) -> Self {
        let moment = jiff::Timestamp::from_nanosecond(until.into()).unwrap_or(jiff::Timestamp::MAX);
        Self { until: format!("{moment:.9}"), stamps_count, bytes: [0; 3], all: 0 }
    }

    /// Counts a message that begins with its timestamp.
    pub(crate) fn add(&mut self, kind: u8, message: &[u8]) {
        let stamp = message.get(..STAMP - 1).unwrap_or(message);
        let len = if self.stamps_count { message.len() } else { message.len().saturating_sub(STAMP) } as u64;
        self.all += len;
        if stamp <= self.until.as_bytes() {
            self.bytes[usize::from(kind)] += len;
        }
    }
}

/// Passes over what the client has, and gathers the rest.
#[derive(Debug)]
pub(crate) struct Rest {
    skip: [u64; 3],
    framed: bool,
    kind: u8,
    left: usize,
    later: Vec<u8>,
    /// How many bytes of each kind were not passed over.
    pub(crate) lacked: [u64; 3],
    /// For the client.
    pub(crate) out: Vec<u8>,
}

impl Rest {
    /// What follows that position in a log, of which the first `logged` bytes came before the break. More than those
    /// are not passed over: what was sent beyond them was never logged.
    pub(crate) fn new(position: &Position, logged: [u64; 3]) -> Self {
        let Frames { passed, kind, left, .. } = position.frames.unwrap_or_default();
        let sent = if position.frames.is_some() { passed } else { [0, position.moved, 0] };
        Self {
            skip: std::array::from_fn(|kind| sent[kind].min(logged[kind])),
            framed: position.frames.is_some(),
            kind,
            left: left as usize,
            later: Vec::new(),
            lacked: [0; 3],
            out: Vec::new(),
        }
    }

    /// Ends the frame in which the stream broke off: the engine that began it never logged its rest.
    pub(crate) fn fill(&mut self) {
        self.out.resize(self.out.len() + std::mem::take(&mut self.left), 0);
        self.out.append(&mut self.later);
    }

    /// How many bytes of the log are passed over.
    pub(crate) fn to_skip(&self) -> u64 {
        self.skip.iter().sum()
    }

    /// Takes the next message of the log.
    pub(crate) fn take(&mut self, kind: u8, message: &[u8]) {
        let skip = &mut self.skip[usize::from(kind)];
        let passed_over = message.len().min(usize::try_from(*skip).unwrap_or(usize::MAX));
        *skip -= passed_over as u64;
        let mut message = &message[passed_over..];
        self.lacked[usize::from(kind)] += message.len() as u64;
        if !self.framed {
            return self.out.extend_from_slice(message);
        }
        if self.left > 0 && kind == self.kind {
            let (first, rest) = message.split_at(message.len().min(self.left));
            self.out.extend_from_slice(first);
            self.left -= first.len();
            message = rest;
            if self.left == 0 {
                self.out.append(&mut self.later);
            }
        }
        if !message.is_empty() {
            let to = if self.left > 0 { &mut self.later } else { &mut self.out };
            to.extend_from_slice(&[kind, 0, 0, 0]);
            to.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
            to.extend_from_slice(message);
        }
    }

    /// The log has no more: what the client is to get of it.
    pub(crate) fn into_whole(mut self) -> Vec<u8> {
        self.fill();
        self.out
    }

    /// From here on the log is what the client is to get.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.skip == [0; 3] && self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &str) -> Vec<u8> {
        let mut frame = vec![kind, 0, 0, 0];
        frame.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(payload.as_bytes());
        frame
    }

    fn all(messages: &mut Messages, piece: &[u8]) -> Vec<(u8, Vec<u8>)> {
        messages.push(piece);
        std::iter::from_fn(|| messages.next().unwrap().map(|(kind, message)| (kind, message.to_vec())))
            .collect()
    }

    fn at(passed: [u64; 3], kind: u8, left: u32) -> Position {
        let mut frames = Frames::default();
        (frames.passed, frames.kind, frames.left) = (passed, kind, left);
        Position { moved: 0, head: 0, frames: Some(frames) }
    }

    #[test]
    fn a_log_is_cut_into_messages_however_it_comes() {
        let bytes = [frame(1, "one\n"), frame(2, "two\n"), frame(1, "")].concat();
        for cut in 1..bytes.len() {
            let mut messages = Messages::new(true);
            let found: Vec<_> = bytes.chunks(cut).flat_map(|piece| all(&mut messages, piece)).collect();
            assert_eq!(found, [(1, b"one\n".to_vec()), (2, b"two\n".to_vec()), (1, Vec::new())]);
            assert!(messages.into_rest().is_empty());
        }
        let mut messages = Messages::new(true);
        messages.push(b"HTTP/1.1");
        assert!(messages.next().is_err());
    }

    #[test]
    fn what_was_sent_is_passed_over_by_kind() {
        let mut rest = Rest::new(&at([0, 6, 2], 1, 0), [0, 100, 100]);
        rest.take(1, b"abcd\n");
        rest.take(2, b"xy");
        assert!(!rest.is_caught_up() && rest.out.is_empty());
        rest.take(1, b"efgh\n");
        assert!(rest.is_caught_up());
        assert_eq!(rest.out, frame(1, "fgh\n"));
    }

    #[test]
    fn the_rest_of_a_broken_frame_comes_first() {
        // "ab" of a frame of 5 was sent; the log has it as one line, and one of stderr before.
        let mut rest = Rest::new(&at([0, 2, 0], 1, 3), [0, 0, 0]);
        rest.take(2, b"err\n");
        assert!(rest.out.is_empty());
        rest.take(1, b"cde\nnext\n");
        assert!(rest.is_caught_up());
        assert_eq!(rest.out, [b"cde".to_vec(), frame(2, "err\n"), frame(1, "\nnext\n")].concat());
    }

    #[test]
    fn a_frame_whose_rest_was_never_logged_withholds_nothing() {
        let mut rest = Rest::new(&at([0, 2, 0], 1, 3), [0, 2, 0]);
        rest.take(1, b"ab");
        rest.take(2, b"err\n");
        assert!(!rest.is_caught_up() && rest.out.is_empty());
        rest.fill();
        assert!(rest.is_caught_up());
        rest.take(1, b"new\n");
        let expected = [b"\0\0\0".to_vec(), frame(2, "err\n"), frame(1, "new\n")].concat();
        assert_eq!((&rest.out, rest.lacked), (&expected, [0, 4, 4]));
        assert_eq!(rest.into_whole(), expected);
    }

    #[test]
    fn what_was_never_logged_is_not_looked_for() {
        // 10 bytes were sent, of which 3 were of a line without an end that died with the engine.
        let mut rest = Rest::new(&at([0, 10, 0], 1, 0), [0, 7, 0]);
        rest.take(1, b"seven..");
        assert!(rest.is_caught_up());
        rest.take(1, b"new\n");
        assert_eq!(rest.out, frame(1, "new\n"));
    }

    #[test]
    fn a_terminals_bytes_are_counted_as_they_are() {
        let mut rest = Rest::new(&Position { moved: 4, head: 0, frames: None }, [0, 9, 0]);
        rest.take(1, b"ab\r\n");
        rest.take(1, b"cd\r\n");
        assert_eq!(rest.out, b"cd\r\n");
    }

    #[test]
    fn lines_after_the_moment_do_not_count() {
        let mut tally = Tally::new(1_000_000_000, false);
        tally.add(1, b"1970-01-01T00:00:00.999999999Z abc\n");
        tally.add(2, b"1970-01-01T00:00:01.000000000Z de\n");
        tally.add(1, b"1970-01-01T00:00:01.000000001Z later\n");
        assert_eq!((tally.bytes, tally.all), ([0, 4, 3], 13));
    }
}
