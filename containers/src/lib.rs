//! One path for every container, however it was started: from the engine's word to wire, names and readiness. Must never know
//! of clients or their requests.

pub mod agent;
pub mod entry;
pub mod etc_hosts;
pub mod events;
pub mod find;
pub mod guests;
pub mod host;
pub mod joined;
pub mod label;
pub mod mailbox;
pub mod names;
pub mod nomad;
pub mod place;
pub mod ports;
pub mod program;
pub mod publish;
pub mod readiness;
pub mod reconcile;
pub mod shared;
pub mod span;
pub mod store;
pub mod tenant;
pub mod upkeep;
pub mod wireless;
