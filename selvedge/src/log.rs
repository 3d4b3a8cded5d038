//! The form of log lines: one grammar for keeper and worker, terminal, file and journal. It must never write colours to
//! anything but a terminal, nor a time that the journal notes by itself.

use std::fmt::{self, Debug, Write as _};
use std::fs::{File, OpenOptions};
use std::io::IsTerminal;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, format};
use tracing_subscriber::registry::LookupSpan;

/// Where the lines end up. A worker's own stderr is a pipe until it serves, then its keeper's: so that one is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Destination {
    /// The journal, which adds the time and takes priorities as `<3>`.
    Journal,
    /// A person at a terminal.
    Terminal,
    /// A file, a pipe.
    File,
}

impl Destination {
    /// Where this process's lines end up; or its parent's.
    pub(crate) fn of(parents: bool) -> Self {
        let path = match parents {
            true => format!("/proc/{}/fd/2", nix::unistd::getppid()),
            false => "/proc/self/fd/2".to_owned(),
        };
        let journal = std::env::var("JOURNAL_STREAM").unwrap_or_default();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        match std::fs::metadata(&path) {
            Ok(file) if journal == format!("{}:{}", file.dev(), file.ino()) => Self::Journal,
            Ok(_) if !no_color && terminal(&path).is_some_and(|file| file.is_terminal()) => Self::Terminal,
            _ => Self::File,
        }
    }
}

fn terminal(path: &str) -> Option<File> {
    OpenOptions::new().write(true).custom_flags(nix::libc::O_NOCTTY | nix::libc::O_NONBLOCK).open(path).ok()
}

/// Turns the log on.
pub(crate) fn init(filter: EnvFilter, json: bool, destination: Destination) {
    let journal = destination == Destination::Journal;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(destination == Destination::Terminal);
    match (json, journal) {
        (true, false) => log.json().init(),
        (true, true) => {
            let lines = format().json().without_time();
            log.json().event_format(Prioritised(lines)).init();
        }
        (false, true) => log.fmt_fields(Fields).event_format(Prioritised(Line { time: false })).init(),
        (false, false) => log.fmt_fields(Fields).event_format(Line { time: true }).init(),
    }
}

/// A line with its priority in front, as sd-daemon(3) has it.
struct Prioritised<F>(F);

impl<S, N, F> FormatEvent<S, N> for Prioritised<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        write!(writer, "<{priority}>")?;
        self.0.format_event(context, writer, event)
    }
}

/// `TIME LEVEL message key=value key=value`
struct Line {
    time: bool,
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
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
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
struct Fields;

impl<'w> FormatFields<'w> for Fields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut seen = Seen::default();
        fields.record(&mut seen);
        writer.write_str(&seen.message)?;
        if !seen.message.is_empty() && !seen.pairs.is_empty() {
            writer.write_char(' ')?;
        }
        writer.write_str(&seen.pairs)
    }
}

#[derive(Default)]
struct Seen {
    message: String,
    pairs: String,
}

impl Seen {
    fn take(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else if !value.is_empty() {
            let blank = if self.pairs.is_empty() { "" } else { " " };
            // Writing to a string does not fail.
            let _ = write!(self.pairs, "{blank}{}={}", field.name(), quoted(value));
        }
    }
}

impl Visit for Seen {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.take(field, &list(format!("{value:?}")));
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

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Sink {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    fn written(work: impl FnOnce()) -> String {
        let sink = Sink::default();
        let log = tracing_subscriber::fmt().with_writer(sink.clone()).with_ansi(false).fmt_fields(Fields);
        let subscriber = log.event_format(Prioritised(Line { time: false })).finish();
        tracing::subscriber::with_default(subscriber, work);
        String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_line_has_one_grammar_whoever_wrote_the_value() {
        let names = vec!["a".to_owned(), "b".to_owned()];
        let none: Vec<String> = Vec::new();
        let text = written(|| {
            tracing::info!(container = "0123", name = %"x", ?names, none = ?none, n = 3, "wired");
            tracing::error!(error = %"no such file", why = "", "cannot");
        });
        assert_eq!(
            text,
            "<6> INFO wired container=0123 name=x names=a,b n=3\n<3>ERROR cannot error=\"no such file\"\n"
        );
    }
}
