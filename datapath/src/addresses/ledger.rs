//! Which create holds which address, in memory that all workers of a keeper share.
//!
//! One word per address of IPv4, in a sparse file: the number of the create that took it, and whether the engine has made
//! its container. A worker claims an address by compare-and-swap, so two workers (the one that leaves, the one that comes)
//! never give the same one, and what a dead worker had given stays taken. Must never be the only source of what a
//! container is: it says only that an address is in use.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};

use ipnet::Ipv4Net;
use memmap2::{MmapOptions, MmapRaw};
use nix::unistd::{Whence, lseek};

/// Bytes of a mapped page, and words in it. The kernel's pages are no larger on any machine that runs Docker's packages.
const PAGE: usize = 64 * 1024;
const WORDS: u32 = (PAGE / size_of::<u64>()) as u32;
/// One word for each IPv4 address. The file is sparse: only pages that were written to take memory.
const FILE: u64 = (1 << 32) * size_of::<u64>() as u64;
/// The container of this create exists.
const MADE: u64 = 1 << 63;
/// No container has this address; its word says whether every address in use is in here.
const COMPLETE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

/// Who has an address, as far as the ledger knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The create's number.
    pub create: u64,
    /// Whether the engine has made its container.
    pub made: bool,
}

impl Claim {
    fn read(word: u64) -> Option<Self> {
        (word != 0).then_some(Self { create: word & !MADE, made: word & MADE != 0 })
    }

    fn word(self) -> u64 {
        (self.create & !MADE) | if self.made { MADE } else { 0 }
    }
}

/// The shared memory.
#[derive(Debug)]
pub struct Ledger {
    file: File,
    pages: Mutex<HashMap<u32, MmapRaw>>,
}

impl Ledger {
    /// Uses a memfd that the keeper holds. Makes it large enough; never smaller, for another worker may have mapped it.
    ///
    /// # Errors
    /// It is no file that can grow.
    pub fn open(memory: OwnedFd) -> io::Result<Self> {
        let file = File::from(memory);
        if file.metadata()?.len() < FILE {
            file.set_len(FILE)?;
        }
        Ok(Self { file, pages: Mutex::default() })
    }

