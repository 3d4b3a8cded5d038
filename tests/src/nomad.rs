//! Nomad's docker driver, as far as an engine can tell: its calls in its order, with its client's habits (read in Nomad's source:
//! `drivers/docker/{driver,network,handle,stats,docklog/docker_logger}.go`, and moby's client).
//!
//! It must never be kinder than Nomad: where Nomad gives up, so does this; what Nomad does not ask again, this does not either.

pub mod client;
pub mod driver;
pub mod handle;
pub mod jobs;
pub mod task;
