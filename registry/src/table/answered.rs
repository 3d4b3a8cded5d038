//! Which of the addresses of several records with one name are answered. Must give the same result on every host, in
//! whatever order the records came.

use std::net::Ipv4Addr;

use crate::record::Record;

/// What is answered for a name, where that may not be all of its addresses.
#[derive(Debug, Default)]
pub(super) struct Choice {
    /// How many of the records with this name are unhealthy or exclusive.
    pub(super) special: u32,
    /// The answered addresses; none means all.
    pub(super) chosen: Option<Box<[Ipv4Addr]>>,
}

/// The healthy ones, or all if none is healthy; of those only the newest, if any asks to be alone.
pub(super) fn chosen(records: &[&Record]) -> Vec<Ipv4Addr> {
    let healthy: Vec<&Record> = records.iter().copied().filter(|record| !record.traits.unhealthy).collect();
    let able = if healthy.is_empty() { records } else { &healthy };
    let mut addresses: Vec<Ipv4Addr> = if records.iter().any(|record| record.traits.exclusive) {
        let newest = able.iter().max_by_key(|record| (record.traits.since, record.address));
        newest.map(|record| record.address).into_iter().collect()
    } else {
        able.iter().map(|record| record.address).collect()
    };
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}
