//! The API front: what becomes of a client's request, from its first byte to its answer or its hand-over to the keeper.
//! Must never be waited for by a container: what they need goes on without any client.

pub mod api;
pub mod counters;
mod exchange;
pub mod front;
pub mod handover;
pub mod held;
mod rewrite;
mod then;
