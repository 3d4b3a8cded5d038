//! Kills of the worker at instants that have nothing to do with what it does, under clients that check all they are told.
//!
//! Nothing here may wait for a launch, for readiness or for any other good moment: those are the moments that are tested.

pub mod chance;
pub mod cli;
pub mod cli_files;
pub mod cli_lives;
pub mod killer;
pub mod lifecycle;
pub mod plugin;
pub mod questions;
pub mod raw;
pub mod registry;
pub mod scene;
pub mod steps;
pub mod storm;
pub mod sweep;
pub mod tally;
pub mod trace;
