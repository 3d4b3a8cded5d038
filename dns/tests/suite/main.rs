//! The DNS server as its clients see it: real `dig`, real sockets on the loopback, made-up upstreams.
//! It must never send anything off the loopback.

mod forwarded;
mod local;
mod sockets;
mod support;
