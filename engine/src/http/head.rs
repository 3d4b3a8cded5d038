//! HTTP/1 heads: read just far enough to decide, kept as the bytes they came in.
//!
//! A head that is passed on is never rebuilt from parsed parts: order, case and repetition of its fields
//! stay as the client wrote them. Parsing is httparse's, which is what hyper stands on.

use std::mem::MaybeUninit;

use super::framing::BodyLength;

/// The longest head that is taken, in bytes: what Go's server takes (`DefaultMaxHeaderBytes` and its slop).
/// `X-Registry-Config` carries a whole keyring at times.
pub const MAX_HEAD: usize = 1024 * 1024 + 4096;
/// Fields that are parsed without taking memory for them.
const FEW_FIELDS: usize = 128;

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Not HTTP.
    #[error("malformed HTTP request")]
    Malformed,
    /// A blank in a field's name.
    #[error("invalid header name")]
    BadName,
    /// Well-formed, of another version of HTTP.
    #[error("unsupported protocol version")]
    Version,
    /// More bytes than we take.
    #[error("request header fields are larger than {} KiB", MAX_HEAD / 1024)]
    TooLarge,
    /// A transfer coding other than chunked.
    #[error("unsupported transfer encoding")]
    Coding,
    /// A length and a transfer coding: the classic of request smuggling (RFC 9112, 6.3).
    #[error("ambiguous length of the request body: both Content-Length and Transfer-Encoding")]
    AmbiguousLength,
}

impl HeadError {
    /// What Go's server answers to the same (net/http, `conn.serve`); `None` where we are stricter than it.
    pub fn as_go(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Malformed => Some(("400 Bad Request", "400 Bad Request")),
            Self::BadName => {
                Some(("400 Bad Request: invalid header name", "400 Bad Request: invalid header name"))
            }
            Self::Version => Some((
                "505 HTTP Version Not Supported: unsupported protocol version",
                "505 HTTP Version Not Supported: unsupported protocol version",
            )),
            Self::TooLarge => {
                Some(("431 Request Header Fields Too Large", "431 Request Header Fields Too Large"))
            }
            Self::Coding => Some(("501 Not Implemented", "Unsupported transfer encoding")),
            Self::AmbiguousLength => None,
        }
    }
}

/// What an `Expect` field asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Expect {
    /// No such field, or an empty one.
    #[default]
    Nothing,
    /// `100-continue`.
    Continue,
    /// Something else, which Go's server refuses with 417.
    Other,
}

/// What we need to know of a request's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// As written; the engine knows upper case only.
    pub method: String,
    /// The request target as written.
    pub target: String,
    /// The client takes another answer on this connection.
    pub keep_alive: bool,
    /// HTTP/1.0 rather than 1.1.
    pub http_1_0: bool,
    /// An `Upgrade` field is there.
    pub upgrade: bool,
    /// What its `Expect` field says.
    pub expect: Expect,
    /// How the body is delimited.
    pub body: BodyLength,
    /// Length of the head in bytes, blank line included.
    pub len: usize,
    /// N of the client's own version 1.N, where it is one of old and is spoken for; not read from the head.
    pub asked_as: Option<u32>,
}

impl RequestHead {
    /// The client sends its body when it is told to. A version of HTTP without interim answers knows none of this.
    pub fn waits_for_continue(&self) -> bool {
        self.expect == Expect::Continue && !self.http_1_0 && self.body != BodyLength::Fixed(0)
    }
}

/// What we need to know of a response's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status code.
    pub status: u16,
    /// The connection can be used again after this response.
    pub keep_alive: bool,
    /// How the body is delimited.
    pub body: BodyLength,
    /// Length of the head in bytes, blank line included.
    pub len: usize,
}

