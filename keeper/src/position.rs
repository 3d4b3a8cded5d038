//! How far a stream has come: what a worker needs to know to resume it over another connection.
//!
//! It must never change a byte, and never keep one: it only counts what passes by.

use serde::{Deserialize, Serialize};

/// What the client of a resumable stream has received so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Position {
    /// Bytes that were written to the client.
    pub moved: u64,
    /// Bytes of the answer's head that come before the stream, and are not counted.
    pub head: u64,
    /// The position in Docker's frames, if the stream consists of frames.
    pub frames: Option<Frames>,
}

/// A place in a stream of Docker's frames (Docker API, "Stream format" of `ContainerAttach`): 8 bytes of header,
/// \[kind, 0, 0, 0, length as u32 big endian\], then that many bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Frames {
    /// Payload bytes of each kind: stdin, stdout, stderr.
    pub passed: [u64; 3],
    /// The kind of the current frame.
    pub kind: u8,
    /// Bytes of the current frame that are still to come.
    pub left: u32,
    /// The header of the current frame as far as it has passed; all 8 bytes while its payload passes.
    header: [u8; 8],
    have: u8,
    /// Bytes passed that are not a frame.
    pub lost: bool,
}

impl Position {
    /// The start of a stream, of frames or of plain bytes.
    pub fn new(framed: bool) -> Position {
        Position { moved: 0, head: 0, frames: framed.then(Frames::default) }
    }

    /// The start of a stream that comes behind `head` bytes which are no part of it.
    pub fn behind(head: usize, framed: bool) -> Position {
        Position { head: head as u64, ..Position::new(framed) }
    }

    /// Takes the rest of the head off so many bytes.
    fn past_head(&mut self, bytes: usize) -> usize {
        let head = usize::try_from(self.head).unwrap_or(usize::MAX).min(bytes);
        self.head -= head as u64;
        head
    }

    /// Counts bytes that were spliced to the client unseen. In a framed stream they all belong to one payload.
    pub(crate) fn pass_unseen(&mut self, bytes: usize) {
        let bytes = bytes - self.past_head(bytes);
        self.moved = self.moved.saturating_add(bytes as u64);
        if let Some(frames) = &mut self.frames {
            frames.count(bytes);
        }
    }

    /// Counts these bytes as written to the client.
    pub(crate) fn pass(&mut self, bytes: &[u8]) {
        let bytes = &bytes[self.past_head(bytes.len())..];
        self.moved = self.moved.saturating_add(bytes.len() as u64);
        if let Some(frames) = &mut self.frames {
            frames.pass(bytes);
        }
    }
}

impl Frames {
    /// Ends a header that broke off, as that of the shortest frame that it can still be. Gives the bytes that do so, to be
    /// sent before anything else; none where no header broke off.
    pub fn end_header(&mut self) -> Vec<u8> {
        let rest = if self.have == 0 { Vec::new() } else { vec![0; 8 - usize::from(self.have)] };
        self.pass(&rest);
        rest
    }

    fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.lost {
            let used = if self.left > 0 { self.payload(bytes) } else { self.header(bytes) };
            bytes = &bytes[used..];
        }
    }

    fn payload(&mut self, bytes: &[u8]) -> usize {
        let used = bytes.len().min(self.left as usize);
        self.count(used);
        used
    }

    fn count(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes as u32);
        // An unknown kind means bytes that are not a frame, or a worker's mistake: neither may end the keeper.
        if let Some(passed) = self.passed.get_mut(usize::from(self.kind)) {
            *passed = passed.saturating_add(bytes as u64);
        }
    }

    /// How much of a header is still to come, after a frame of at least that length: where frames are long, the next
    /// one is probably long too.
    pub(crate) fn header_left(&self, long: usize) -> Option<usize> {
        let [.., a, b, c, d] = self.header;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        let have = usize::from(self.have);
        (self.left == 0 && !self.lost && (have > 0 || length >= long)).then_some(8 - have)
    }

    fn header(&mut self, bytes: &[u8]) -> usize {
        let have = usize::from(self.have);
        let used = bytes.len().min(8 - have);
        self.header[have..have + used].copy_from_slice(&bytes[..used]);
        self.have += used as u8;
        if self.have == 8 {
            let [kind, a, b, c, length @ ..] = self.header;
            self.lost = kind > 2 || (a, b, c) != (0, 0, 0);
            (self.kind, self.left, self.have) = (kind, u32::from_be_bytes(length), 0);
        }
        used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![kind, 0, 0, 0];
        frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn counts_are_the_same_however_the_bytes_are_cut() {
        let bytes = [frame(1, b"hello\n"), frame(2, b""), frame(2, b"oh"), frame(1, &[0; 300])].concat();
        for cut in 1..bytes.len() {
            let mut position = Position::new(true);
            bytes.chunks(cut).for_each(|piece| position.pass(piece));
            let frames = position.frames.expect("framed");
            assert_eq!((position.moved, frames.passed), (bytes.len() as u64, [0, 306, 2]));
            assert!(frames.left == 0 && frames.have == 0);
        }
    }

    #[test]
    fn the_head_of_an_answer_is_no_part_of_the_stream() {
        let bytes = [&b"HTTP/1.1 200 OK"[..], &frame(1, b"hello")].concat();
        for cut in 1..bytes.len() {
            let mut position = Position::behind(15, true);
            bytes.chunks(cut).for_each(|piece| position.pass(piece));
            assert_eq!((position.moved, position.frames.expect("framed").passed), (13, [0, 5, 0]));
        }
    }

    #[test]
    fn the_middle_of_a_frame_is_known() {
        let mut position = Position::new(true);
        position.pass(&frame(2, b"four")[..10]);
        let frames = position.frames.expect("framed");
        assert_eq!((frames.kind, frames.left, frames.passed), (2, 2, [0, 0, 2]));
        assert!(position.frames.expect("framed").end_header().is_empty());
    }

    #[test]
    fn what_is_no_frame_does_no_harm_when_it_is_spliced() {
        let mut position = Position::new(true);
        position.pass(b"no frames here, and a kind beyond all");
        position.pass_unseen(1 << 20);
        assert!(position.frames.expect("framed").lost);
        let told = r#"{"frames":{"kind":200,"left":9,"passed":[0,18446744073709551615,0]}}"#;
        let mut position: Position = serde_json::from_str(told).expect("a worker may say anything");
        position.pass(&[0; 30]);
        assert_eq!(position.moved, 30);
    }

    #[test]
    fn a_header_that_broke_off_can_be_ended_wherever_that_was() {
        let whole = frame(1, &[7; 0x4001]);
        for (sent, left) in [(1, 0), (4, 0), (6, 0), (7, 0x4000)] {
            let mut position = Position::new(true);
            position.pass(&frame(2, b"before"));
            position.pass(&whole[..sent]);
            let mut frames = position.frames.expect("framed");
            assert_eq!(frames.end_header(), vec![0; 8 - sent]);
            assert_eq!((frames.kind, frames.left, frames.passed), (1, left, [0, 0, 6]), "{sent}");
            assert!(!frames.lost && frames.end_header().is_empty());
        }
    }

    #[test]
    fn what_is_no_header_is_lost() {
        let mut position = Position::new(true);
        position.pass(b"HTTP/1.1 200 OK\r\n");
        position.pass(&frame(1, b"x"));
        assert!(position.frames.expect("framed").lost);
    }
}
