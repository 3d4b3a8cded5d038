//! One write to the registry, before it is sent. Plain data; must never send itself.

use crate::key::Key;
use crate::store::Lifetime;

/// One write that brings the registry up to date about this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Create(Key, String, Lifetime),
    Replace(Key, String, String),
    Delete(Key, Option<String>),
}

impl Change {
    pub(crate) fn key(&self) -> &Key {
        match self {
            Self::Create(key, ..) | Self::Replace(key, ..) | Self::Delete(key, _) => key,
        }
    }
}
