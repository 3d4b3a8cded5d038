//! What a worker has in its hands, on record in memory that outlives it: the bytes that each client has sent and has no
//! answer to, what was asked of the engine for it, what the engine has said, and how much of the answer the client has.
//!
//! The kernel itself writes down how many bytes a call has moved ([`tape`]), so that whatever instant a worker is killed
//! at, the next one knows what has been done and goes on from there. Must never know what the bytes mean, and never wait.

pub mod entry;
pub mod incoming;
pub mod ledger;
mod places;
pub mod request;
mod tape;

pub use entry::{Entry, Phase, Received};
pub use incoming::{Closer, Incoming};
pub use ledger::Ledger;
pub use request::RequestId;
