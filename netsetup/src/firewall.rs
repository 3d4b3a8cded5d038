//! The host's own firewalls, opened for what containers send each other: Docker's, and firewalld.
//!
//! Both forget it now and then: an engine that starts writes its chains anew, and so does a firewalld that reloads. Must
//! never open more than the pool, nor touch a firewall that is not there.

pub(crate) mod docker;
pub(crate) mod firewalld;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tracing::{info, warn};

use crate::error::Error;
use crate::network::Settings;
use crate::{generation, nft, pool6};

/// firewalld takes a third of a second for an answer, and asks D-Bus, which may take longer.
const PATIENCE: Duration = Duration::from_secs(5);
/// One that refused is left in peace for this long.
const RETRY: Duration = Duration::from_secs(30);

/// What keeps them open.
#[derive(Debug, Clone)]
pub(crate) struct Firewalls {
    pools: Vec<IpNet>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    /// The generation of the kernel's rules at the last look.
    generation: Option<u32>,
    /// firewalld refused.
    trouble: Option<String>,
    /// Before that it is not asked again.
    again: Option<Instant>,
}

/// All container addresses, by family.
pub(crate) fn pools(settings: &Settings) -> Vec<IpNet> {
    let six = settings.pool6.map(|pool6| pool6::block6(pool6, settings.pool).into());
    [settings.pool.trunc().into()].into_iter().chain(six).collect()
}

impl Firewalls {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self { pools: pools(settings), seen: Arc::default() }
    }

    /// Opens those that are there, whoever has changed what; gives the number of rules written. Blocks for some
    /// milliseconds, and half a second where firewalld has to be told.
    ///
    /// # Errors
    /// iptables refuses it. What firewalld says is only told in the log: there may be no way to it at all.
    pub(crate) fn open(&self) -> Result<u64, Error> {
        let generation = generation::now().ok();
        let mut written = 0;
        for pool in &self.pools {
            written += docker::open_for(*pool)?;
        }
        if self.may_ask() {
            let outcome = firewalld::open_for(&self.pools);
            written += *outcome.as_ref().unwrap_or(&0);
            self.note(outcome.err());
        }
        self.seen().generation = generation;
        Ok(written)
    }

    /// The same, if anybody has changed any rules since the last look; otherwise it costs one question to the kernel.
    ///
    /// # Errors
    /// As [`Self::open`], or the kernel does not say.
    pub(crate) async fn mind(&self) -> Result<u64, Error> {
        let firewalls = self.clone();
        let look = move || {
            let now = generation::now()?;
            let seen = firewalls.seen().generation;
            if seen == Some(now) { Ok(0) } else { firewalls.open() }
        };
        nft::blocking(look).await
    }

    /// The same at a start, which waits for nobody's D-Bus.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) async fn begin(&self) -> Result<u64, Error> {
        let firewalls = self.clone();
        let opened = nft::blocking(move || firewalls.open());
        tokio::time::timeout(PATIENCE, opened).await.unwrap_or(Ok(0))
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn may_ask(&self) -> bool {
        self.seen().again.is_none_or(|again| again <= Instant::now())
    }

    /// Trouble is told once, and its end too.
    fn note(&self, failed: Option<Error>) {
        let mut seen = self.seen();
        let trouble = failed.map(|error| error.to_string());
        match &trouble {
            Some(reason) if seen.trouble != trouble => {
                warn!(reason, "firewalld may refuse what containers send each other");
            }
            None if seen.trouble.is_some() => info!("firewalld is open for containers again"),
            _ => {}
        }
        seen.again = trouble.as_ref().map(|_| Instant::now() + RETRY);
        seen.trouble = trouble;
    }
}
