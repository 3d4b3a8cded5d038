//! Where a message body ends (RFC 9112, section 6 and 7.1). Follows the bytes, changes none.

/// How a body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// That many bytes.
    Fixed(u64),
    /// Chunked transfer coding.
    Chunked,
    /// Until the sender closes: responses only.
    UntilClose,
}

/// The chunked coding is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed chunked body")]
pub struct BadChunk;

// A chunk-size line is at most 16 hex digits; extensions are passed over up to this length, as Go's reader does.
const MAX_LINE: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Within a chunk-size line: value so far, digits so far, bytes so far, and whether an extension began.
    Size { value: u64, digits: u8, bytes: usize, extension: bool },
    /// That many bytes of data are left.
    Data(u64),
    /// The line end behind data: how many of CR LF are left.
    DataEnd(u8),
    /// Within the trailer: bytes of the present line, and of all.
    Trailer { line: usize, bytes: usize },
    /// Behind the last byte.
    Done,
}

/// Follows a chunked body through its bytes.
#[derive(Debug, Clone, Copy)]
pub struct Chunks {
    state: State,
}

/// What a stretch of a chunked body is.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Payload.
    Data(&'a [u8]),
    /// Framing.
    Framing(&'a [u8]),
}

impl Default for Chunks {
    fn default() -> Self {
        Self::new()
    }
}

impl Chunks {
    /// At the start of a body.
    pub fn new() -> Self {
        Self { state: State::Size { value: 0, digits: 0, bytes: 0, extension: false } }
    }

    /// The last byte has been seen.
    pub fn done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes the next stretch of one kind off `bytes`; `None` when all are used or the body is over.
    ///
    /// # Errors
    /// [`BadChunk`].
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Piece<'a>>, BadChunk> {
        if bytes.is_empty() || self.done() {
            return Ok(None);
        }
        if let State::Data(left) = self.state {
            let take = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
            let (data, rest) = bytes.split_at(take);
            *bytes = rest;
            let left = left - take as u64;
            self.state = if left == 0 { State::DataEnd(2) } else { State::Data(left) };
            return Ok(Some(Piece::Data(data)));
        }
        let mut used = 0;
        while used < bytes.len() && !matches!(self.state, State::Data(_) | State::Done) {
            self.state = step(self.state, bytes[used])?;
            used += 1;
        }
        let (framing, rest) = bytes.split_at(used);
        *bytes = rest;
        Ok(Some(Piece::Framing(framing)))
    }

    /// How many of `bytes` belong to the body.
    ///
    /// # Errors
    /// [`BadChunk`].
    pub fn follow(&mut self, bytes: &[u8]) -> Result<usize, BadChunk> {
        let mut rest = bytes;
        while self.next(&mut rest)?.is_some() {}
        Ok(bytes.len() - rest.len())
    }
}

/// What is still to come of a request's body, which passes by unread.
#[derive(Debug, Clone, Copy)]
pub enum Rest {
    /// That many bytes.
    Fixed(u64),
    /// Chunks.
    Chunked(Chunks),
}

impl Rest {
    /// The whole body.
    pub fn of(body: BodyLength) -> Self {
        match body {
            BodyLength::Fixed(length) => Self::Fixed(length),
            // Only answers end with their connection.
            BodyLength::Chunked | BodyLength::UntilClose => Self::Chunked(Chunks::new()),
        }
    }

    /// Nothing more comes.
    pub fn is_over(&self) -> bool {
        match self {
            Self::Fixed(left) => *left == 0,
            Self::Chunked(chunks) => chunks.done(),
        }
    }

    /// How many of `bytes` belong to the body.
    ///
    /// # Errors
    /// [`BadChunk`].
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, BadChunk> {
        match self {
            Self::Fixed(left) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= take as u64;
                Ok(take)
            }
            Self::Chunked(chunks) => chunks.follow(bytes),
        }
    }
}

fn step(state: State, byte: u8) -> Result<State, BadChunk> {
    match state {
        State::Size { value, digits, bytes, extension } => {
            size_step(value, digits, bytes + 1, extension, byte)
        }
        State::DataEnd(2) if byte == b'\r' => Ok(State::DataEnd(1)),
        State::DataEnd(1) if byte == b'\n' => Ok(Chunks::new().state),
        State::Trailer { bytes, .. } if bytes >= MAX_LINE => Err(BadChunk),
        State::Trailer { line: 0, .. } if byte == b'\n' => Ok(State::Done),
        State::Trailer { bytes, .. } if byte == b'\n' => Ok(State::Trailer { line: 0, bytes: bytes + 1 }),
        State::Trailer { line, bytes } => {
            let line = if byte == b'\r' { line } else { line + 1 };
            Ok(State::Trailer { line, bytes: bytes + 1 })
        }
        _ => Err(BadChunk),
    }
}

fn size_step(value: u64, digits: u8, bytes: usize, extension: bool, byte: u8) -> Result<State, BadChunk> {
    let digit = char::from(byte).to_digit(16).filter(|_| !extension);
    match (byte, digit) {
        _ if bytes > MAX_LINE => Err(BadChunk),
        (_, Some(digit)) if digits < 15 => {
            Ok(State::Size { value: value * 16 + u64::from(digit), digits: digits + 1, bytes, extension })
        }
        (b'\n', _) if digits > 0 && value > 0 => Ok(State::Data(value)),
        (b'\n', _) if digits > 0 => Ok(State::Trailer { line: 0, bytes: 0 }),
        (b'\r' | b';' | b' ' | b'\t', _) if digits > 0 => {
            Ok(State::Size { value, digits, bytes, extension: true })
        }
        _ if extension => Ok(State::Size { value, digits, bytes, extension }),
        _ => Err(BadChunk),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(mut bytes: &[u8], step: usize) -> Result<(Vec<u8>, usize), BadChunk> {
        let (mut chunks, mut data, all) = (Chunks::new(), Vec::new(), bytes.len());
        while !bytes.is_empty() && !chunks.done() {
            let mut part = &bytes[..step.min(bytes.len())];
            let len = part.len();
            while let Some(piece) = chunks.next(&mut part)? {
                data.extend_from_slice(match piece {
                    Piece::Data(piece) => piece,
                    Piece::Framing(_) => &[],
                });
            }
            bytes = &bytes[len - part.len()..];
        }
        assert!(chunks.done());
        Ok((data, all - bytes.len()))
    }

    #[test]
    fn bodies_end_where_they_end() {
        let body = b"4\r\nWiki\r\n5;x=y\r\npedia\r\n0\r\nTrailer: x\r\n\r\nNEXT";
        for step in 1..body.len() {
            assert_eq!(decode(body, step), Ok((b"Wikipedia".to_vec(), body.len() - 4)));
        }
    }

    #[test]
    fn broken_ones_are_told() {
        for body in [&b"x\r\n"[..], b"\r\n", b"4\r\nWikiX", b"fffffffffffffffff\r\n", b"-1\r\n"] {
            assert!(Chunks::new().follow(body).is_err(), "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..8), step in 1usize..30) {
            let mut body = Vec::new();
            for part in &parts {
                body.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
                body.extend_from_slice(part);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(b"0\r\n\r\n");
            prop_assert_eq!(decode(&body, step), Ok((parts.concat(), body.len())));
        }

        #[test]
        fn garbage_never_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Chunks::new().follow(&body);
        }
    }
}
