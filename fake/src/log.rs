//! What was logged in a test: each line with the spans around it. Must never be the global log: tests run beside each other.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, Once};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

/// A line.
#[derive(Debug, Clone)]
pub struct Line {
    /// Its message.
    pub message: String,
    /// The names and ids of the spans around it, the innermost first.
    pub spans: Vec<(&'static str, String)>,
}

impl Line {
    /// The id of the innermost span of this name.
    pub fn id(&self, name: &str) -> Option<&str> {
        self.spans.iter().find(|(span, _)| *span == name).map(|(_, id)| id.as_str())
    }
}

/// The lines of this thread, until this is dropped.
#[derive(Debug)]
pub struct Log {
    lines: Arc<Mutex<Vec<Line>>>,
    _guard: DefaultGuard,
}

impl Log {
    /// Begins to listen.
    pub fn listen() -> Self {
        // What a line is worth is asked once, of those who listen when it is come to first: without a listener for all threads
        // that may be a test that does not listen, and the line is never logged again.
        static FOR_ALL: Once = Once::new();
        FOR_ALL.call_once(|| drop(tracing::subscriber::set_global_default(Registry::default())));
        let lines = Arc::default();
        let subscriber = Registry::default().with(Capture(Arc::clone(&lines)));
        let guard = tracing::subscriber::set_default(subscriber);
        tracing::callsite::rebuild_interest_cache();
        Self { lines, _guard: guard }
    }

    /// What was logged so far.
    pub fn lines(&self) -> Vec<Line> {
        self.lines.lock().unwrap().clone()
    }

    /// The last line with this message.
    pub fn last(&self, message: &str) -> Line {
        let found = self.lines().into_iter().rfind(|line| line.message == message);
        found.unwrap_or_else(|| panic!("never logged: {message}"))
    }
}

struct Capture(Arc<Mutex<Vec<Line>>>);

/// A field of this name.
struct Text(&'static str, String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == self.0 {
            self.1 = format!("{value:?}").trim_matches('"').to_owned();
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Capture {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut text = Text("id", String::new());
        attributes.record(&mut text);
        context.span(id).unwrap().extensions_mut().insert(text);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut message = Text("message", String::new());
        event.record(&mut message);
        let around = context.event_scope(event).into_iter().flatten();
        let spans = around.filter_map(|span| Some((span.name(), span.extensions().get::<Text>()?.1.clone())));
        let line = Line { message: message.1, spans: spans.collect() };
        self.0.lock().unwrap().push(line);
    }
}
