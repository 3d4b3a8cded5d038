//! What does not work at the moment: told in the log once when it comes and once when it goes, however often it is tried.
//!
//! Must never decide what is done about it.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};

use tracing::{error, info};

/// One thing that may not work, and why it does not.
#[derive(Debug)]
pub struct Fault {
    what: &'static str,
    reason: Mutex<Option<String>>,
}

impl Fault {
    /// None yet, with this: `what` of "cannot be put right" and "are right again".
    pub fn with(what: &'static str) -> Self {
        Self { what, reason: Mutex::default() }
    }

    /// Takes in what came of a try; whether it worked.
    pub fn found(&self, outcome: Result<(), impl Display>) -> bool {
        let reason = outcome.err().map(|error| error.to_string());
        let is_fine = reason.is_none();
        let mut told = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != reason {
            match &reason {
                Some(reason) => error!(reason, "{} cannot be put right", self.what),
                None => info!("{} are right again", self.what),
            }
            *told = reason;
        }
        is_fine
    }

    /// Why it does not work, if so.
    pub fn reason(&self) -> Option<String> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
