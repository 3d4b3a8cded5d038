//! The state of a keeper that was killed, out of its records, its places, and the operation that was under way.
//!
//! It must never count that operation twice, nor name a descriptor that is not open.

use crate::error::Error;
use crate::protocol::FromKeeper;
use crate::pump::flow::Phase;
use crate::pump::record::StreamRecord;
use crate::records::{
    self, BASE, CLIENT, CONN, ESTATE, LISTENERS, NEXT_CLIENT, ORDER, PARKED, STREAM, UNDERSTOOD, WORKER,
};
use crate::saved::{
    Loaded, Saved, SavedClient, SavedConn, SavedEstate, SavedFlow, SavedParked, SavedResume, SavedStream,
    SavedWorker, take,
};
use crate::shared::board::{Board, Doing};
use crate::shared::log::{self, Key};
use crate::shared::memory::Memory;
use crate::shared::slots::{FlowState, Place, SlotTable};
use crate::worker::OrderRecord;
use rustix::io::{FdFlags, fcntl_getfd, ioctl_fionread};
use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, RawFd};

/// How often successors begin to understand the same packet before it is left out.
const TRIES: u32 = 2;

/// What is left to do when the state has been taken over.
pub(crate) struct Killed {
    pub(crate) board: Board,
    /// That worker's packet was received, and perhaps not understood.
    pub(crate) packet: Option<u32>,
}

/// The state under that number, as the environment variable holds it: of a keeper that was killed, or of a former image.
///
/// # Errors
/// `State` if it cannot be understood.
pub(crate) fn load(number: &str) -> Result<(Loaded, Option<Killed>), Error> {
    match board(number) {
        Some(board) => {
            let (loaded, packet) = Remains::read(&board)?.load()?;
            Ok((loaded, Some(Killed { board, packet })))
        }
        None => Ok((Loaded::read(number)?, None)),
    }
}

fn board(number: &str) -> Option<Board> {
    // SAFETY: only borrowed, and duplicated, which fails for a number that is not open.
    let fd = unsafe { BorrowedFd::borrow_raw(number.parse().ok().filter(|number| *number > 2)?) };
    Board::open(Memory::map(fd.try_clone_to_owned().ok()?).ok()?)
}

/// All that a keeper left.
struct Remains<'a> {
    board: &'a Board,
    slots: SlotTable,
    records: BTreeMap<Key, Vec<u8>>,
    armed: Option<(Doing, u64)>,
    saved: Saved,
    bytes: Vec<u8>,
}

