//! What records there are, under which numbers, and how each is written: when, a JSON text, bytes. It must never know what
//! is in them.

use crate::shared::Shared;
use crate::shared::log::Key;
use crate::shared::slots::Place;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What is there once.
pub(crate) const BASE: Key = Key { kind: 1, number: 0 };
/// The last packet of a worker that is understood, and whose effects are recorded.
pub(crate) const UNDERSTOOD: Key = Key { kind: 2, number: 0 };
/// The names and descriptors of the listening sockets.
pub(crate) const LISTENERS: Key = Key { kind: 3, number: 0 };
/// The number of the next client.
pub(crate) const NEXT_CLIENT: Key = Key { kind: 10, number: 0 };
pub(crate) const CLIENT: u32 = 11;
pub(crate) const ESTATE: u32 = 12;
pub(crate) const STREAM: u32 = 4;
pub(crate) const PENDING: u32 = 5;
pub(crate) const WORKER: u32 = 6;
pub(crate) const ORDER: u32 = 7;
pub(crate) const CONN: u32 = 8;
pub(crate) const PARKED: u32 = 9;

/// The record of the stream in that place.
pub(crate) fn stream_key(index: u32) -> Key {
    Key { kind: STREAM, number: u64::from(index) }
}

/// The record of the bytes that one direction holds.
pub(crate) fn pending_key(place: Place) -> Key {
    Key { kind: PENDING, number: u64::from(place.index) << 1 | u64::from(place.direction) }
}

/// Milliseconds on the clock that all processes of this host share.
pub(crate) fn now_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

/// Puts a record that is made now.
pub(crate) fn put(shared: &Shared, key: Key, what: &impl Serialize, bytes: &[u8]) {
    // Plain structs with text keys: serialising them cannot fail.
    let text = serde_json::to_vec(what).unwrap_or_default();
    let (now, length) = (now_ms().to_le_bytes(), (text.len() as u64).to_le_bytes());
    shared.put(key, &[&now, &length, &text, bytes]);
}

/// A record that was read again.
pub(crate) struct Record<T> {
    pub(crate) what: T,
    pub(crate) age_ms: u64,
    pub(crate) bytes: Vec<u8>,
}

/// Reads what `put` wrote.
pub(crate) fn parse<T: DeserializeOwned>(value: &[u8]) -> Option<Record<T>> {
    let (at, rest) = value.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<8>()?;
    let (text, bytes) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let age_ms = now_ms().saturating_sub(u64::from_le_bytes(*at));
    Some(Record { what: serde_json::from_slice(text).ok()?, age_ms, bytes: bytes.to_vec() })
}
