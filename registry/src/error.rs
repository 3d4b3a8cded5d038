//! What can be wrong with a name, worded for operators. It must never wrap an error of another crate of ours.

use thiserror::Error;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing is left to build a name from.
    #[error("the name {0:?} is empty, or has an empty label")]
    EmptyLabel(String),
    /// A label is longer than RFC 1035 section 2.3.4 allows.
    #[error("the label {0:?} is longer than 63 bytes")]
    LabelTooLong(String),
    /// The whole name is longer than RFC 1035 section 2.3.4 allows.
    #[error("the name {0:?} is longer than 255 bytes on the wire")]
    NameTooLong(String),
    /// A byte that host names cannot have.
    #[error(
        "the name {name:?} has the character {character:?}: only letters, digits, '-', '_' and '.' can be used"
    )]
    Character {
        /// The whole text as given.
        name: String,
        /// The first character that cannot be used.
        character: char,
    },
    /// An absolute name was given where a relative one is needed, and it is not below the domain.
    #[error("the name {name} is not below the domain {domain}")]
    OutsideDomain {
        /// The absolute name that was given.
        name: String,
        /// The domain that it should be in.
        domain: String,
    },
}
