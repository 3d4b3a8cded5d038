//! Answers DNS questions on sockets that it is given: our names from the table, all others from the asker's or the
//! host's servers.
//!
//! It must never open a listening socket, shut one down or change its options (another process may hold the same one
//! during an upgrade), never ask Docker or the registry anything, and never make a query wait for another asker's.
//!
//! The path of a query: `udp` or `tcp` reads it, `handler` decides. `plain` answers the ordinary question by hand;
//! `general` reads and writes everything else with hickory-proto; both get the answer from `zone`. Questions that are
//! not ours go to `forward`.

mod error;
mod forward;
mod general;
mod handler;
mod identity;
mod options;
mod plain;
mod query;
pub mod resolv_conf;
mod server;
mod settings;
mod share;
mod shared;
mod stats;
mod tcp;
mod udp;
mod zone;

pub use crate::error::Error;
pub use crate::server::Server;
pub use crate::settings::{Engines, Limits, Secured, Settings};
pub use crate::stats::Counts;
