//! Carries registry records between hosts: blocks of addresses, names, and who is there.
//!
//! Must never stand on the path of an API call or of a DNS answer: what is published is in the table at once, and news
//! of others arrives when it arrives. Only a claim waits, and not for long.

pub mod claim;
pub mod handle;
pub mod key;
pub mod member;
pub mod names;
mod probe;
mod recall;
pub mod store;
pub mod view;
mod world;
