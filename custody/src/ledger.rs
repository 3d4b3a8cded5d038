//! A worker's records: a sparse file in which each request in flight has a place of its own.
//!
//! The keeper holds the file, and gives it to the next worker. Must never be written to by any but the worker that made it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::entry::{Entry, Phase};
use crate::places::{self, Places};
use crate::request::{Numbers, RequestId};

/// The records of this worker.
#[derive(Debug)]
pub struct Ledger {
    places: Arc<Places>,
    numbers: Numbers,
}

impl Ledger {
    /// An empty one, and its file for the keeper.
    ///
    /// # Errors
    /// The kernel's: no memory, no descriptors.
    pub fn create() -> io::Result<(Arc<Self>, OwnedFd)> {
        let memory = memfd_create(c"selvedge-custody", MFdFlags::MFD_CLOEXEC)?;
        let copy = memory.try_clone()?;
        let places = Arc::new(Places::new(memory));
        Ok((Arc::new(Self { places, numbers: Numbers::default() }), copy))
    }

    /// What a worker that is gone has left: the records of requests that it had not finished.
    ///
    /// # Errors
    /// It is no such file, or cannot be mapped.
    pub fn read(memory: OwnedFd) -> io::Result<Vec<Entry>> {
        let left = places::all(memory)?.into_iter().map(Entry::left);
        Ok(left.filter(|entry| entry.phase() != Phase::Free).collect())
    }

    /// A place for what a client sends. Nothing is on record yet.
    ///
    /// # Errors
    /// `WouldBlock` when all are in use; the kernel's when it has no memory.
    pub fn open(&self, client: u64) -> io::Result<Entry> {
        let (place, memory) = self.places.take()?;
        Ok(Entry::open(memory, place, Arc::clone(&self.places), client))
    }

    /// A number for a request that has none.
    pub(crate) fn number(&self) -> RequestId {
        self.numbers.next()
    }
}
