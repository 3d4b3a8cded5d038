//! The places of a ledger's file: mapped one by one, used again, and given back to the kernel when they have grown.
//!
//! It must never give a place to two requests at once.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use memmap2::{MmapOptions, MmapRaw};
use nix::fcntl::{FallocateFlags, fallocate};

/// Bytes of one place, nearly all of them a hole.
const PLACE: usize = 256 << 20;
/// So many requests at once; more have to wait for a place.
const MOST: u64 = 16 * 1024;
/// Bytes of an area that stay in memory for the next request.
const KEPT: usize = 64 << 10;

/// All places of a file.
#[derive(Debug)]
pub(crate) struct Places {
    file: File,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Those in use no more, the last one first: its pages are there already.
    free: Vec<(u64, MmapRaw)>,
    made: u64,
}

impl Places {
    pub(crate) fn new(memory: OwnedFd) -> Self {
        Self { file: memory.into(), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place that is in no one's use, with its number.
    ///
    /// # Errors
    /// `WouldBlock` when all are in use; the kernel's when it has no memory.
    pub(crate) fn take(&self) -> io::Result<(u64, MmapRaw)> {
        let mut state = self.state();
        if let Some(free) = state.free.pop() {
            return Ok(free);
        }
        let place = state.made;
        if place >= MOST {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.file.set_len((place + 1) * PLACE as u64)?;
        let memory = map(&self.file, place)?;
        state.made += 1;
        Ok((place, memory))
    }

    /// Takes a place back. `used`: where its areas begin, and up to where each has been written.
    pub(crate) fn give_back(&self, place: u64, memory: MmapRaw, used: &[(usize, usize)]) {
        for (area, len) in used.iter().filter(|(_, len)| *len > KEPT) {
            let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            let (at, len) = (place * PLACE as u64 + (*area + KEPT) as u64, (*len - KEPT) as u64);
            // Memory that stays is no error of a request.
            let _ = fallocate(&self.file, flags, at as i64, len as i64);
        }
        self.state().free.push((place, memory));
    }
}

fn map(file: &File, place: u64) -> io::Result<MmapRaw> {
    MmapOptions::new().offset(place * PLACE as u64).len(PLACE).map_raw(file)
}

/// All places of another one's file, as they are.
///
/// # Errors
/// It is no such file, or cannot be mapped.
pub(crate) fn all(memory: OwnedFd) -> io::Result<Vec<MmapRaw>> {
    let file = File::from(memory);
    let places = file.metadata()?.len() / PLACE as u64;
    (0..places.min(MOST)).map(|place| map(&file, place)).collect()
}
