//! The form of log lines: one grammar for keeper and worker, terminal, file and journal, text and JSON. It must never write
//! colours to anything but a terminal, nor a time that the journal notes by itself.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::IsTerminal;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

use self::json::Json;
use self::line::{Fields, Line};

mod json;
mod line;
mod spans;

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
        .with_ansi(destination == Destination::Terminal)
        .fmt_fields(Fields);
    match (json, journal) {
        (true, false) => log.event_format(Json { time: true }).init(),
        (true, true) => log.event_format(Prioritised(Json { time: false })).init(),
        (false, true) => log.event_format(Prioritised(Line { time: false })).init(),
        (false, false) => log.event_format(Line { time: true }).init(),
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

#[cfg(test)]
mod tests;
