//! Questions about the server itself, in the class of the Chaosnet: `id.server` and `hostname.bind` (RFC 4892).
//!
//! Must never tell more than the host's name, and nothing to one that asks for anything else.

use crate::query::{Query, WireName, flag, kind, put_header, rcode};

/// The class of the Chaosnet.
pub(crate) const CH: u16 = 3;
/// Names of the server, in wire form.
const NAMES: [&[u8]; 2] = [b"\x02id\x06server\0", b"\x08hostname\x04bind\0"];
/// A pointer to the question's name, type TXT, class CH, and not to be kept.
const HEAD: [u8; 10] = [0xc0, 12, 0, 16, 0, CH as u8, 0, 0, 0, 0];

/// Whether the server is asked for its name.
pub(crate) fn is_asked(lower: &WireName, asked: u16, class: u16) -> bool {
    class == CH && matches!(asked, kind::TXT | kind::ANY) && NAMES.contains(&lower.wire())
}

/// Writes the answer.
pub(crate) fn write(query: &Query, server: &str, out: &mut Vec<u8>) {
    let text = &server.as_bytes()[..server.len().min(255)];
    let flags = query.reply_flags(rcode::NOERROR) | flag::AUTHORITATIVE;
    put_header(out, query.id, flags, [1, 1, 0, u16::from(query.edns.is_some())]);
    query.put_question(out);
    out.extend_from_slice(&HEAD);
    let length = u16::try_from(text.len()).unwrap_or(0);
    out.extend_from_slice(&(length + 1).to_be_bytes());
    out.push(length.to_be_bytes()[1]);
    out.extend_from_slice(text);
    query.put_opt(out);
}
