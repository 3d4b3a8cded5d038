//! The settings that concern who may talk to whom.

use super::{ConfigError, parse};
use crate::cli::Options;

/// Who may talk to whom.
#[derive(Debug, Clone)]
pub(crate) struct PolicyConfig {
    /// How many groups of a Marathon app make its tenant.
    pub(crate) tenant_depth: u8,
}

impl PolicyConfig {
    pub(super) fn new(options: &Options) -> Result<Self, ConfigError> {
        let depth = options.tenant_depth.unwrap_or(1);
        Ok(Self { tenant_depth: parse("tenant-depth", &depth.to_string(), tenant_depth)? })
    }
}

fn tenant_depth(text: &str) -> Result<u8, String> {
    text.parse().ok().filter(|depth| (1..=16).contains(depth)).ok_or_else(|| "must be 1 to 16".to_owned())
}
