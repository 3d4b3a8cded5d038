//! Containers behind a fake engine and on a fake host, with time that stands still until nothing else is to be done. Must
//! never touch this machine's network.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod events;
mod guests;
mod news;
mod readiness;
mod reconcile;
mod store;
mod wires;
