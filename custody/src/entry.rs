//! The record of one client's request, from its first byte to the last one of its answer.
//!
//! Each step is made valid by one store of the state, after all that belongs to it has been written. Must never be changed
//! once its worker is gone: it is copied by the next one.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memmap2::MmapRaw;

use crate::places::Places;
use crate::tape::{Head, Tape};

/// How far a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// There is none.
    Free,
    /// It is read, and what was asked for it had no effect: to be served from its first byte.
    Reading,
    /// Something was asked of the engine that must not be asked twice.
    Asking,
    /// The whole answer is on record; another request may follow, or the connection ends behind it.
    Answering {
        /// Another request may follow.
        keep: bool,
    },
    /// Part of an answer was sent that is not on record: only the end of the connection tells.
    Loose,
}

impl Phase {
    fn number(self) -> u64 {
        match self {
            Self::Free => 0,
            Self::Reading => 1,
            Self::Asking => 2,
            Self::Answering { keep: true } => 3,
            Self::Answering { keep: false } => 4,
            Self::Loose => 5,
        }
    }

    fn of(number: u64) -> Self {
        match number {
            0 => Self::Free,
            1 => Self::Reading,
            2 => Self::Asking,
            3 => Self::Answering { keep: true },
            4 => Self::Answering { keep: false },
            _ => Self::Loose,
        }
    }
}

/// What one call took from a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// So many bytes.
    pub len: usize,
    /// It had no more at that moment.
    pub drained: bool,
}

/// The head of a place.
#[repr(C)]
struct Place {
    client: AtomicU64,
    /// The phase in the highest byte; below it where in `asked` the request begins, or what follows it once it is answered.
    state: AtomicU64,
    /// The number of the engine's connection.
    engine: AtomicU64,
    /// The number under which something was taken for this request.
    number: AtomicU64,
    tapes: [Head; TAPES],
    /// By which number people know the request. Where earlier releases have nothing, and leave nothing.
    request: AtomicU64,
}

const TAPES: usize = 5;
const PHASE: u32 = 56;
const MIB: usize = 1 << 20;
/// Where the areas lie in a place, and their room.
const AREAS: [(usize, usize); TAPES] = [
    (64 << 10, 16 * MIB - (64 << 10)),
    (16 * MIB, 48 * MIB),
    (64 * MIB, 64 * MIB),
    (128 * MIB, 64 * MIB),
    (192 * MIB, 64 * MIB),
];
/// What the next worker needs to know to go on with the engine's answer.
const NOTE: usize = 0;
/// From the client.
const ASKED: usize = 1;
/// To the engine.
const TOLD: usize = 2;
/// From the engine.
const HEARD: usize = 3;
/// To the client.
const ANSWER: usize = 4;

/// A record.
#[derive(Debug)]
pub struct Entry {
    /// Taken out when it is given back.
    memory: Option<MmapRaw>,
    place: u64,
    /// None of ours: a dead worker's.
    places: Option<Arc<Places>>,
    turn: Mutex<()>,
}

impl Entry {
    pub(crate) fn open(memory: MmapRaw, place: u64, places: Arc<Places>, client: u64) -> Self {
        let entry = Self { memory: Some(memory), place, places: Some(places), turn: Mutex::default() };
        let _turn = entry.turn();
        for tape in 0..TAPES {
            entry.tape(tape).clear();
        }
        entry.head().engine.store(0, SeqCst);
        entry.head().number.store(0, SeqCst);
        entry.head().request.store(0, SeqCst);
        entry.head().client.store(client, SeqCst);
        drop(_turn);
        entry.set(Phase::Reading, 0);
        entry
    }

    pub(crate) fn left(memory: MmapRaw) -> Self {
        Self { memory: Some(memory), place: 0, places: None, turn: Mutex::default() }
    }

    /// One at a time: tapes are not to be used by two threads at once.
    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn base(&self) -> *mut u8 {
        self.memory.as_ref().map_or(std::ptr::null_mut(), MmapRaw::as_mut_ptr)
    }

