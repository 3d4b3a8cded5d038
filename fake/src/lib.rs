//! What stands beside the code in tests of its logic: an engine, a host, a kernel and a keeper that do as they are told, hosts
//! with a registry between them, and a log that can be read. Must never touch this machine's network, nor be part of a program.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

pub mod engine;
pub mod host;
pub mod keeper;
pub mod kernel;
pub mod lab;
pub mod log;
pub mod paths;
