//! The table as several threads share it: many look names up, one changes them. Must never let a second one change them: the
//! order of rules and names is kept where they are written.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::table::Table;

/// The table, for those who look names up. Both sides hold the lock for microseconds only.
#[derive(Debug, Clone)]
pub struct SharedTable(Arc<RwLock<Table>>);

/// The table, for the one who changes it: there is no second of it.
#[derive(Debug)]
pub struct TableWriter(Arc<RwLock<Table>>);

// A panic under the lock leaves the table readable: it is whole after each change.
impl SharedTable {
    /// Looks at it.
    pub fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TableWriter {
    /// Shares the table from now on.
    #[must_use]
    pub fn new(table: Table) -> Self {
        Self(Arc::new(RwLock::new(table)))
    }

    /// For those who look names up.
    pub fn reader(&self) -> SharedTable {
        SharedTable(Arc::clone(&self.0))
    }

    /// Changes it.
    pub fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