impl<'a> Remains<'a> {
    fn read(board: &'a Board) -> Result<Remains<'a>, Error> {
        let (slots, log) = board.names();
        let map = |number: RawFd| Memory::map(take(number)?).map_err(Error::os("shared memory"));
        let records: BTreeMap<Key, Vec<u8>> = log::read(&map(log)?).into_iter().collect();
        let base = records.get(&BASE).and_then(|value| records::parse::<Saved>(value));
        let base = base.ok_or_else(|| Error::State("the killed keeper left no records".to_owned()))?;
        let mut saved = base.what;
        saved.up_ms = saved.up_ms.saturating_add(base.age_ms);
        saved.respawn_in_ms = saved.respawn_in_ms.map(|ms| ms.saturating_sub(base.age_ms));
        let (slots, armed) = (SlotTable::open(map(slots)?), board.armed());
        Ok(Remains { board, slots, records, armed, saved, bytes: Vec::new() })
    }

    fn load(mut self) -> Result<(Loaded, Option<u32>), Error> {
        let listeners = self.records.get(&LISTENERS).and_then(|value| records::parse(value));
        self.saved.listeners = listeners.map(|record| record.what).unwrap_or_default();
        // In the order in which the next image takes their bytes.
        self.each(STREAM, Remains::add_stream);
        self.each(WORKER, Remains::add_worker);
        self.each(CONN, Remains::add_conn);
        self.each(PARKED, Remains::add_parked);
        self.each(CLIENT, Remains::add_client);
        self.each(ESTATE, Remains::add_estate);
        let next = self.records.get(&NEXT_CLIENT).and_then(|value| value.first_chunk());
        self.saved.next_client = next.map_or(0, |next| u64::from_le_bytes(*next));
        let packet = self.packet();
        Ok((Loaded::new(self.saved, self.bytes)?, packet))
    }

    /// Adds all records of one kind.
    fn each(&mut self, kind: u32, add: impl Fn(&mut Self, u64, &[u8]) -> Option<()>) {
        let (first, last) = (Key { kind, number: 0 }, Key { kind, number: u64::MAX });
        let found: Vec<_> =
            self.records.range(first..=last).map(|(key, value)| (key.number, value.clone())).collect();
        for (number, value) in found {
            // None: it was being dropped, and its descriptors are closed already.
            let _ = add(self, number, &value);
        }
    }

    /// The worker whose packet was received last, if that was not understood.
    fn packet(&self) -> Option<u32> {
        let (Doing::Packet(worker), seq) = self.armed? else { return None };
        let understood = self.records.get(&UNDERSTOOD).and_then(|value| value.first_chunk());
        let is_new = seq > understood.map_or(0, |seq| u64::from_le_bytes(*seq));
        (is_new && self.board.received() > 0 && self.board.tried() < TRIES).then_some(worker)
    }

    fn add_worker(&mut self, _: u64, value: &[u8]) -> Option<()> {
        let record = records::parse::<SavedWorker>(value)?;
        record.what.fds().all(is_open).then_some(())?;
        let orders = self.orders(record.what.id());
        self.saved.add_recorded_worker(record.what, record.age_ms, orders);
        Some(())
    }

    /// The orders for that worker that were not sent.
    fn orders(&mut self, worker: u32) -> Vec<(FromKeeper, usize, Vec<RawFd>)> {
        let (first, last) = (Key { kind: ORDER, number: 0 }, Key { kind: ORDER, number: u64::MAX });
        let mut orders = Vec::new();
        for (key, value) in self.records.range(first..=last) {
            let was_sent = self.armed.is_some_and(|(doing, _)| doing == Doing::Order(key.number))
                && self.board.sent() > 0;
            let record = records::parse::<OrderRecord>(value).filter(|record| record.what.worker == worker);
            if let Some(record) =
                record.filter(|record| !was_sent && record.what.fds.iter().all(|fd| is_open(*fd)))
            {
                orders.push((record.what.head, record.bytes.len(), record.what.fds));
                self.bytes.extend(record.bytes);
            }
        }
        orders
    }

    fn add_conn(&mut self, _: u64, value: &[u8]) -> Option<()> {
        let record = records::parse::<SavedConn>(value)?;
        is_open(record.what.client).then_some(())?;
        self.bytes.extend(record.bytes);
        self.saved.conns.push(record.what);
        Some(())
    }

    fn add_parked(&mut self, _: u64, value: &[u8]) -> Option<()> {
        let record = records::parse::<SavedParked>(value)?;
        is_open(record.what.client).then_some(())?;
        self.bytes.extend(record.bytes);
        self.saved.parked.push(record.what);
        Some(())
    }

    fn add_client(&mut self, _: u64, value: &[u8]) -> Option<()> {
        let record = records::parse::<SavedClient>(value)?;
        is_open(record.what.socket).then_some(())?;
        self.bytes.extend(record.bytes);
        self.saved.clients.push(record.what);
        Some(())
    }

    fn add_estate(&mut self, _: u64, value: &[u8]) -> Option<()> {
        let mut estate = records::parse::<SavedEstate>(value)?.what;
        estate.memory = estate.memory.filter(|fd| is_open(*fd));
        estate.connections.retain(|(_, fd)| is_open(*fd));
        self.saved.estates.push(estate);
        Some(())
    }

    fn add_stream(&mut self, number: u64, value: &[u8]) -> Option<()> {
        let record = records::parse::<StreamRecord>(value)?;
        let StreamRecord { label, age_ms, ends, hold_upstream, input } = record.what;
        ends.iter().chain(&input).all(|fd| is_open(*fd)).then_some(())?;
        let age_ms = age_ms.saturating_add(record.age_ms);
        let place = |direction| Place { index: number as u32, direction };
        let (up, down) = (self.flow(place(0)), self.flow(place(1)));
        let position = down.state.position;
        let flows = [self.add_flow(up), self.add_flow(down)];
        let note = record.bytes.len();
        let resume = hold_upstream.map(|hold_upstream| {
            self.bytes.extend(record.bytes);
            SavedResume { note, position, hold_upstream, upstream_gone_at: None }
        });
        self.saved.streams.push(SavedStream { label, age_ms, ends, flows, resume, input });
        Some(())
    }

    fn add_flow(&mut self, flow: FoundFlow) -> SavedFlow {
        let pending = flow.pending.len();
        self.bytes.extend(flow.pending);
        // Ends are found again: a socket tells of its end as often as it is asked.
        SavedFlow { pending, pipe: flow.pipe, phase: Phase::Open, moved: flow.state.position.moved }
    }

    /// One direction, with the operation under way counted.
    fn flow(&self, place: Place) -> FoundFlow {
        let mut state = self.slots.read(place);
        let pipe = state.pipe.filter(|(reader, writer)| is_open(*reader) && is_open(*writer));
        let pipe = pipe.map(|(reader, writer)| (reader, writer, held(reader)));
        let mut pending = self.pending(place, &state);
        let in_pipe = pipe.map_or(0, |(_, _, held)| held);
        let armed = self.armed.filter(|(_, seq)| *seq > state.seq);
        let seq = armed.map_or(0, |(_, seq)| seq);
        match armed.map(|(doing, _)| doing) {
            Some(Doing::Copy(at)) if at == place => {
                let bytes = self.board.buffer(self.board.received());
                let sent = self.board.sent().min(bytes.len());
                state.position.pass(&bytes[..sent]);
                pending = bytes[sent..].to_vec();
            }
            Some(Doing::Flush(at)) if at == place => {
                let sent = self.board.sent().min(pending.len());
                state.position.pass(&pending[..sent]);
                pending.drain(..sent);
            }
            Some(Doing::Drain(at, before)) if at == place => {
                state.position.pass_unseen(before.saturating_sub(in_pipe));
            }
            Some(Doing::Unsplice(at, before)) if at == place => match self.held_since(place, seq) {
                Some(held) => pending = held.get(state.start as usize..).unwrap_or_default().to_vec(),
                None => pending.extend_from_slice(self.board.buffer(before.saturating_sub(in_pipe))),
            },
            _ => {}
        }
        FoundFlow { state, pending, pipe }
    }

    /// The bytes of a record that was made after that operation began.
    fn held_since(&self, place: Place, seq: u64) -> Option<&[u8]> {
        let (number, bytes) = self.records.get(&records::pending_key(place))?.split_first_chunk::<8>()?;
        (u64::from_le_bytes(*number) > seq).then_some(bytes)
    }

    /// The bytes that were held, without those that were written.
    fn pending(&self, place: Place, state: &FlowState) -> Vec<u8> {
        let record = self.records.get(&records::pending_key(place));
        let found = record.and_then(|value| value.split_first_chunk::<8>());
        match found {
            Some((number, bytes)) if u64::from_le_bytes(*number) == state.pending => {
                bytes.get(state.start as usize..).unwrap_or_default().to_vec()
            }
            // Of a state that does not count yet, or no longer.
            _ => Vec::new(),
        }
    }
}

struct FoundFlow {
    state: FlowState,
    pending: Vec<u8>,
    pipe: Option<(RawFd, RawFd, usize)>,
}

/// How many bytes are in that pipe.
fn held(reader: RawFd) -> usize {
    // SAFETY: only borrowed for one call; the caller has seen that it is open.
    ioctl_fionread(unsafe { BorrowedFd::borrow_raw(reader) }).unwrap_or(0) as usize
}

fn is_open(number: RawFd) -> bool {
    // SAFETY: only borrowed for one call, which is safe for any number.
    number > 2
        && fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) })
            .is_ok_and(|flags| !flags.contains(FdFlags::CLOEXEC))
}
