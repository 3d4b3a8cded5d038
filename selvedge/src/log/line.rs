//! A line of text: `TIME LEVEL message key=value key=value`. Must never let a value run into the next key.

use std::fmt::{self, Debug, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::registry::LookupSpan;

use super::spans;

/// One event.
pub(super) struct Line {
    pub(super) time: bool,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if self.time {
            SystemTime.format_time(&mut writer)?;
            writer.write_char(' ')?;
        }
        let level = *event.metadata().level();
        match (writer.has_ansi_escapes(), colour(level)) {
            (true, colour) => write!(writer, "\x1b[{colour}m{level:>5}\x1b[0m ")?,
            (false, _) => write!(writer, "{level:>5} ")?,
        }
        let mut seen = Seen::default();
        event.record(&mut seen);
        for (name, id) in spans::around(context) {
            if !seen.names.contains(&name) {
                seen.take(name, &id);
            }
        }
        writeln!(writer, "{}", seen.text())
    }
}

fn colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}

/// `message key=value`, where a value has quotes only if it needs them, and what is empty is left out.
pub(super) struct Fields;

impl<'w> FormatFields<'w> for Fields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut seen = Seen::default();
        fields.record(&mut seen);
        writer.write_str(&seen.text())
    }
}

#[derive(Default)]
struct Seen {
    message: String,
    pairs: String,
    names: Vec<&'static str>,
}

impl Seen {
    fn take(&mut self, name: &'static str, value: &str) {
        if name == "message" {
            value.clone_into(&mut self.message);
        } else if !value.is_empty() {
            self.names.push(name);
            let blank = if self.pairs.is_empty() { "" } else { " " };
            // Writing to a string does not fail.
            let _ = write!(self.pairs, "{blank}{name}={}", quoted(value));
        }
    }

    fn text(&self) -> String {
        let blank = if self.message.is_empty() || self.pairs.is_empty() { "" } else { " " };
        format!("{}{blank}{}", self.message, self.pairs)
    }
}

impl Visit for Seen {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.take(field.name(), &list(format!("{value:?}")));
    }
}

/// A value that a program can read back: as it is, or in quotes where it would run into the next one.
fn quoted(value: &str) -> String {
    let is_plain = !value.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"');
    if is_plain { value.to_owned() } else { format!("{value:?}") }
}

/// A list of words as `a,b`, not as Rust writes it; anything else as it is.
fn list(text: String) -> String {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match inner {
        Some(inner) if inner.is_empty() || inner.starts_with('"') => {
            inner.split(", ").map(|word| word.trim_matches('"')).collect::<Vec<_>>().join(",")
        }
        _ => text,
    }
}