/// What a client says first that speaks HTTP/2 without asking (RFC 9113, 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Parses a request head at the start of `bytes`; `None` when more bytes are needed. HTTP/2's preface is a head, too.
///
/// # Errors
/// What is wrong with it, as it is to be answered.
pub fn request(bytes: &[u8]) -> Result<Option<RequestHead>, HeadError> {
    if bytes.starts_with(PREFACE) {
        return Ok(Some(preface()));
    }
    if bytes.starts_with(b"PRI ") && PREFACE.starts_with(bytes) {
        return Ok(None);
    }
    match parsed(bytes, &mut [const { MaybeUninit::uninit() }; FEW_FIELDS]) {
        // As many as could stand in so many bytes.
        Err(httparse::Error::TooManyHeaders) => {
            let count = bytes.len().min(MAX_HEAD) / 3 + 1;
            parsed(bytes, &mut vec![MaybeUninit::uninit(); count])
        }
        result => result,
    }
    .map_err(|error| refusal(error, bytes))?
}

type Fully = Result<Option<RequestHead>, HeadError>;

fn parsed<'b>(
    bytes: &'b [u8],
    fields: &mut [MaybeUninit<httparse::Header<'b>>],
) -> Result<Fully, httparse::Error> {
    let mut parsed = httparse::Request::new(&mut []);
    let config = httparse::ParserConfig::default();
    Ok(match config.parse_request_with_uninit_headers(&mut parsed, bytes, fields)? {
        httparse::Status::Complete(len) if len > MAX_HEAD => Err(HeadError::TooLarge),
        httparse::Status::Complete(len) => understood(&parsed, len).map(Some),
        httparse::Status::Partial => unfinished(bytes),
    })
}

fn preface() -> RequestHead {
    RequestHead {
        method: "PRI".to_owned(),
        target: "*".to_owned(),
        keep_alive: false,
        http_1_0: false,
        upgrade: false,
        expect: Expect::Nothing,
        body: BodyLength::Fixed(0),
        len: PREFACE.len(),
        asked_as: None,
    }
}

fn understood(parsed: &httparse::Request<'_, '_>, len: usize) -> Result<RequestHead, HeadError> {
    let seen = Fields::read(parsed.headers)?;
    let body = match (seen.chunked, seen.length) {
        (Some(false), _) => return Err(HeadError::Coding),
        (Some(true), Some(_)) => return Err(HeadError::AmbiguousLength),
        (Some(true), None) => BodyLength::Chunked,
        (None, length) => BodyLength::Fixed(length.unwrap_or(0)),
    };
    let http_1_0 = parsed.version != Some(1);
    Ok(RequestHead {
        method: parsed.method.unwrap_or_default().to_owned(),
        target: parsed.path.unwrap_or_default().to_owned(),
        keep_alive: seen.keeps(http_1_0),
        http_1_0,
        upgrade: seen.upgrade,
        expect: seen.expect.unwrap_or_default(),
        body,
        len,
        asked_as: None,
    })
}

/// Parses a response head; `to_head` says that the request was a HEAD, whose answers have no body.
///
/// # Errors
/// It is no head of HTTP/1.
pub fn response(bytes: &[u8], to_head: bool) -> Result<Option<ResponseHead>, HeadError> {
    let mut fields = [const { MaybeUninit::uninit() }; FEW_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let status = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut parsed, bytes, &mut fields)
        .map_err(|_| HeadError::Malformed)?;
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
    let keep_alive = seen.keeps(parsed.version != Some(1)) && body != BodyLength::UntilClose;
    Ok(Some(ResponseHead { status, keep_alive, body, len }))
}

fn refusal(error: httparse::Error, bytes: &[u8]) -> HeadError {
    match error {
        httparse::Error::TooManyHeaders => HeadError::TooLarge,
        httparse::Error::HeaderName if has_blank_name(bytes) => HeadError::BadName,
        httparse::Error::Version if is_another_version(bytes) => HeadError::Version,
        _ => HeadError::Malformed,
    }
}

/// Whether a name has a blank within or behind it.
fn has_blank_name(bytes: &[u8]) -> bool {
    bytes.split(|b| *b == b'\n').skip(1).any(|line| {
        let colon = line.iter().position(|b| *b == b':').unwrap_or(0);
        !line.starts_with(b" ") && line[..colon].contains(&b' ')
    })
}

