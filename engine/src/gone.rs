//! An engine that broke off in the middle of an exchange, as a type: what it was asked may have been done, or not.
//!
//! Must never stand for an answer of the engine, whatever its status; nor for an engine that could not be reached at all.

use std::fmt::Display;

use crate::client::EngineError;
use crate::object::BodyError;
use crate::refusal::Refusal;

/// The engine broke off before its answer was complete. Who asks again looks first what has been done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the engine broke off: {reason}")]
pub struct EngineGone {
    reason: String,
}

impl EngineGone {
    /// With what the socket said, or the client of the engine.
    pub fn new(reason: impl Display) -> Self {
        Self { reason: reason.to_string() }
    }
}

impl From<EngineError> for EngineGone {
    fn from(error: EngineError) -> Self {
        Self::new(error)
    }
}

impl From<EngineGone> for Refusal {
    fn from(gone: EngineGone) -> Self {
        Self::new(502, gone.to_string())
    }
}

/// Why a client's request has no answer of the engine's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// It may have been done.
    #[error(transparent)]
    Gone(#[from] EngineGone),
    /// Nothing was done, and the client is to be told why.
    #[error("{}", .0.message)]
    Refused(Refusal),
}

impl From<Refusal> for Unanswered {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<BodyError> for Unanswered {
    fn from(error: BodyError) -> Self {
        Self::Refused(error.into())
    }
}
