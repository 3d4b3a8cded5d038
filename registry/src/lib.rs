//! Names and addresses of containers: names, records, and the table that each DNS question is looked up in.
//!
//! Pure data. It must never do I/O, read a clock, or know of Docker, of sockets or of any other crate of ours.

pub mod allow;
pub mod caller;
pub mod error;
pub mod name;
pub mod pool;
pub mod record;
pub mod shared;
pub mod table;
pub mod vip;
