//! Clients in front of the API, behind it a fake engine, and beside it a fake keeper and host. Time stands still until nothing
//! else is to be done, but where a worker dies. Must never touch this machine's network.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod connection;
mod create;
mod custody;
mod durable;
mod groups;
mod lab;
mod leaving;
mod resumed;
mod shown;
mod spans;
mod start;
mod streams;
