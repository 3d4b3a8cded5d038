//! Docker's side: what the engine says and how, and our own calls to it. Must never know of wires or names, and uses
//! nothing else of Selvedge.

pub mod client;
pub mod gone;
pub mod http;
pub mod identity;
pub mod json;
pub mod lifeline;
pub mod lifetime;
pub mod model;
pub mod object;
pub mod refusal;
pub mod resolver;
pub mod route;
pub mod wording;
