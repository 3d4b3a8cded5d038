//! In whose name lines are logged: everything below has the container's id. Must never say anything else of it: the lines
//! do.

use selvedge_engine::model::short;
use tracing::Span;

/// For what is done for one container. At the level of errors, so that no line that is logged lacks it.
pub fn container(id: &str) -> Span {
    tracing::error_span!("container", id = short(id))
}
