//! A table of requests: plain text, one request a line, and what its lines mean.
//!
//! The grammar stands at the head of `tests/tables/framing.txt`. Must never send anything.

use std::fmt::Write as _;

/// One request of a table.
#[derive(Debug, Clone)]
pub struct Row {
    /// Where it stands: `file:line`.
    pub place: String,
    /// The line as written.
    pub text: String,
    /// Method, target and version.
    pub line: String,
    /// Head fields, in order, with their line ends still to come.
    pub fields: Vec<String>,
    /// The body, if there is one.
    pub body: Option<Body>,
    /// All bytes as written; the rest does not count then.
    pub raw: Option<String>,
    /// Why the two sides may differ, one word of the list in `docs/guide.md`.
    pub differs: Option<String>,
    /// Only for engines of this API version or newer, or older.
    pub engines: Engines,
}

/// Which engines a row is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engines {
    /// Every engine.
    All,
    /// API 1.N or newer.
    Since(u32),
    /// Older than API 1.N.
    Before(u32),
}

impl Engines {
    /// Whether an engine of API 1.`minor` is among them.
    #[must_use]
    pub fn has(self, minor: u32) -> bool {
        match self {
            Self::All => true,
            Self::Since(first) => minor >= first,
            Self::Before(end) => minor < end,
        }
    }
}

/// A body and how it is framed.
#[derive(Debug, Clone)]
pub enum Body {
    /// With its length.
    Whole(String),
    /// In one chunk, and an empty one for an empty body.
    Chunked(String),
}

/// Rows of one section, which run one after the other on containers of their own.
#[derive(Debug, Clone)]
pub struct Section {
    /// Its name: letters and digits.
    pub name: String,
    /// Its rows.
    pub rows: Vec<Row>,
}

/// Reads a table.
///
/// # Panics
/// At a line that means nothing.
#[must_use]
pub fn read(file: &str, text: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let place = format!("{file}:{}", number + 1);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix("== ") {
            sections.push(Section { name: name.to_owned(), rows: Vec::new() });
            continue;
        }
        let section = sections.last_mut().unwrap_or_else(|| panic!("{place}: no section yet"));
        section.rows.push(row(place, line));
    }
    sections
}

fn row(place: String, text: &str) -> Row {
    let mut parts = text.split(" | ");
    let first = parts.next().unwrap_or_default();
    let mut row = Row {
        place,
        text: text.to_owned(),
        line: String::new(),
        fields: vec!["Host: d".to_owned()],
        body: None,
        raw: None,
        differs: None,
        engines: Engines::All,
    };
    match first.strip_prefix("raw ") {
        Some(raw) => row.raw = Some(raw.to_owned()),
        None => first.clone_into(&mut row.line),
    }
    for part in parts {
        row.take(part.trim_end());
    }
    row.finish();
    row
}

impl Row {
    fn take(&mut self, part: &str) {
        let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("{}: {part:?}", self.place));
        if let Some(body) = part.strip_prefix("body") {
            self.body = Some(Body::Whole(body.trim_start().to_owned()));
        } else if let Some(body) = part.strip_prefix("chunked") {
            self.body = Some(Body::Chunked(body.trim_start().to_owned()));
        } else if let Some(reason) = part.strip_prefix("differs ") {
            self.differs = Some(reason.to_owned());
        } else if let Some(minor) = part.strip_prefix("since 1.") {
            self.engines = Engines::Since(number(minor));
        } else if let Some(minor) = part.strip_prefix("before 1.") {
            self.engines = Engines::Before(number(minor));
        } else if let Some(name) = part.strip_prefix('!') {
            self.fields.retain(|field| !is_named(field, name));
            // Says that none is to be put there either.
            self.fields.push(format!("!{name}"));
        } else {
            self.fields.push(part.to_owned());
        }
    }

    fn finish(&mut self) {
        let has = |row: &Self, name: &str| {
            row.fields.iter().any(|field| is_named(field.trim_start_matches('!'), name))
        };
        if self.body.is_some() && !has(self, "Content-Type") {
            self.fields.push("Content-Type: application/json".to_owned());
        }
        match &self.body {
            Some(Body::Chunked(_)) => self.fields.push("Transfer-Encoding: chunked".to_owned()),
            Some(Body::Whole(_)) if !has(self, "Content-Length") => {
                self.fields.push("Content-Length: <length>".to_owned());
            }
            _ => {}
        }
        self.fields.retain(|field| !field.starts_with('!'));
    }

    /// The head and the body, with every `<name>` replaced by what `fill` says.
    #[must_use]
    pub fn bytes(&self, fill: &mut dyn FnMut(&str) -> String) -> (Vec<u8>, Vec<u8>) {
        if let Some(raw) = &self.raw {
            return (unescaped(&filled(raw, fill)), Vec::new());
        }
        let (body, length) = match &self.body {
            None => (Vec::new(), 0),
            Some(Body::Whole(text)) => {
                let body = filled(text, fill).into_bytes();
                let length = body.len();
                (body, length)
            }
            Some(Body::Chunked(text)) => (chunked(&filled(text, fill)), 0),
        };
        let version = if self.line.split(' ').count() > 2 { "" } else { " HTTP/1.1" };
        let mut head = format!("{}{version}\\r\\n", filled(&self.line, fill));
        for field in &self.fields {
            let (field, times) = repeated(field);
            for number in 0..times {
                let field = field.replace("<number>", &number.to_string());
                let field = field.replace("<length>", &length.to_string());
                let _ = write!(head, "{}\\r\\n", filled(&field, fill));
            }
        }
        head.push_str("\\r\\n");
        (unescaped(&head), body)
    }

    /// Whether the client waits for a `100 Continue` before its body.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.body.is_some() && self.fields.iter().any(|field| is_named(field, "Expect"))
    }
}

