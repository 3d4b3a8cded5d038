//! The DNS server as its clients see it: real `dig`, real sockets on the loopback, made-up upstreams.
//! It must never send anything off the loopback.
#![expect(clippy::unwrap_used, reason = "all of this is a test, also what clippy takes for none")]

mod forwarded;
mod library;
mod local;
mod order;
mod sockets;
mod support;
mod tls;
