//! What a line is about, as the spans say in which it was written: `request` and `container`, each with an `id`. Spans of
//! libraries say nothing here.

use tracing::Subscriber;
use tracing_subscriber::fmt::format::FormatFields;
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// The names and ids of the spans around an event, the outermost first; of several of one name the innermost.
pub(super) fn around<S, N>(context: &FmtContext<'_, S, N>) -> Vec<(&'static str, String)>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    let mut found: Vec<(&'static str, String)> = Vec::new();
    let Some(scope) = context.event_scope() else { return found };
    for span in scope.filter(|span| span.metadata().target().starts_with("selvedge")) {
        let is_new = found.iter().all(|(name, _)| *name != span.name());
        let extensions = span.extensions();
        let fields = extensions.get::<FormattedFields<N>>().map(|fields| fields.fields.as_str());
        if let Some(id) = fields.and_then(|fields| fields.strip_prefix("id=")).filter(|_| is_new) {
            found.push((span.name(), id.to_owned()));
        }
    }
    found.reverse();
    found
}
