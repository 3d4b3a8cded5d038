//! Where the first JSON value of a body ends for Go's `encoding/json`, by which the engine reads it.
//!
//! serde is stricter in places (text that is no UTF-8) and asks for more (nothing behind the value). A body may only
//! pass unread when the engine is certain to refuse it: this is what tells. It must never call a value malformed that
//! Go takes, so it knows the grammar of RFC 8259 and nothing else.

/// Go gives up on anything deeper.
const MAX_DEPTH: usize = 10_000;

/// The bytes of the first value, without the blanks around it, and what follows; `None` when there is none.
pub fn first_value(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let start = blanks(body, 0);
    let end = value_end(body, start)?;
    Some((body.get(start..end)?, body.get(end..)?))
}

fn blanks(body: &[u8], mut at: usize) -> usize {
    while matches!(body.get(at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
        at += 1;
    }
    at
}

/// Where the value that begins at `at` ends.
fn value_end(body: &[u8], mut at: usize) -> Option<usize> {
    // The closing brackets that are still to come.
    let mut open: Vec<u8> = Vec::new();
    loop {
        match body.get(at)? {
            b'{' | b'[' => {
                let close = if body[at] == b'{' { b'}' } else { b']' };
                open.push(close);
                if open.len() > MAX_DEPTH {
                    return None;
                }
                at = blanks(body, at + 1);
                if body.get(at) != Some(&close) {
                    at = key(body, at, close)?;
                    continue;
                }
            }
            _ => at = scalar(body, at)?,
        }
        // Behind a value, or at the closing bracket of an empty one.
        at = match after_value(body, at, &mut open)? {
            Step::Next(at) => at,
            Step::End(at) => return Some(at),
        };
    }
}

enum Step {
    /// Another value begins here.
    Next(usize),
    /// The outermost value ends here.
    End(usize),
}

fn after_value(body: &[u8], mut at: usize, open: &mut Vec<u8>) -> Option<Step> {
    loop {
        let Some(&close) = open.last() else { return Some(Step::End(at)) };
        at = blanks(body, at);
        match *body.get(at)? {
            b',' => return key(body, blanks(body, at + 1), close).map(Step::Next),
            byte if byte == close => {
                open.pop();
                at += 1;
            }
            _ => return None,
        }
    }
}

/// Passes over `"key" :` within an object; within a list there is none.
fn key(body: &[u8], at: usize, close: u8) -> Option<usize> {
    if close == b']' {
        return Some(at);
    }
    let colon = blanks(body, text(body, at)?);
    (body.get(colon) == Some(&b':')).then(|| blanks(body, colon + 1))
}

fn scalar(body: &[u8], at: usize) -> Option<usize> {
    let literal = |word: &[u8]| body.get(at..)?.starts_with(word).then_some(at + word.len());
    match body.get(at)? {
        b'"' => text(body, at),
        b't' => literal(b"true"),
        b'f' => literal(b"false"),
        b'n' => literal(b"null"),
        _ => number(body, at),
    }
}

fn text(body: &[u8], at: usize) -> Option<usize> {
    if body.get(at) != Some(&b'"') {
        return None;
    }
    let mut at = at + 1;
    loop {
        match body.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => match body.get(at + 1)? {
                b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => at += 2,
                b'u' if body.get(at + 2..at + 6)?.iter().all(u8::is_ascii_hexdigit) => at += 6,
                _ => return None,
            },
            0..0x20 => return None,
            _ => at += 1,
        }
    }
}

fn number(body: &[u8], at: usize) -> Option<usize> {
    let digits = |at: usize| {
        let count = body.get(at..).unwrap_or_default().iter().take_while(|b| b.is_ascii_digit()).count();
        (count > 0).then_some(at + count)
    };
    let mut at = if body.get(at) == Some(&b'-') { at + 1 } else { at };
    at = if body.get(at) == Some(&b'0') { at + 1 } else { digits(at)? };
    if body.get(at) == Some(&b'.') {
        at = digits(at + 1)?;
    }
    if matches!(body.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(body.get(at + 1), Some(b'+' | b'-')));
        at = digits(at + 1 + sign)?;
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(body: &str) -> Option<(&str, &str)> {
        let (value, rest) = first_value(body.as_bytes())?;
        Some((std::str::from_utf8(value).unwrap(), std::str::from_utf8(rest).unwrap()))
    }

    #[test]
    fn a_value_ends_where_it_ends() {
        for (body, expected) in [
            (" {} x", Some(("{}", " x"))),
            (r#"{"a":[1,{"b":"}"}],"c":null}{}"#, Some((r#"{"a":[1,{"b":"}"}],"c":null}"#, "{}"))),
            ("nullx", Some(("null", "x"))),
            ("01", Some(("0", "1"))),
            ("[1,2", None),
            ("{\"a\":01}", None),
            ("{\"a\" 1}", None),
            ("{'a':1}", None),
            ("{\"a\":1,}", None),
            ("[1,]", None),
            ("[,1]", None),
            ("[}", None),
            ("\"\\q\"", None),
            ("\"a\nb\"", None),
            ("-", None),
            ("1.", None),
            ("", None),
        ] {
            assert_eq!(split(body), expected, "{body}");
        }
        assert_eq!(first_value(b"\"\xff\""), Some((&b"\"\xff\""[..], &b""[..])));
        assert!(first_value("[".repeat(20_000).as_bytes()).is_none());
    }

    proptest! {
        #[test]
        fn what_serde_takes_is_no_less(text in "[\\[\\]{},:\"a-c0-9.eE+\\- ntrufals\\\\]{0,40}") {
            if serde_json::from_str::<serde_json::Value>(&text).is_ok() {
                let (value, rest) = first_value(text.as_bytes()).unwrap();
                prop_assert_eq!(value, text.trim().as_bytes());
                prop_assert!(rest.trim_ascii().is_empty());
            }
        }

        #[test]
        fn what_is_a_value_here_is_one_for_serde(text in "[\\[\\]{},:\"a-c0-9.eE+\\- ntrufals]{0,40}") {
            if let Some((value, _)) = first_value(text.as_bytes()) {
                let parsed = serde_json::from_slice::<serde_json::Value>(value);
                let of_range = parsed.as_ref().err().is_some_and(|e| e.to_string().contains("out of range"));
                prop_assert!(parsed.is_ok() || of_range, "{:?}", text);
            }
        }
    }
}
