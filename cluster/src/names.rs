//! Where other hosts' names go. Must never know what is done with them.

use selvedge_registry::record::Record;

/// Takes in the records of other hosts. Called in the order of the news; must not block.
pub trait Others: Send {
    /// Adds a record, replacing the one with its id.
    fn put(&mut self, record: Record);
    /// Removes the record with this id.
    fn remove(&mut self, id: &str);
}
