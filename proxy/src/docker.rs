//! The engine's side: its JSON, its errors, and our own calls to it. Knows nothing of wires or names.

pub(crate) mod engine;
pub(crate) mod error;
pub(crate) mod life;
pub(crate) mod model;
pub(crate) mod object;
pub(crate) mod wording;
