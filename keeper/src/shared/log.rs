//! Records under keys, in memory that a successor can read: what a keeper has, in its own words.
//!
//! Entries are appended behind the end, and count once the end is moved past them by one store. When the memory is full,
//! what still counts is written to a larger one, which then takes its place, again by one store. A record must never
//! name a descriptor that is not open: put after opening, drop and commit before closing.

use crate::shared::memory::Memory;
use std::collections::HashMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering, compiler_fence};

/// The least size: enough for some thousand records.
const SMALLEST: usize = 256 << 10;
/// The end, as the first eight bytes.
const START: usize = 8;
/// Kind and what is done, number, length of the value.
const HEADER: usize = 24;
const DROPPED: u64 = 1 << 32;

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) kind: u32,
    pub(crate) number: u64,
}

/// The records of a living keeper.
pub(crate) struct Log {
    memory: Memory,
    end: usize,
    /// Where the value of each record begins, and its length.
    live: HashMap<Key, (usize, usize)>,
    live_bytes: usize,
    batch: Vec<u8>,
    graves: Vec<OwnedFd>,
}

impl Log {
    pub(crate) fn new() -> io::Result<Log> {
        let memory = Memory::create("selvedge-records", SMALLEST)?;
        publish(&memory, START);
        let (live, batch, graves) = (HashMap::new(), Vec::new(), Vec::new());
        Ok(Log { memory, end: START, live, live_bytes: 0, batch, graves })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.memory.fd()
    }

    pub(crate) fn put(&mut self, key: Key, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        write_header(&mut self.batch, key, 0, length);
        parts.iter().for_each(|part| self.batch.extend_from_slice(part));
    }

    pub(crate) fn remove(&mut self, key: Key) {
        write_header(&mut self.batch, key, DROPPED, 0);
    }

    pub(crate) fn bury(&mut self, fds: impl IntoIterator<Item = OwnedFd>) {
        self.graves.extend(fds);
    }

    /// Publishes the batch; `renamed` is told of a larger memory before that takes the place of this one.
    pub(crate) fn commit(&mut self, renamed: impl FnOnce(BorrowedFd<'_>)) -> io::Result<()> {
        if !self.batch.is_empty() {
            if self.end + self.batch.len() > self.memory.len() {
                self.grow(renamed)?;
            }
            self.append();
        }
        self.graves.clear();
        Ok(())
    }

    fn append(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        copy_in(&self.memory, self.end, &batch);
        for (key, value) in entries(&batch) {
            let entry = value.map(|(start, length)| (self.end + start, length));
            self.count(key, entry);
        }
        self.end += batch.len();
        publish(&self.memory, self.end);
        self.batch = batch;
        self.batch.clear();
        self.batch.shrink_to(SMALLEST);
    }

    fn count(&mut self, key: Key, entry: Option<(usize, usize)>) {
        let before = match entry {
            Some(entry) => self.live.insert(key, entry),
            None => self.live.remove(&key),
        };
        let size = |entry: Option<(usize, usize)>| entry.map_or(0, |(_, length)| HEADER + length);
        self.live_bytes = self.live_bytes + size(entry) - size(before);
    }

    /// Writes what counts, but not the batch, to another memory.
    fn grow(&mut self, renamed: impl FnOnce(BorrowedFd<'_>)) -> io::Result<()> {
        let wanted = 2 * (self.live_bytes + self.batch.len() + START);
        let memory = Memory::create("selvedge-records", wanted.max(SMALLEST).next_power_of_two())?;
        let (old, mut end) = (bytes(&self.memory, self.end), START);
        for (key, (start, length)) in &mut self.live {
            let mut header = Vec::with_capacity(HEADER);
            write_header(&mut header, *key, 0, *length);
            copy_in(&memory, end, &header);
            copy_in(&memory, end + HEADER, &old[*start..*start + *length]);
            *start = end + HEADER;
            end += HEADER + *length;
        }
        publish(&memory, end);
        renamed(memory.fd());
        (self.memory, self.end) = (memory, end);
        Ok(())
    }
}

/// All records of a keeper that is gone, by key.
pub(crate) fn read(memory: &Memory) -> Vec<(Key, Vec<u8>)> {
    // SAFETY: the end is the first word of the memory, which is longer and aligned to a page.
    let end = unsafe { AtomicU64::from_ptr(memory.start().cast()) }.load(Ordering::Acquire);
    let end = usize::try_from(end).unwrap_or(0).clamp(START, memory.len());
    let all = &bytes(memory, end)[START..];
    let mut live = HashMap::new();
    for (key, value) in entries(all) {
        match value {
            Some(value) => live.insert(key, value),
            None => live.remove(&key),
        };
    }
    let mut records: Vec<_> =
        live.into_iter().map(|(key, (start, length))| (key, all[start..start + length].to_vec())).collect();
    records.sort_by_key(|(key, _)| *key);
    records
}

fn write_header(to: &mut Vec<u8>, key: Key, what: u64, length: usize) {
    to.extend_from_slice(&(u64::from(key.kind) | what).to_le_bytes());
    to.extend_from_slice(&key.number.to_le_bytes());
    to.extend_from_slice(&(length as u64).to_le_bytes());
}

/// Each entry with the start and the length of its value; none for one that drops its record.
fn entries(bytes: &[u8]) -> impl Iterator<Item = (Key, Option<(usize, usize)>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let header: &[u8; HEADER] = bytes.get(at..)?.first_chunk()?;
        let word = |number: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&header[8 * number..8 * number + 8]);
            u64::from_le_bytes(word)
        };
        let (start, length) = (at + HEADER, usize::try_from(word(2)).ok()?);
        at = start.checked_add(length).filter(|end| *end <= bytes.len())?;
        let key = Key { kind: word(0) as u32, number: word(1) };
        Some((key, (word(0) & DROPPED == 0).then_some((start, length))))
    })
}

fn publish(memory: &Memory, end: usize) {
    compiler_fence(Ordering::SeqCst);
    // SAFETY: the first word of a mapping of at least eight bytes, aligned to a page; only this process writes it.
    unsafe { AtomicU64::from_ptr(memory.start().cast()) }.store(end as u64, Ordering::Release);
}

fn copy_in(memory: &Memory, at: usize, bytes: &[u8]) {
    if at + bytes.len() > memory.len() {
        return;
    }
    // SAFETY: within the mapping, as just checked, and behind the published end, where no reader looks.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), memory.start().add(at), bytes.len()) };
}

/// The bytes before the published end, which never change again.
fn bytes(memory: &Memory, end: usize) -> &[u8] {
    // SAFETY: within the mapping, and only ever appended to.
    unsafe { std::slice::from_raw_parts(memory.start(), end.min(memory.len())) }
}