fn is_named(field: &str, name: &str) -> bool {
    field.split(':').next().is_some_and(|found| found.trim().eq_ignore_ascii_case(name))
}

/// `X-Many*600: v` is 600 fields.
fn repeated(field: &str) -> (String, usize) {
    let (name, value) = field.split_once(':').unwrap_or((field, ""));
    match name.split_once('*').and_then(|(name, times)| Some((name, times.parse().ok()?))) {
        Some((name, times)) => (format!("{name}:{value}"), times),
        None => (field.to_owned(), 1),
    }
}

fn chunked(body: &str) -> Vec<u8> {
    match body.is_empty() {
        true => b"0\r\n\r\n".to_vec(),
        false => format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).into_bytes(),
    }
}

/// Replaces `<big:N>` by N letters, and every other `<word>` by what `fill` says.
fn filled(text: &str, fill: &mut dyn FnMut(&str) -> String) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, name, after)) = rest.split_once('<').and_then(|(before, after)| {
        let (name, after) = after.split_once('>')?;
        Some((before, name, after))
    }) {
        out.push_str(before);
        match name.strip_prefix("big:").and_then(|count| count.parse().ok()) {
            Some(count) => out.push_str(&"x".repeat(count)),
            None => out.push_str(&fill(name)),
        }
        rest = after;
    }
    out + rest
}

/// `\r`, `\n`, `\t`, `\\` and `\xHH` are bytes.
fn unescaped(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escape = bytes.get(at + 1).filter(|_| byte == b'\\');
        let hex = || u8::from_str_radix(text.get(at + 2..at + 4)?, 16).ok();
        let (byte, length) = match escape {
            Some(b'r') => (b'\r', 2),
            Some(b'n') => (b'\n', 2),
            Some(b't') => (b'\t', 2),
            Some(b'\\') => (b'\\', 2),
            Some(b'x') => hex().map_or((byte, 1), |byte| (byte, 4)),
            _ => (byte, 1),
        };
        out.push(byte);
        at += length;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_becomes_the_bytes_of_a_request() {
        let table = "== a\nPOST /x/<run>?t=1 | Upgrade: h2c | X-M*2: <number> | body {\"a\":1}\n";
        let row = &read("t", table)[0].rows[0];
        let (head, body) = row.bytes(&mut |name| format!("my-{name}"));
        let expected = "POST /x/my-run?t=1 HTTP/1.1\r\nHost: d\r\nUpgrade: h2c\r\nX-M: 0\r\nX-M: 1\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n";
        assert_eq!((String::from_utf8_lossy(&head).as_ref(), &body[..]), (expected, &b"{\"a\":1}"[..]));
        let row = &read("t", "== a\nGET / HTTP/1.0 | !Host | chunked\n")[0].rows[0];
        assert_eq!(row.bytes(&mut |_| String::new()).1, b"0\r\n\r\n");
        let row = &read("t", "== a\nraw \\x16\\r\\n | differs plain\n")[0].rows[0];
        assert_eq!(row.bytes(&mut |_| String::new()).0, b"\x16\r\n");
        assert_eq!(row.differs.as_deref(), Some("plain"));
    }
}
