//! How far each direction of each stream has come: a place for two states, and which of them counts.
//!
//! It must never change the state that counts: the other one is written, and then made to count by one store.

use crate::position::Position;
use crate::shared::memory::Memory;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering, compiler_fence};

/// One direction of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) index: u32,
    /// 0 is to the upstream, 1 to the client.
    pub(crate) direction: u32,
}

/// What is known of one direction. Plain data without pointers: the same image reads it again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FlowState {
    /// The last operation that is counted in here.
    pub(crate) seq: u64,
    pub(crate) position: Position,
    /// Which record of held bytes belongs to this state; 0 for none.
    pub(crate) pending: u64,
    /// How many of those bytes were written.
    pub(crate) start: u64,
    /// Read end and write end of the pipe in use.
    pub(crate) pipe: Option<(RawFd, RawFd)>,
}

#[repr(C)]
struct Slot {
    counts: AtomicU32,
    states: [FlowState; 2],
}

/// The places of all streams.
pub(crate) struct SlotTable {
    memory: Memory,
}

impl SlotTable {
    pub(crate) fn new(streams: usize) -> io::Result<SlotTable> {
        Ok(SlotTable { memory: Memory::create("selvedge-places", (streams.max(1)) * 2 * size_of::<Slot>())? })
    }

    pub(crate) fn open(memory: Memory) -> SlotTable {
        SlotTable { memory }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.memory.fd()
    }

    pub(crate) fn has(&self, index: u32) -> bool {
        (index as usize + 1) * 2 * size_of::<Slot>() <= self.memory.len()
    }

    /// None for a place beyond the memory.
    fn slot(&self, place: Place) -> Option<*mut Slot> {
        let number = place.index as usize * 2 + place.direction as usize;
        let is_there = self.has(place.index) && place.direction < 2;
        // SAFETY: within the mapping, as just checked.
        is_there.then(|| unsafe { self.memory.start().cast::<Slot>().add(number) })
    }

    pub(crate) fn read(&self, place: Place) -> FlowState {
        let Some(slot) = self.slot(place) else { return FlowState::default() };
        // SAFETY: a place within the mapping; zeros, or written by this same image. Nothing writes it meanwhile.
        unsafe {
            let counts = (*slot).counts.load(Ordering::Acquire) & 1;
            (&raw const (*slot).states[counts as usize]).read()
        }
    }

    pub(crate) fn write(&self, place: Place, state: FlowState) {
        let Some(slot) = self.slot(place) else { return };
        // SAFETY: a place within the mapping, which only this one thread writes; the state that counts is not touched.
        unsafe {
            let other = (*slot).counts.load(Ordering::Relaxed) & 1 ^ 1;
            (&raw mut (*slot).states[other as usize]).write(state);
            compiler_fence(Ordering::SeqCst);
            (*slot).counts.store(other, Ordering::Release);
        }
    }
}
