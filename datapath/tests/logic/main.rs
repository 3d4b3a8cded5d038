//! Hosts over fake kernels, a registry in memory between them, and time that stands still until nothing else is to be done.
//! Must never touch this machine's network, but for letters over its loopback.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod blocks;
mod joining;
mod policy;
mod refused;
mod routes;
mod stops;
mod vips;
