//! HTTP/1 heads: read just far enough to decide, kept as the bytes they came in.
//!
//! A head that is passed on is never built anew from parsed parts: order, case and repetition of its fields
//! stay as the client wrote them. Parsing is httparse's, which is what hyper stands on.

use super::framing::BodyLength;

/// The longest head that is taken, in bytes. `X-Registry-Config` carries a whole keyring at times.
pub(crate) const MAX_HEAD: usize = 256 * 1024;
const MAX_FIELDS: usize = 512;

/// Why a head is refused, with the status to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    /// Not HTTP/1.
    #[error("malformed HTTP request")]
    Malformed,
    /// More bytes or fields than we take.
    #[error("request header fields are larger than {} KiB or more than {MAX_FIELDS}", MAX_HEAD / 1024)]
    TooLarge,
    /// Two lengths, or a length and a transfer coding: the classic of request smuggling (RFC 9112, 6.3).
    #[error("ambiguous length of the request body")]
    AmbiguousLength,
}

impl HeadError {
    /// The status that tells a client.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::Malformed | Self::AmbiguousLength => 400,
            Self::TooLarge => 431,
        }
    }
}

/// What we need to know of a request's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestHead {
    /// As written; the engine knows upper case only.
    pub(crate) method: String,
    /// The request target as written.
    pub(crate) target: String,
    /// HTTP/1.1 rather than 1.0.
    pub(crate) keep_alive: bool,
    /// An `Upgrade` field is there.
    pub(crate) upgrade: bool,
    /// `Expect: 100-continue`.
    pub(crate) expects_continue: bool,
    /// How the body is delimited.
    pub(crate) body: BodyLength,
    /// Length of the head in bytes, blank line included.
    pub(crate) len: usize,
}

/// What we need to know of a response's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ResponseHead {
    /// The status code.
    pub(crate) status: u16,
    /// The connection can be used again after this response.
    pub(crate) keep_alive: bool,
    /// How the body is delimited.
    pub(crate) body: BodyLength,
    /// Length of the head in bytes, blank line included.
    pub(crate) len: usize,
}

