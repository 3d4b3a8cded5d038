//! The tenant policy in the kernel: who reaches whom, by packets that are really sent.

pub(crate) mod bench;
mod changes;
mod failures;
mod reach;
mod refusals;
mod repair;
mod verdicts;
