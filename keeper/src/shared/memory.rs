//! A memfd and its mapping. It must never shrink: every process that maps it relies on its length.

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Shared memory, zero at first. Pages that were never written take no memory.
pub(crate) struct Memory {
    file: File,
    map: MmapRaw,
}

impl Memory {
    pub(crate) fn create(name: &str, length: usize) -> io::Result<Memory> {
        let file = File::from(memfd_create(name, MemfdFlags::CLOEXEC)?);
        file.set_len(length as u64)?;
        Memory::map(file.into())
    }

    /// Maps what another image of this process made.
    pub(crate) fn map(fd: OwnedFd) -> io::Result<Memory> {
        let file = File::from(fd);
        let map = MmapOptions::new().map_raw(&file)?;
        Ok(Memory { file, map })
    }

    /// Keeps it in memory where that is allowed: a page that was swapped out could not be written by the kernel for a
    /// process that is being killed.
    pub(crate) fn lock(&self) {
        let _ = self.map.lock();
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    pub(crate) fn start(&self) -> *mut u8 {
        self.map.as_mut_ptr()
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }
}