/// Parses a request head at the start of `bytes`; `None` when more bytes are needed.
pub(crate) fn request(bytes: &[u8]) -> Result<Option<RequestHead>, HeadError> {
    let mut fields = [const { std::mem::MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    let status = httparse::ParserConfig::default()
        .parse_request_with_uninit_headers(&mut parsed, bytes, &mut fields)
        .map_err(refusal)?;
    let httparse::Status::Complete(len) = status else { return unfinished(bytes) };
    let seen = Fields::read(parsed.headers)?;
    let body = match (seen.chunked, seen.length) {
        (Some(_), Some(_)) | (Some(false), None) => return Err(HeadError::AmbiguousLength),
        (Some(true), None) => BodyLength::Chunked,
        (None, length) => BodyLength::Fixed(length.unwrap_or(0)),
    };
    Ok(Some(RequestHead {
        method: parsed.method.unwrap_or_default().to_owned(),
        target: parsed.path.unwrap_or_default().to_owned(),
        keep_alive: parsed.version == Some(1) && !seen.close,
        upgrade: seen.upgrade,
        expects_continue: seen.expects_continue,
        body,
        len,
    }))
}

/// Parses a response head; `to_head` says that the request was a HEAD, whose answers have no body.
pub(crate) fn response(bytes: &[u8], to_head: bool) -> Result<Option<ResponseHead>, HeadError> {
    let mut fields = [const { std::mem::MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let status = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut parsed, bytes, &mut fields)
        .map_err(refusal)?;
    let httparse::Status::Complete(len) = status else { return unfinished(bytes) };
    let seen = Fields::read(parsed.headers)?;
    let status = parsed.code.unwrap_or(0);
    let bodyless = to_head || matches!(status, 100..=199 | 204 | 304);
    let body = match (bodyless, seen.chunked, seen.length) {
        (true, ..) => BodyLength::Fixed(0),
        (false, Some(true), _) => BodyLength::Chunked,
        (false, None, Some(length)) => BodyLength::Fixed(length),
        (false, ..) => BodyLength::UntilClose,
    };
    let keep_alive = parsed.version == Some(1) && !seen.close && body != BodyLength::UntilClose;
    Ok(Some(ResponseHead { status, keep_alive, body, len }))
}

fn refusal(error: httparse::Error) -> HeadError {
    match error {
        httparse::Error::TooManyHeaders => HeadError::TooLarge,
        _ => HeadError::Malformed,
    }
}

fn unfinished<T>(bytes: &[u8]) -> Result<Option<T>, HeadError> {
    if bytes.len() >= MAX_HEAD { Err(HeadError::TooLarge) } else { Ok(None) }
}

#[derive(Default)]
struct Fields {
    /// `Some(true)`: the last coding is chunked. `Some(false)`: another transfer coding.
    chunked: Option<bool>,
    length: Option<u64>,
    close: bool,
    upgrade: bool,
    expects_continue: bool,
}

impl Fields {
    fn read(fields: &[httparse::Header<'_>]) -> Result<Self, HeadError> {
        let mut seen = Self::default();
        for field in fields {
            seen.note(field.name, field.value)?;
        }
        Ok(seen)
    }

    fn note(&mut self, name: &str, value: &[u8]) -> Result<(), HeadError> {
        // Lengths first: nearly all fields are none of ours.
        match name.len() {
            6 if name.eq_ignore_ascii_case("expect") => self.expects_continue = true,
            7 if name.eq_ignore_ascii_case("upgrade") => self.upgrade = true,
            10 if name.eq_ignore_ascii_case("connection") => self.close |= has_token(value, "close"),
            14 if name.eq_ignore_ascii_case("content-length") => {
                let length = decimal(value).ok_or(HeadError::AmbiguousLength)?;
                if self.length.replace(length).is_some_and(|other| other != length) {
                    return Err(HeadError::AmbiguousLength);
                }
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                // A second such field, or a list of codings, is one that Go's server refuses as well.
                let chunked = value.trim_ascii().eq_ignore_ascii_case(b"chunked");
                if self.chunked.replace(chunked).is_some() {
                    return Err(HeadError::AmbiguousLength);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn has_token(value: &[u8], token: &str) -> bool {
    value.split(|b| *b == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

fn decimal(value: &[u8]) -> Option<u64> {
    let text = value.trim_ascii();
    let digits = !text.is_empty() && text.len() < 19 && text.iter().all(u8::is_ascii_digit);
    digits.then(|| text.iter().fold(0, |n, digit| n * 10 + u64::from(digit - b'0')))
}

/// The head with some fields taken out and others put at its end. Every other byte stays.
///
/// `head` must be a complete head: the request or status line, fields, and the blank line.
pub(crate) fn with_fields(head: &[u8], without: &[&str], added: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(head.len() + added.len());
    let mut lines = head.split_inclusive(|b| *b == b'\n');
    out.extend_from_slice(lines.next().unwrap_or_default());
    for line in lines {
        if line.trim_ascii().is_empty() {
            break;
        }
        let name = line.split(|b| *b == b':').next().unwrap_or_default();
        if !without.iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes())) {
            out.extend_from_slice(line);
        }
    }
    out.extend_from_slice(added.as_bytes());
    out.extend_from_slice(b"\r\n");
    out
}

/// Whether a head has a field of this name.
pub(crate) fn has_field(head: &[u8], name: &str) -> bool {
    head.split(|b| *b == b'\n')
        .filter_map(|line| line.split(|b| *b == b':').next())
        .any(|field| field.eq_ignore_ascii_case(name.as_bytes()))
}

/// Whether a request's head is one of HTTP/1.0.
pub(crate) fn is_http_1_0(head: &[u8]) -> bool {
    let line = head.split(|b| *b == b'\n').next().unwrap_or_default();
    line.trim_ascii_end().ends_with(b" HTTP/1.0")
}

/// The head with another method, target or version on its first line.
pub(crate) fn with_first_line(head: &[u8], line: &str) -> Vec<u8> {
    let rest = head.iter().position(|b| *b == b'\n').map_or(&[][..], |at| &head[at + 1..]);
    [line.as_bytes(), b"\r\n", rest].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_the_docker_cli_are_read() {
        let head = b"POST /v1.41/containers/x/attach?stream=1 HTTP/1.1\r\nHost: \r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\nrest";
        let parsed = request(head).unwrap().unwrap();
        assert!(parsed.upgrade && parsed.keep_alive);
        assert_eq!((parsed.body, parsed.len), (BodyLength::Fixed(0), head.len() - 4));
        assert_eq!(request(&head[..40]), Ok(None));
    }

    #[test]
    fn ambiguous_lengths_are_refused() {
        for fields in [
            "Content-Length: 1\r\nContent-Length: 2\r\n",
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: 99999999999999999999\r\n",
        ] {
            let head = format!("POST / HTTP/1.1\r\n{fields}\r\n");
            assert_eq!(request(head.as_bytes()), Err(HeadError::AmbiguousLength), "{fields}");
        }
        assert_eq!(request(b"\x16\x03\x01 garbage\r\n\r\n"), Err(HeadError::Malformed));
    }

    #[test]
    fn fields_are_replaced_and_the_rest_stays_as_it_was() {
        let head = b"GET / HTTP/1.1\r\nhOst:  x\r\nConnection: keep-alive\r\nX-A: 1\r\nX-A: 2\r\n\r\n";
        let out = with_fields(head, &["connection"], "Connection: close\r\n");
        assert_eq!(out, b"GET / HTTP/1.1\r\nhOst:  x\r\nX-A: 1\r\nX-A: 2\r\nConnection: close\r\n\r\n");
    }

    #[test]
    fn responses_without_a_body_are_known() {
        assert_eq!(
            response(b"HTTP/1.1 204 No Content\r\n\r\n", false).unwrap().unwrap().body,
            BodyLength::Fixed(0)
        );
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n";
        assert_eq!(response(head, true).unwrap().unwrap().body, BodyLength::Fixed(0));
        assert_eq!(
            response(b"HTTP/1.1 200 OK\r\n\r\n", false).unwrap().unwrap().body,
            BodyLength::UntilClose
        );
    }
}
