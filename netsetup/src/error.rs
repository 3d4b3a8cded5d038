//! What can go wrong with a wire.

use std::io;

/// Errors of this crate. The text is for people; errnos stay values inside.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The container's process has ended, and its namespace with it.
    #[error("container {container} has ended")]
    Gone {
        /// Its short id.
        container: String,
    },
    /// The kernel refused a step.
    #[error("{step} of {what}: {source}")]
    Kernel {
        /// What was being done.
        step: &'static str,
        /// To what: an interface, an address.
        what: String,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
    /// An operation outside netlink failed.
    #[error("{step}: {source}")]
    System {
        /// What was being done.
        step: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The host's end did not come up.
    #[error("interface {0} did not come up within two seconds")]
    NotUp(String),
    /// Docker's chain could not be given our rule.
    #[error("cannot add a rule to the chain DOCKER-USER: {0}")]
    Firewall(String),
}

impl Error {
    pub(crate) fn kernel(step: &'static str, what: &str) -> impl FnOnce(rtnetlink::Error) -> Self + use<> {
        let what = what.to_owned();
        move |source| Self::Kernel { step, what, source }
    }

    pub(crate) fn system(step: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let step = step.into();
        move |source| Self::System { step, source }
    }
}

/// The errno of a refusal, positive.
pub(crate) fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.code.map(|code| -code.get()),
        _ => None,
    }
}
