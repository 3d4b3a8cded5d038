//! Where names go: this host's go at once into the table that is answered from, and other hosts' take a path that may
//! do something else with them first.

use std::sync::PoisonError;

use selvedge_registry::record::Record;
use selvedge_registry::table::SharedTable;

/// Takes in the records of other hosts. Called in the order of the news; must not block.
pub trait Others: Send {
    /// Adds a record, replacing the one with its id.
    fn put(&mut self, record: Record);
    /// Removes the record with this id.
    fn remove(&mut self, id: &str);
}

/// Applies records at once.
impl Others for SharedTable {
    fn put(&mut self, record: Record) {
        // The host of the container has already reported invalid names.
        let _ = self.write().unwrap_or_else(PoisonError::into_inner).put(record);
    }

    fn remove(&mut self, id: &str) {
        self.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

/// Where both kinds go.
pub struct Names {
    /// The table that is answered from: this host's records go in at once.
    pub table: SharedTable,
    /// The path of the other hosts' records.
    pub others: Box<dyn Others>,
}

impl Names {
    /// Sends both at once into the table.
    #[must_use]
    pub fn at_once(table: SharedTable) -> Self {
        Self { others: Box::new(SharedTable::clone(&table)), table }
    }
}
