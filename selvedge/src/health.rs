//! What a running worker knows of its host by the list of checks: told in the log once, and shown by `status`. It must
//! never hold up a request: the checks run in a thread of their own.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use selvedge_engine::client::Engine;
use tracing::{error, warn};

use crate::checks::{self, Finding};
use crate::config::Config;
use crate::pulse::Pulse;

/// How old what `status` shows may be.
const FRESH: Duration = Duration::from_secs(5);

/// What was found last.
#[derive(Debug, Default)]
pub(crate) struct Health {
    checked: Mutex<Option<(Instant, Vec<Finding>)>>,
    /// How quickly the engine answers.
    pub(crate) pulse: Arc<Pulse>,
}

impl Health {
    /// The findings, at most [`FRESH`] old.
    pub(crate) async fn findings(&self, config: &Config) -> Vec<Finding> {
        let known = self.checked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, findings)) = known.filter(|(looked, _)| looked.elapsed() < FRESH) {
            return findings;
        }
        let config = config.clone();
        let findings = tokio::task::spawn_blocking(move || checks::host(&config)).await.unwrap_or_default();
        let found = Some((Instant::now(), findings.clone()));
        *self.checked.lock().unwrap_or_else(PoisonError::into_inner) = found;
        findings
    }
}

/// Writes into the log what is wrong with this host.
pub(crate) async fn tell(health: &Health, config: &Config, engine: &Engine) {
    for finding in health.findings(config).await {
        match (finding.is_fatal(), finding.is_wrong()) {
            (true, _) => error!("check: {}", finding.text),
            (false, true) => warn!("check: {}", finding.text),
            (false, false) => {}
        }
    }
    let beat = health.pulse.take(engine).await;
    if let Some(late) = beat.late {
        warn!(after = ?late, "the engine answers late");
    }
}
