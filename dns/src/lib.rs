//! Answers names over sockets that it is given: ours from the table, all others from the asker's or the host's servers.
//!
//! It must never open a listening socket, shut one down or change its options (another process may hold the same one
//! during an upgrade), never ask Docker or the registry anything, and never let a query wait for another asker's.
//!
//! The way of a query: `udp` or `tcp` reads it, `handler` decides. `plain` answers the ordinary question by hand;
//! `general` reads and writes everything else with hickory-proto; both ask `zone` what the answer is. What is not ours
//! goes to `forward`.

mod error;
mod forward;
mod general;
mod handler;
mod plain;
mod query;
mod server;
mod settings;
mod share;
mod stats;
mod tcp;
mod udp;
mod zone;

pub use crate::error::Error;
pub use crate::server::Server;
pub use crate::settings::{Limits, Settings};
pub use crate::stats::Counts;
