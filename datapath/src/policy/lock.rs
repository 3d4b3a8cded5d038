//! Locks that a panic elsewhere does not close: what they hold is whole after each statement. Must never be held over an await.

use std::sync::{Mutex, MutexGuard, PoisonError, RwLockReadGuard, RwLockWriteGuard};

use selvedge_registry::table::{SharedTable, Table};

/// Takes a lock.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the table to change it.
pub(super) fn write(table: &SharedTable) -> RwLockWriteGuard<'_, Table> {
    table.write().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the table to read it.
pub(super) fn read(table: &SharedTable) -> RwLockReadGuard<'_, Table> {
    table.read().unwrap_or_else(PoisonError::into_inner)
}
