//! The listener for changes that concern virtual addresses. It must never be called without such a change.

use std::fmt;

/// At most one callback.
#[derive(Default)]
pub(super) struct Listener(Option<Box<dyn Fn() + Send + Sync>>);

impl Listener {
    pub(super) fn new(listener: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(listener)))
    }

    /// Calls the listener, if the change concerns it.
    pub(super) fn tell(&self, concerned: bool) {
        if let Some(listener) = self.0.as_ref().filter(|_| concerned) {
            listener();
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Listener" } else { "-" })
    }
}
