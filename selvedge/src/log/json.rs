//! A line of JSON: `{"timestamp": .., "level": .., "fields": {"message": .., KEY: VALUE}, "target": ..}`, one object a line.

use std::fmt::{self, Debug};

use serde::Serialize;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::registry::LookupSpan;

use super::spans;

/// One event.
pub(super) struct Json {
    pub(super) time: bool,
}

#[derive(Serialize)]
struct Object {
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
    level: &'static str,
    fields: Map<String, Value>,
    target: &'static str,
}

impl<S, N> FormatEvent<S, N> for Json
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
        let mut fields = Fields::default();
        event.record(&mut fields);
        for (name, id) in spans::around(context) {
            fields.0.entry(name).or_insert_with(|| id.into());
        }
        let (level, target) = (event.metadata().level().as_str(), event.metadata().target());
        let object = Object { timestamp: self.time.then(now).transpose()?, level, fields: fields.0, target };
        writeln!(writer, "{}", serde_json::to_string(&object).map_err(|_| fmt::Error)?)
    }
}

fn now() -> Result<String, fmt::Error> {
    let mut time = String::new();
    SystemTime.format_time(&mut Writer::new(&mut time))?;
    Ok(time)
}

#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn take(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.take(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.take(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.take(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.take(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.take(field, format!("{value:?}"));
    }
}
