//! The one task of which there must never be two: how many run, and how many are answered, while all else happens.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use crate::Lab;

/// What the database is called.
pub const NAME: &str = "database";

/// The most that was seen at one time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Most {
    /// Containers that ran.
    pub containers: usize,
    /// Addresses that the name had.
    pub addresses: usize,
    /// Whether the name was ever answered with an address.
    pub was_answered: bool,
}

impl Most {
    /// How many there were too much.
    #[must_use]
    pub fn duplicates(&self) -> usize {
        self.containers.saturating_sub(1) + self.addresses.saturating_sub(1)
    }
}

/// The options of `docker run` that make a task the database.
#[must_use]
pub fn options() -> Vec<String> {
    vec![format!("--label=selvedge.name={NAME}"), "--label=selvedge.exclusive=true".to_owned()]
}

/// Looks until it is told to stop. The engine itself is asked: what stands in front of it may be away.
#[must_use]
pub fn watch(lab: &Lab, stop: &AtomicBool) -> Most {
    let (mut most, engine) = (Most::default(), lab.engine.docker());
    let filter = format!("label=selvedge.name={NAME}");
    while !stop.load(Relaxed) {
        // Nothing is told while the engine is being restarted.
        let listed = engine.run(&["ps", "--quiet", "--filter", &filter]);
        if listed.code == 0 {
            most.containers = most.containers.max(listed.stdout.lines().count());
        }
        let answered: BTreeSet<IpAddr> =
            lab.host.resolve(NAME).iter().filter_map(|line| line.parse().ok()).collect();
        most.addresses = most.addresses.max(answered.len());
        most.was_answered |= !answered.is_empty();
        std::thread::sleep(Duration::from_millis(150));
    }
    most
}
