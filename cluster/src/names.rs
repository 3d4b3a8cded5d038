//! Where names go: this host's at once into the table that is answered from, the other hosts' by a way that may first do
//! something else with them.

use std::sync::PoisonError;

use selvedge_registry::record::Record;
use selvedge_registry::table::SharedTable;

/// Takes in the records of other hosts. Called in the order of the news; must not block.
pub trait Others: Send {
    /// A record is there, in place of the one with its id.
    fn put(&mut self, record: Record);
    /// The record with this id is not there any more.
    fn remove(&mut self, id: &str);
}

/// At once.
impl Others for SharedTable {
    fn put(&mut self, record: Record) {
        // Names that are none were told on the host that has them.
        let _ = self.write().unwrap_or_else(PoisonError::into_inner).put(record);
    }

    fn remove(&mut self, id: &str) {
        self.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

/// The ways of both.
pub struct Names {
    /// What is answered from: this host's records go in at once.
    pub table: SharedTable,
    /// The way of the other hosts' records.
    pub others: Box<dyn Others>,
}

impl Names {
    /// Both at once into the table.
    #[must_use]
    pub fn at_once(table: SharedTable) -> Self {
        Self { others: Box::new(SharedTable::clone(&table)), table }
    }
}
