//! The client's side: accepts connections, reads heads, and sends each request its way. Never blocks, and
//! never looks into a body that is not rewritten.

pub(crate) mod connection;
pub(crate) mod drain;
mod durable;
pub mod inherit;
mod old;
pub(crate) mod silent;
pub(crate) mod stream;