    /// Runs `f` on the word of an address.
    fn with<T>(&self, address: Ipv4Addr, f: impl FnOnce(&AtomicU64) -> T) -> io::Result<T> {
        let (page, word) = (address.to_bits() / WORDS, address.to_bits() % WORDS);
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let map = match pages.entry(page) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let offset = u64::from(page) * PAGE as u64;
                entry.insert(MmapOptions::new().offset(offset).len(PAGE).map_raw(&self.file)?)
            }
        };
        // SAFETY: `word` is below WORDS, so it lies within the mapping, which is aligned to a page and lives as long as the
        // lock is held; all access to it, by any process, is atomic.
        let word = unsafe { AtomicU64::from_ptr(map.as_mut_ptr().cast::<u64>().add(word as usize)) };
        Ok(f(word))
    }

    /// Takes an address for a create, if no other one has it.
    pub fn claim(&self, address: Ipv4Addr, claim: Claim) -> bool {
        let (new, plain) = (claim.word(), Claim { made: false, ..claim }.word());
        self.with(address, |word| match word.compare_exchange(0, new, SeqCst, SeqCst) {
            Ok(_) => true,
            // Its own: what was only taken may have been made since.
            Err(old) if old & !MADE == plain => {
                word.fetch_or(new & MADE, SeqCst);
                true
            }
            Err(_) => false,
        })
        .unwrap_or(false)
    }

    /// Gives an address back, if it is this create's.
    pub fn release(&self, address: Ipv4Addr, create: u64) {
        let plain = create & !MADE;
        let _ = self.with(address, |word| {
            for old in [plain, plain | MADE] {
                let _ = word.compare_exchange(old, 0, SeqCst, SeqCst);
            }
        });
    }

    /// Who has the address.
    pub fn holder(&self, address: Ipv4Addr) -> Option<Claim> {
        self.with(address, |word| Claim::read(word.load(SeqCst))).ok().flatten()
    }

    /// All addresses of a block that are taken. Reads the file, not the mapping: a look must not fill its holes.
    pub fn taken_in(&self, block: Ipv4Net) -> Vec<(Ipv4Addr, Claim)> {
        let word = |address: Ipv4Addr| u64::from(address.to_bits()) * size_of::<u64>() as u64;
        let (mut at, end) = (word(block.network()), word(block.broadcast()) + size_of::<u64>() as u64);
        let (mut taken, mut bytes) = (Vec::new(), vec![0; PAGE]);
        while let Some(begin) = self.next_data(at).filter(|begin| *begin < end) {
            let part = &mut bytes[..PAGE.min(usize::try_from(end - begin).unwrap_or(PAGE))];
            if self.file.read_exact_at(part, begin).is_err() {
                break;
            }
            let words = part.chunks_exact(size_of::<u64>()).enumerate();
            taken.extend(
                words.filter(|(_, word)| word.iter().any(|byte| *byte != 0)).map(|(nth, _)| {
                    Ipv4Addr::from_bits((begin / size_of::<u64>() as u64) as u32 + nth as u32)
                }),
            );
            at = begin + part.len() as u64;
        }
        taken.into_iter().filter_map(|address| Some((address, self.holder(address)?))).collect()
    }

    /// Where the file has data next, a multiple of the size of a word.
    fn next_data(&self, at: u64) -> Option<u64> {
        let found = lseek(&self.file, i64::try_from(at).ok()?, Whence::SeekData).ok()?;
        u64::try_from(found).ok().map(|found| found.max(at))
    }

    /// Whether every address in use is in here: a worker has read the engine's whole list since the keeper began.
    pub fn is_complete(&self) -> bool {
        self.with(COMPLETE, |word| word.load(SeqCst) != 0).unwrap_or(false)
    }

    /// Says so.
    pub fn set_complete(&self) {
        let _ = self.with(COMPLETE, |word| word.store(1, SeqCst));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(10, 32, 0, 1);
    const TAKEN: Claim = Claim { create: 7, made: false };

    fn two() -> (Ledger, Ledger) {
        let memory: OwnedFd = tempfile::tempfile().unwrap().into();
        let copy = memory.try_clone().unwrap();
        (Ledger::open(memory).unwrap(), Ledger::open(copy).unwrap())
    }

    #[test]
    fn what_one_worker_has_taken_the_next_one_does_not_give() {
        let (dying, next) = two();
        assert!(dying.claim(A, TAKEN));
        drop(dying);
        assert!(!next.claim(A, Claim { create: 8, made: false }));
        assert_eq!(next.holder(A), Some(TAKEN));
        assert!(next.claim(A, Claim { made: true, ..TAKEN }), "the create's own");
        assert!(next.holder(A).unwrap().made && next.claim(A, TAKEN) && next.holder(A).unwrap().made);
        next.release(A, 8);
        assert!(next.holder(A).is_some(), "only the create that has it gives it back");
        next.release(A, 7);
        assert_eq!(next.holder(A), None);
    }

    #[test]
    fn a_block_is_listed_and_the_ends_of_the_address_space_are_words_too() {
        let (ledger, other) = two();
        for address in [A, Ipv4Addr::new(10, 32, 0, 254), Ipv4Addr::BROADCAST] {
            assert!(ledger.claim(address, TAKEN), "{address}");
        }
        let listed = other.taken_in("10.32.0.0/24".parse().unwrap());
        assert_eq!(listed.iter().map(|(address, _)| address.octets()[3]).collect::<Vec<_>>(), [1, 254]);
        assert!(!other.is_complete());
        ledger.set_complete();
        assert!(other.is_complete());
    }
}
