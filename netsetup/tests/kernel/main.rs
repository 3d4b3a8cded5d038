//! Wires in the real kernel. Each test has a host of its own: a network namespace that ends with the test.
//!
//! Needs root. A test that cannot run fails.

#![expect(clippy::unwrap_used, reason = "a test that cannot run shall fail, also in what only serves tests")]

mod families;
mod hosts;
mod lab;
mod landscape;
mod lists;
mod peer_changes;
mod peers;
mod policy;
mod removal;
mod repair;
mod services;
mod sign;
mod silent;
mod sources;
mod speed;
mod traffic;
mod waiting;
