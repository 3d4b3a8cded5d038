//! Custody on paper: keeper, worker, engine and clients of a request that must be done once, with deaths anywhere.
//!
//! Each action is one that the kernel makes atomic, or one store to shared memory; between any two of them the worker or the
//! engine may die. A search visits every state. Must be changed together with `custody/`, `proxy/src/exchange.rs`,
//! `proxy/src/front/inherit.rs` and `keeper/src/keeper/clients.rs`, which it describes.

pub mod custody;
