//! The records that stand behind virtual addresses, and who is told when they change. Pure but for what the listener does.

use std::fmt;

use super::Table;
use crate::record::Record;

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

impl Table {
    /// Says who is told of each change that concerns virtual addresses. Called while the table is locked: it must not
    /// ask the table anything.
    pub fn on_vips(&mut self, listener: impl Fn() + Send + Sync + 'static) {
        self.listener = Listener::new(listener);
    }

    /// Whether anybody stands behind a virtual address.
    #[must_use]
    pub fn has_vips(&self) -> bool {
        !self.by_vip.is_empty()
    }

    /// The records that stand behind virtual addresses, in the order of their ids.
    pub(crate) fn vip_records(&self) -> impl Iterator<Item = &Record> {
        self.by_vip.iter().filter_map(|id| self.records.get(id))
    }
}
