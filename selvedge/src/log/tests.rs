//! Lines as people and programs read them.

use std::io;
use std::sync::{Arc, Mutex};

use tracing_subscriber::Registry;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;

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

fn written<E>(format: E, work: impl FnOnce()) -> String
where
    E: FormatEvent<Registry, Fields> + Send + Sync + 'static,
{
    let sink = Sink::default();
    let lines = tracing_subscriber::fmt::layer().with_writer(sink.clone()).with_ansi(false);
    let subscriber = tracing_subscriber::registry().with(lines.fmt_fields(Fields).event_format(format));
    tracing::subscriber::with_default(subscriber, work);
    String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
}

fn text(work: impl FnOnce()) -> String {
    written(Prioritised(Line { time: false }), work)
}

#[test]
fn a_line_has_one_grammar_whoever_wrote_the_value() {
    let names = vec!["a".to_owned(), "b".to_owned()];
    let none: Vec<String> = Vec::new();
    let text = text(|| {
        tracing::info!(container = "0123", name = %"x", ?names, none = ?none, n = 3, "wired");
        tracing::error!(error = %"no such file", why = "", "cannot");
    });
    assert_eq!(
        text,
        "<6> INFO wired container=0123 name=x names=a,b n=3\n<3>ERROR cannot error=\"no such file\"\n"
    );
}

/// A start of one container by a client, and in it what concerns another.
fn start() {
    let request = tracing::info_span!("request", id = %"4312.17");
    let _request = request.enter();
    tracing::info!(endpoint = "start", "asked");
    let container = tracing::info_span!("container", id = "0123");
    let _container = container.enter();
    let library = tracing::info_span!(target: "h2", "connection", id = 5);
    let _library = library.enter();
    tracing::info!(address = "10.32.0.2", "wired");
    tracing::info!(container = "4567", "stopped");
}

#[test]
fn every_line_says_what_it_is_about_and_says_it_once() {
    assert_eq!(
        text(start),
        "<6> INFO asked endpoint=start request=4312.17\n\
         <6> INFO wired address=10.32.0.2 request=4312.17 container=0123\n\
         <6> INFO stopped container=4567 request=4312.17\n"
    );
}

#[test]
fn json_has_the_same_fields_and_keeps_numbers() {
    let lines = written(Json { time: false }, || {
        start();
        tracing::warn!(n = 3, fast = true, error = %"no such file", "cannot");
    });
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let fields: Vec<String> = lines.iter().map(|line| line["fields"].to_string()).collect();
    assert_eq!(
        fields,
        [
            r#"{"message":"asked","endpoint":"start","request":"4312.17"}"#,
            r#"{"message":"wired","address":"10.32.0.2","request":"4312.17","container":"0123"}"#,
            r#"{"message":"stopped","container":"4567","request":"4312.17"}"#,
            r#"{"message":"cannot","n":3,"fast":true,"error":"no such file"}"#,
        ]
    );
    assert_eq!((&lines[3]["level"], lines[3].get("timestamp")), (&"WARN".into(), None));
    assert!(written(Json { time: true }, start).starts_with("{\"timestamp\":\"20"), "a time for files");
}
