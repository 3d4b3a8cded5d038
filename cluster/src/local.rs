//! The registry of a single host: what this host says is all that is known.

use std::sync::PoisonError;

use selvedge_registry::record::Record;
use selvedge_registry::table::SharedTable;

/// Writes this host's records into the table that DNS reads.
#[derive(Debug, Clone)]
pub struct Local {
    table: SharedTable,
}

impl Local {
    /// The registry that fills `table`; nobody else may write to it.
    #[must_use]
    pub fn new(table: SharedTable) -> Self {
        Self { table }
    }

    /// Makes a record known, in the place of an older one of the same container. Gives back what was wrong
    /// with names that were left out.
    pub fn publish(&self, record: Record) -> Vec<selvedge_registry::error::Error> {
        self.table.write().unwrap_or_else(PoisonError::into_inner).put(record)
    }

    /// Takes a container's record back; whether there was one.
    pub fn withdraw(&self, id: &str) -> bool {
        self.table.write().unwrap_or_else(PoisonError::into_inner).remove(id)
    }

    /// How many containers are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
