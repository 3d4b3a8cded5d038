//! Who is told when something has changed. Pure but for what the listener itself does.

use std::fmt;

/// Nobody, or one.
#[derive(Default)]
pub(super) struct Listener(Option<Box<dyn Fn() + Send + Sync>>);

impl Listener {
    pub(super) fn new(listener: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(listener)))
    }

    /// Tells, if that concerns it.
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