    fn head(&self) -> &Place {
        // SAFETY: the mapping begins with the head, is aligned to a page, lives as long as we do, and all that is reached
        // by this reference is atomic.
        unsafe { &*self.base().cast::<Place>() }
    }

    /// To be used only by who has the turn.
    fn tape(&self, number: usize) -> Tape<'_> {
        let (area, room) = AREAS[number];
        // SAFETY: heads and areas lie apart from each other within the mapping; the turn keeps other threads out, and no
        // other process uses the memory of a worker that lives.
        unsafe {
            let heads = (&raw mut (*self.base().cast::<Place>()).tapes).cast::<Head>();
            Tape::new(heads.add(number), self.base().add(area), room)
        }
    }

    fn set(&self, phase: Phase, start: usize) {
        self.head().state.store(phase.number() << PHASE | start as u64, SeqCst);
    }

    fn start(&self) -> usize {
        (self.head().state.load(SeqCst) & ((1 << PHASE) - 1)) as usize
    }

    /// How far it has come.
    pub fn phase(&self) -> Phase {
        Phase::of(self.head().state.load(SeqCst) >> PHASE)
    }

    /// Whose request it is.
    pub fn client(&self) -> u64 {
        self.head().client.load(SeqCst)
    }

    /// The number of the engine's connection, of one that is [`Phase::Asking`].
    pub fn engine(&self) -> u64 {
        self.head().engine.load(SeqCst)
    }

    /// The number under which something was taken for this request; 0 for none.
    pub fn number(&self) -> u64 {
        self.head().number.load(SeqCst)
    }

    /// Something is about to be taken for this request under a number, by which the next worker gives it back.
    pub fn set_number(&self, number: u64) {
        self.head().number.store(number, SeqCst);
    }

    /// By which number people know the request; 0 for none yet.
    pub(crate) fn request(&self) -> u64 {
        self.head().request.load(SeqCst)
    }

    /// People are to know the request by this number, also when it is another worker's.
    pub(crate) fn set_request(&self, number: u64) {
        self.head().request.store(number, SeqCst);
    }

    /// Takes what a client has sent, and adds it to `into`; nothing at the end of its stream.
    ///
    /// # Errors
    /// What recvmmsg(2) says; `FileTooLarge` beyond 48 MiB.
    pub fn receive(&self, client: BorrowedFd<'_>, into: &mut Vec<u8>) -> io::Result<Received> {
        let _turn = self.turn();
        let tape = self.tape(ASKED);
        let (bytes, drained) = tape.receive(client)?;
        into.extend_from_slice(bytes);
        Ok(Received { len: bytes.len(), drained })
    }

    /// Puts on record what another worker has read.
    ///
    /// # Errors
    /// `FileTooLarge` beyond 48 MiB.
    pub fn receive_before(&self, bytes: &[u8]) -> io::Result<()> {
        let _turn = self.turn();
        self.tape(ASKED).add_received(bytes)
    }

    /// What a client has sent that has no answer yet.
    pub fn asked(&self) -> Vec<u8> {
        let _turn = self.turn();
        let tape = self.tape(ASKED);
        tape.bytes(self.start(), tape.done()).to_vec()
    }

    /// Puts on record what is to be asked of the engine over the connection `engine`: `told` is sent by [`Entry::tell`], and
    /// `note` is what the next worker needs to know to go on.
    ///
    /// # Errors
    /// `FileTooLarge` beyond 64 MiB, and 16 of the note: then nothing is on record.
    pub fn ask(&self, engine: u64, note: &[u8], told: &[u8]) -> io::Result<()> {
        let _turn = self.turn();
        self.set(Phase::Reading, self.start());
        for tape in [NOTE, TOLD, HEARD] {
            self.tape(tape).clear();
        }
        self.tape(NOTE).put(note)?;
        self.tape(TOLD).put(told)?;
        self.head().engine.store(engine, SeqCst);
        self.set(Phase::Asking, self.start());
        Ok(())
    }

    /// The note of what was asked.
    pub fn note(&self) -> Vec<u8> {
        let _turn = self.turn();
        let tape = self.tape(NOTE);
        tape.bytes(0, tape.total()).to_vec()
    }

    /// Sends the engine what it takes now. Whether it has all.
    ///
    /// # Errors
    /// What sendmmsg(2) says.
    pub fn tell(&self, engine: BorrowedFd<'_>) -> io::Result<bool> {
        let _turn = self.turn();
        self.tape(TOLD).send(engine)
    }

    /// Takes what the engine has said, and adds it to `into`; nothing at the end of its stream.
    ///
    /// # Errors
    /// What recvmmsg(2) says; `FileTooLarge` beyond 64 MiB.
    pub fn hear(&self, engine: BorrowedFd<'_>, into: &mut Vec<u8>) -> io::Result<Received> {
        let _turn = self.turn();
        let tape = self.tape(HEARD);
        let (bytes, drained) = tape.receive(engine)?;
        into.extend_from_slice(bytes);
        Ok(Received { len: bytes.len(), drained })
    }

    /// All that the engine has said.
    pub fn heard(&self) -> Vec<u8> {
        let _turn = self.turn();
        let tape = self.tape(HEARD);
        tape.bytes(0, tape.done()).to_vec()
    }

    /// Whether the engine has got any of it.
    pub fn is_told(&self) -> bool {
        let _turn = self.turn();
        self.tape(TOLD).done() > 0
    }

    /// What was asked had no effect: the request is one that is read, as before.
    pub fn take_back(&self) {
        self.set(Phase::Reading, self.start());
    }

    /// Puts the whole answer on record. `rest`: so many bytes of what the client has sent are another request's.
    ///
    /// # Errors
    /// `FileTooLarge` beyond 64 MiB: then nothing is on record.
    pub fn answer(&self, bytes: &[u8], rest: usize, keep: bool) -> io::Result<()> {
        let _turn = self.turn();
        let tape = self.tape(ANSWER);
        tape.clear();
        tape.put(bytes)?;
        let received = self.tape(ASKED).done();
        self.set(Phase::Answering { keep }, received.saturating_sub(rest));
        Ok(())
    }

    /// Sends the client what it takes now. Whether it has all.
    ///
    /// # Errors
    /// What sendmmsg(2) says.
    pub fn write(&self, client: BorrowedFd<'_>) -> io::Result<bool> {
        let _turn = self.turn();
        self.tape(ANSWER).send(client)
    }

    /// The answer has been sent: what follows it is the next request.
    pub fn next(&self) {
        self.set_number(0);
        self.set_request(0);
        self.set(Phase::Reading, self.start());
    }

    /// From now on something is sent to the client that is not on record.
    pub fn loosen(&self) {
        self.set(Phase::Loose, self.start());
    }

    /// Takes over what a dead worker has left of this client's request. `engine` is the connection's number here.
    ///
    /// # Errors
    /// `FileTooLarge` for what this worker has no room for.
    pub fn take_over(&self, left: &Entry, engine: u64) -> io::Result<()> {
        let (_turn, _its) = (self.turn(), left.turn());
        let start = left.start();
        let asked = left.tape(ASKED);
        self.tape(ASKED).add_received(asked.bytes(start, asked.done()))?;
        let heard = left.tape(HEARD);
        self.tape(HEARD).add_received(heard.bytes(0, heard.done()))?;
        for number in [NOTE, TOLD, ANSWER] {
            let tape = left.tape(number);
            self.tape(number).put_sent(tape.bytes(0, tape.total()), tape.done())?;
        }
        self.head().engine.store(engine, SeqCst);
        self.head().number.store(left.number(), SeqCst);
        self.set_request(left.request());
        self.set(left.phase(), 0);
        Ok(())
    }

    /// Up to where the areas have been written.
    fn used(&self) -> [(usize, usize); TAPES] {
        let mut used = AREAS;
        for (number, (_, len)) in used.iter_mut().enumerate() {
            let tape = self.tape(number);
            *len = tape.done().max(tape.total());
        }
        used
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let Some(places) = self.places.take() else { return };
        self.set(Phase::Free, 0);
        let used = self.used();
        if let Some(memory) = self.memory.take() {
            places.give_back(self.place, memory, &used);
        }
    }
}

#[cfg(test)]
mod tests;
