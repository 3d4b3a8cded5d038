//! What came of the operations: how many of each kind, and what was wrong. Must never hide a complaint behind a count.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// What is wrong with an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// It was told as failed.
    Failed(String),
    /// No end within the bound.
    Hung(String),
    /// It was done more often than once.
    Twice(String),
    /// What was told is not so.
    Wrong(String),
}

impl Trouble {
    fn word(&self) -> &'static str {
        match self {
            Self::Failed(_) => "failed",
            Self::Hung(_) => "hung",
            Self::Twice(_) => "twice",
            Self::Wrong(_) => "wrong",
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Failed(what) | Self::Hung(what) | Self::Twice(what) | Self::Wrong(what)) = self;
        write!(out, "{}: {what}", self.word())
    }
}

/// What an operation comes to.
pub type Verdict = Result<(), Trouble>;

/// By the kind of operation: how many were done, and what was wrong, with the time of each complaint.
#[derive(Debug, Default)]
pub struct Tally(Mutex<BTreeMap<&'static str, (usize, Vec<String>)>>);

impl Tally {
    /// Takes in one.
    pub fn count(&self, kind: &'static str, verdict: Verdict) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (done, troubles) = all.entry(kind).or_default();
        *done += 1;
        troubles.extend(verdict.err().map(|trouble| format!("{} {trouble}", now())));
    }

    /// How many were done.
    #[must_use]
    pub fn done(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().map(|(done, _)| done).sum()
    }

    /// All complaints, with their kinds.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter()
            .flat_map(|(kind, (_, troubles))| troubles.iter().map(move |one| format!("{kind}: {one}")))
            .collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (kind, (done, troubles)) in all.iter() {
            let of = |word: &str| troubles.iter().filter(|one| one.contains(&format!(" {word}: "))).count();
            writeln!(
                out,
                "{kind:<22} {done:>6} done {:>4} failed {:>3} hung {:>3} twice {:>3} wrong",
                of("failed"),
                of("hung"),
                of("twice"),
                of("wrong")
            )?;
        }
        Ok(())
    }
}

/// The time of day (UTC), as the logs have it.
fn now() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs() % 86_400;
    format!("{:02}:{:02}:{:02}.{:03}", seconds / 3600, seconds / 60 % 60, seconds % 60, since.subsec_millis())
}
