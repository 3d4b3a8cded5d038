//! The settings of the rules between tenants.

use selvedge_netsetup::policy::Verdict;

use super::value::{ConfigError, one_of, parse};
use crate::cli::Options;

/// The rules between tenants.
#[derive(Debug, Clone)]
pub(crate) struct PolicyConfig {
    /// Whether tenants are kept apart; else everybody may talk to everybody.
    pub(crate) tenants: bool,
    /// How many groups of a Marathon app make its tenant.
    pub(crate) tenant_depth: u8,
    /// Hosts and containers, both ways.
    pub(crate) host: Verdict,
    /// What comes in by a published port.
    pub(crate) published: Verdict,
    /// What leaves the pool.
    pub(crate) out: Verdict,
    /// Containers' questions to our DNS server.
    pub(crate) dns: Verdict,
}

impl PolicyConfig {
    pub(super) fn new(options: &Options) -> Result<Self, ConfigError> {
        let depth = options.tenant_depth.unwrap_or(1);
        let of = |name, value: &Option<String>| parse(name, value.as_deref().unwrap_or("allow"), verdict);
        Ok(Self {
            tenants: parse("policy", options.policy.as_deref().unwrap_or("open"), policy)?,
            tenant_depth: parse("tenant-depth", &depth.to_string(), tenant_depth)?,
            host: of("policy-host", &options.policy_host)?,
            published: of("policy-published", &options.policy_published)?,
            out: of("policy-out", &options.policy_out)?,
            dns: of("policy-dns", &options.policy_dns)?,
        })
    }
}

fn policy(text: &str) -> Result<bool, String> {
    one_of(text, [("open", false), ("tenant", true)])
}

fn verdict(text: &str) -> Result<Verdict, String> {
    one_of(text, [("allow", Verdict::Allow), ("deny", Verdict::Deny)])
}

fn tenant_depth(text: &str) -> Result<u8, String> {
    text.parse().ok().filter(|depth| (1..=16).contains(depth)).ok_or_else(|| "must be 1 to 16".to_owned())
}
