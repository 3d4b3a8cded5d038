//! Which of our containers a client means. Must never take a prefix for a name: only the engine knows all containers.

use crate::shared::Containers;

/// The id of the container that the client calls `reference`, if it is one of ours.
pub async fn ours(containers: &Containers, reference: &str) -> Option<String> {
    if let Some(id) = containers.book.find(reference) {
        return Some(id);
    }
    // One that another worker or another client created a moment ago.
    let container = containers.engine.inspect(reference).await.ok()?;
    containers.book.learn(&container).then_some(container.id)
}
