//! By what people know a request: a number that its record carries on to the next worker. Must never be used to decide
//! anything; it is for logs.

use std::fmt::{self, Display, Formatter};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A request's number: the process that read it first, and which of its requests it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId(u64);

/// Bits of the part that counts.
const COUNT: u32 = 40;

impl RequestId {
    /// As a record has it; nothing for 0.
    pub(crate) fn read(number: u64) -> Option<Self> {
        (number != 0).then_some(Self(number))
    }

    /// As it is put on record.
    pub(crate) fn number(self) -> u64 {
        self.0
    }
}

impl Display for RequestId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 >> COUNT, self.0 & ((1 << COUNT) - 1))
    }
}

/// Numbers the requests of this process.
#[derive(Debug)]
pub(crate) struct Numbers(AtomicU64);

impl Default for Numbers {
    fn default() -> Self {
        Self(AtomicU64::new(u64::from(std::process::id()) << COUNT))
    }
}

impl Numbers {
    /// The next one.
    pub(crate) fn next(&self) -> RequestId {
        RequestId(self.0.fetch_add(1, Relaxed) + 1)
    }
}
