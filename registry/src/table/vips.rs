//! The records that stand behind virtual addresses. Pure; must never do more with them than list them.

use super::Table;
use super::listener::Listener;
use crate::record::Record;

impl Table {
    /// Sets the listener for changes that concern virtual addresses. It is called while the table is locked: it must
    /// not ask the table anything.
    pub fn on_vips(&mut self, listener: impl Fn() + Send + Sync + 'static) {
        self.listener = Listener::new(listener);
    }

    /// Whether any container stands behind a virtual address.
    #[must_use]
    pub fn has_vips(&self) -> bool {
        !self.by_vip.is_empty()
    }

    /// A container is about to be stopped, as its host says: it takes no new connections, although its record, which comes
    /// by way of the registry, may still say or soon say otherwise. Until a record says the same, or
    /// [`Table::no_longer_aside`].
    pub fn stand_aside(&mut self, id: &str) {
        let is_news = self.aside.insert(id.to_owned());
        self.listener.tell(is_news && self.by_vip.contains(id));
    }

    /// The record alone counts again.
    pub fn no_longer_aside(&mut self, id: &str) {
        let was_aside = self.aside.remove(id);
        self.listener.tell(was_aside && self.by_vip.contains(id));
    }

    /// The records that stand behind virtual addresses and take connections, ordered by id.
    pub(super) fn vip_records(&self) -> impl Iterator<Item = &Record> {
        let takes_part = |id: &&String| !self.aside.contains(*id);
        self.by_vip.iter().filter(takes_part).filter_map(|id| self.records.get(id))
    }
}
