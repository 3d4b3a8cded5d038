//! Carries registry records between hosts. A single host needs no other: [`local::Local`] is then all there is.
//!
//! Must never stand on the path of an API call or of a DNS answer: what is published is in the table at once,
//! and news of others arrives when it arrives.

pub mod local;