/// Whether the first line ends in `HTTP/D.D`.
fn is_another_version(bytes: &[u8]) -> bool {
    let line = bytes.trim_ascii_start().split(|b| *b == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut words = line.splitn(3, |b| *b == b' ').skip(2);
    matches!(
        words.next().and_then(|version| version.strip_prefix(b"HTTP/")),
        Some([major, b'.', minor]) if major.is_ascii_digit() && minor.is_ascii_digit()
    )
}

fn unfinished<T>(bytes: &[u8]) -> Result<Option<T>, HeadError> {
    if bytes.len() >= MAX_HEAD { Err(HeadError::TooLarge) } else { Ok(None) }
}

#[derive(Default)]
struct Fields {
    /// `Some(true)`: the only coding is chunked. `Some(false)`: there is another transfer coding.
    chunked: Option<bool>,
    length: Option<u64>,
    close: bool,
    keep: bool,
    upgrade: bool,
    expect: Option<Expect>,
}

impl Fields {
    fn read(fields: &[httparse::Header<'_>]) -> Result<Self, HeadError> {
        let mut seen = Self::default();
        for field in fields {
            seen.note(field.name, field.value)?;
        }
        Ok(seen)
    }

    /// Whether the sender keeps the connection.
    fn keeps(&self, http_1_0: bool) -> bool {
        !self.close && (self.keep || !http_1_0)
    }

    fn note(&mut self, name: &str, value: &[u8]) -> Result<(), HeadError> {
        // Lengths first: nearly all fields are none of ours.
        match name.len() {
            6 if name.eq_ignore_ascii_case("expect") => {
                // The first of several counts, as for Go's `Header.Get`.
                self.expect.get_or_insert(expected(value));
            }
            7 if name.eq_ignore_ascii_case("upgrade") => self.upgrade = true,
            10 if name.eq_ignore_ascii_case("connection") => {
                self.close |= has_token(value, "close");
                self.keep |= has_token(value, "keep-alive");
            }
            14 if name.eq_ignore_ascii_case("content-length") => {
                // An empty one is none, or one that the engine refuses: there is no body in either case.
                let empty = value.trim_ascii().is_empty();
                let length = if empty { Some(0) } else { decimal(value) };
                let length = length.ok_or(HeadError::Malformed)?;
                if self.length.replace(length).is_some_and(|other| other != length) {
                    return Err(HeadError::Malformed);
                }
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                // A second such field, or a list of codings, is one that Go's server refuses as well.
                let chunked = value.trim_ascii().eq_ignore_ascii_case(b"chunked");
                self.chunked = Some(chunked && self.chunked.is_none());
            }
            _ => {}
        }
        Ok(())
    }
}

fn expected(value: &[u8]) -> Expect {
    match value.trim_ascii() {
        b"" => Expect::Nothing,
        value if has_token(value, "100-continue") => Expect::Continue,
        _ => Expect::Other,
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
pub fn with_fields(head: &[u8], without: &[&str], added: &str) -> Vec<u8> {
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
pub fn has_field(head: &[u8], name: &str) -> bool {
    field(head, name).is_some()
}

/// The value of the first field of this name.
pub fn field<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    head.split(|b| *b == b'\n').skip(1).find_map(|line| {
        let colon = line.iter().position(|b| *b == b':')?;
        line[..colon].eq_ignore_ascii_case(name.as_bytes()).then(|| line[colon + 1..].trim_ascii())
    })
}

/// Where the search for a head's end has come to, so that a long head that comes in small pieces is not parsed again
/// with each of them.
#[derive(Debug, Default)]
pub struct Growing {
    looked: usize,
    next: usize,
}

impl Growing {
    /// Whether parsing can bring anything new: a blank line has come, or far more bytes than at the last time.
    pub fn is_worth_parsing(&mut self, bytes: &[u8]) -> bool {
        let from = self.looked.saturating_sub(3).min(bytes.len());
        let blank = bytes[from..].windows(2).any(|pair| pair == b"\n\n")
            || bytes[from..].windows(3).any(|part| part == b"\n\r\n");
        self.looked = bytes.len();
        let grown = bytes.len() >= self.next;
        if grown {
            self.next = bytes.len() * 2;
        }
        blank || grown
    }
}

/// The head with another method, target or version on its first line.
pub fn with_first_line(head: &[u8], line: &str) -> Vec<u8> {
    let rest = head.iter().position(|b| *b == b'\n').map_or(&[][..], |at| &head[at + 1..]);
    [line.as_bytes(), b"\r\n", rest].concat()
}

#[cfg(test)]
mod tests;
