//! The small long-lived process that holds the listening sockets and the streams in flight, and that starts and
//! replaces workers.
//!
//! It must never know HTTP, Docker or DNS, never wait for anything but epoll, and never panic: clients depend on it for
//! months.

pub mod activation;
pub mod control;
pub mod error;
pub mod link;
pub mod plan;
pub mod position;
pub mod protocol;
pub mod relay;
pub mod status;

mod bind;
mod channel;
mod child;
mod image;
mod keeper;
mod kept;
mod liveness;
mod notify;
mod poller;
mod pump;
mod records;
mod saved;
mod second;
mod shared;
mod slots;
mod takeover;
mod worker;

pub use crate::keeper::run;
