//! How far a stream has come: what a worker needs to know to go on with it over another connection.
//!
//! It must never change a byte, and never keep one: it only counts what passes by.

use serde::{Deserialize, Serialize};

/// What a client has got so far of a stream that can be resumed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Position {
    /// Bytes that were written to the client.
    pub moved: u64,
    /// Where it stands in Docker's frames, if the stream consists of such.
    pub frames: Option<Frames>,
}

/// A place in a stream of Docker's frames (Docker API, "Stream format" of `ContainerAttach`): 8 bytes of header,
/// \[kind, 0, 0, 0, length as u32 big endian\], then that many bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Frames {
    /// Payload bytes of each kind: stdin, stdout, stderr.
    pub passed: [u64; 3],
    /// The kind of the present frame.
    pub kind: u8,
    /// Bytes that are still to come of the present frame.
    pub left: u32,
    /// The header of the present frame as far as it has passed; all 8 bytes while its payload passes.
    header: [u8; 8],
    have: u8,
    /// There was something that is no frame.
    pub lost: bool,
}

impl Position {
    /// The start of a stream, of frames or of plain bytes.
    pub fn new(framed: bool) -> Position {
        Position { moved: 0, frames: framed.then(Frames::default) }
    }

    /// So many bytes were written to the client that nobody saw. Of a stream of frames they are all of one payload.
    pub(crate) fn pass_unseen(&mut self, bytes: usize) {
        self.moved = self.moved.saturating_add(bytes as u64);
        if let Some(frames) = &mut self.frames {
            frames.count(bytes);
        }
    }

    /// Those bytes were written to the client.
    pub(crate) fn pass(&mut self, bytes: &[u8]) {
        self.moved = self.moved.saturating_add(bytes.len() as u64);
        if let Some(frames) = &mut self.frames {
            frames.pass(bytes);
        }
    }
}

impl Frames {
    /// In the midst of a header: nobody can say how to go on.
    pub fn is_torn(&self) -> bool {
        self.lost || (1..8).contains(&self.have)
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
        // Another kind is no frame's, or a worker's mistake: neither may end the keeper.
        if let Some(passed) = self.passed.get_mut(usize::from(self.kind)) {
            *passed = passed.saturating_add(bytes as u64);
        }
    }

    /// How much of a header is still to come, behind a frame that was at least so long: where frames are long, the next
    /// one is long too.
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
            assert!(frames.left == 0 && !frames.is_torn());
        }
    }

    #[test]
    fn the_middle_of_a_frame_is_known() {
        let mut position = Position::new(true);
        position.pass(&frame(2, b"four")[..10]);
        let frames = position.frames.expect("framed");
        assert_eq!((frames.kind, frames.left, frames.passed), (2, 2, [0, 0, 2]));
        assert!(!frames.is_torn());
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
    fn half_a_header_and_no_header_are_torn() {
        let mut position = Position::new(true);
        position.pass(&[1, 0, 0]);
        assert!(position.frames.expect("framed").is_torn());
        let mut position = Position::new(true);
        position.pass(b"HTTP/1.1 200 OK\r\n");
        position.pass(&frame(1, b"x"));
        assert!(position.frames.expect("framed").lost);
    }
}
