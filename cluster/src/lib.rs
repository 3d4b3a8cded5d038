//! Carries registry records between hosts: blocks of addresses, names, and which hosts are alive.
//!
//! Must never stand on the path of an API call or of a DNS answer: published records are in the local table at once,
//! and news from other hosts arrives when it arrives. Only a claim waits, and not for long.

mod change;
pub mod claim;
mod command;
pub mod handle;
pub mod identity;
pub mod key;
pub mod member;
pub mod names;
mod probe;
pub mod recall;
pub mod store;
pub mod view;
mod world;
