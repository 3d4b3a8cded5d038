//! What a client is told where output is missing that cannot be had any more.
//!
//! It must never be silent where the client can be told, nor leave a frame open: what comes next would be taken for its rest.

use selvedge_keeper::position::Position;
use tracing::warn;

use super::Note;

/// The bytes for the client, and the position behind which its output goes on: they are no part of that. `lost`: how many
/// bytes are missing at most; `None` where that cannot be known.
pub(super) fn told(note: &Note, position: Position, lost: Option<u64>) -> (Vec<u8>, Position) {
    let container = note.container.as_str();
    warn!(container, lost, "output of a held request was lost with the engine");
    let message = match lost {
        Some(bytes) => format!("selvedge: up to {bytes} bytes of output were lost when the engine restarted"),
        None => "selvedge: the engine restarted, and output may be missing here: the container's log cannot be read"
            .to_owned(),
    };
    let Some(mut frames) = position.frames else {
        let text = if note.is("stdout") { format!("\r\n{message}\r\n") } else { String::new() };
        return behind(text.into_bytes(), position);
    };
    let mut bytes = vec![0; frames.left as usize];
    frames.left = 0;
    if note.is("stderr") {
        let line = format!("{message}\n");
        bytes.extend_from_slice(&[2, 0, 0, 0]);
        bytes.extend_from_slice(&u32::try_from(line.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(line.as_bytes());
    }
    behind(bytes, Position { frames: Some(frames), ..position })
}

fn behind(bytes: Vec<u8>, position: Position) -> (Vec<u8>, Position) {
    let head = bytes.len() as u64;
    (bytes, Position { head, ..position })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::held::Kind;
    use selvedge_keeper::position::Frames;

    fn note(query: &str) -> Note {
        let head = format!("POST /v1.41/containers/abc/attach?{query} HTTP/1.1\r\n\r\n");
        Note {
            kind: Kind::Attach,
            head,
            container: "abc".to_owned(),
            began: 0,
            counted: true,
            piece: false,
            request: String::new(),
            sequence: false,
        }
    }

    fn at(passed: u64, left: u32) -> Position {
        let mut frames = Frames::default();
        (frames.passed[1], frames.kind, frames.left) = (passed, 1, left);
        Position { moved: passed, head: 0, frames: Some(frames) }
    }

    #[test]
    fn a_message_is_on_stderr_and_does_not_count() {
        let (bytes, position) = told(&note("stdout=1&stderr=1"), at(70, 0), Some(9));
        assert_eq!(bytes[..8], [2, 0, 0, 0, 0, 0, 0, bytes.len() as u8 - 8]);
        let text = String::from_utf8_lossy(&bytes[8..]).into_owned();
        assert_eq!(text, "selvedge: up to 9 bytes of output were lost when the engine restarted\n");
        assert_eq!((position.head, position.frames), (bytes.len() as u64, at(70, 0).frames));
    }

    #[test]
    fn a_frame_that_broke_off_is_filled_first() {
        let (bytes, position) = told(&note("stdout=1&stderr=1"), at(70, 5), None);
        assert_eq!(bytes[..9], [0, 0, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(position.frames.map(|frames| (frames.left, frames.passed[1])), Some((0, 70)));
        let (bytes, position) = told(&note("stdout=1"), at(70, 5), None);
        assert_eq!((bytes, position.head), (vec![0; 5], 5));
    }

    #[test]
    fn a_terminal_is_told_in_a_line_of_its_own() {
        let position = Position { moved: 4, head: 0, frames: None };
        let (bytes, position) = told(&note("stdout=1&stderr=1"), position, Some(3));
        assert!(bytes.starts_with(b"\r\nselvedge: up to 3 bytes") && bytes.ends_with(b"\r\n"));
        assert_eq!((position.moved, position.head), (4, bytes.len() as u64));
        assert!(told(&note("stdin=1"), position, Some(3)).0.is_empty());
    }
}
