//! What is on trial: a worker that is to replace the serving one, or the keeper's next image. Plain data; it must never
//! act.

use crate::child::Capture;
use crate::plan::Program;
use rustix::process::Pid;
use std::time::Instant;

/// An upgrade under way.
pub(super) struct Upgrade {
    /// The worker on trial.
    pub(super) worker: u32,
    pub(super) requester: Option<u32>,
}

/// A trial run of the next image.
pub(super) struct Successor {
    pub(super) pid: Pid,
    pub(super) capture: Capture,
    pub(super) program: Program,
    pub(super) requester: Option<u32>,
    pub(super) kill_at: Option<Instant>,
    pub(super) overdue: bool,
}
