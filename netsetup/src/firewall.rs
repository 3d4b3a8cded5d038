//! Opens the host's own firewalls (Docker's and firewalld's) for traffic between containers.
//!
//! Both lose our rules now and then: an engine rewrites its chains when it starts, and so does firewalld when it
//! reloads. Must never open more than the pool, nor touch a firewall that is not there.

pub(crate) mod docker;
pub(crate) mod firewalld;
pub(crate) mod forward;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tracing::warn;

use crate::error::Error;
use crate::settings::Settings;
use crate::{generation, nft, pool6};

/// firewalld takes a third of a second to answer, and asks D-Bus, which may take longer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait before retrying a firewall that refused.
const RETRY: Duration = Duration::from_secs(30);

/// Keeps the firewalls open.
#[derive(Debug, Clone)]
pub(crate) struct Firewalls {
    pools: Vec<IpNet>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    /// The generation of the kernel's rules at the last check.
    generation: Option<u32>,
    /// Why firewalld failed, and when to try it again.
    refused: Option<(Error, Instant)>,
}

impl Seen {
    /// Whether the rules are unchanged since then, and firewalld's last error.
    fn of(&self, generation: u32) -> (bool, Option<(Error, Instant)>) {
        (self.generation == Some(generation), self.refused.clone())
    }
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

    /// Opens the firewalls that exist; returns the number of rules written. Never waits long for D-Bus: firewalld may
    /// be unreachable, and containers must start.
    ///
    /// # Errors
    /// iptables refuses a rule.
    pub(crate) async fn begin(&self) -> Result<u64, Error> {
        let (docker, firewalld) = (self.clone(), self.clone());
        let (now, written) =
            nft::blocking(move || Ok((generation::now().ok(), docker.open_docker_s()?))).await?;
        // A starting worker calls this twice within milliseconds. Docker's firewall is checked every time: with
        // iptables-legacy the kernel does not report changes.
        if now.is_some_and(|now| self.seen().of(now).0) {
            return Ok(written);
        }
        let opened = nft::blocking(move || firewalld.open_firewalld_s());
        match tokio::time::timeout(PATIENCE, opened).await {
            Ok(Ok(opened)) => {
                self.seen().generation = now;
                return Ok(written + opened);
            }
            Ok(Err(reason)) => warn!(%reason, "firewalld may refuse what containers send each other"),
            Err(_) => warn!("firewalld does not answer; it may refuse what containers send each other"),
        }
        Ok(written)
    }

    /// Opens the firewalls again if any rules have changed since the last check; otherwise it costs one question to the
    /// kernel.
    ///
    /// # Errors
    /// iptables or firewalld refuses, or the kernel does not answer.
    pub(crate) async fn mind(&self) -> Result<u64, Error> {
        let firewalls = self.clone();
        nft::blocking(move || firewalls.look()).await
    }

    fn look(&self) -> Result<u64, Error> {
        let now = generation::now()?;
        let (known, refused) = self.seen().of(now);
        let mut written = 0;
        if !known {
            written += self.open_docker_s()?;
            self.seen().generation = Some(now);
        }
        match refused {
            Some((error, again)) if Instant::now() < again => return Err(error),
            None if known => {}
            _ => written += self.open_firewalld_s()?,
        }
        Ok(written)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_docker_s(&self) -> Result<u64, Error> {
        self.pools.iter().map(|pool| docker::open_for(*pool)).sum()
    }

    /// Takes a third of a second if firewalld has to be changed.
    fn open_firewalld_s(&self) -> Result<u64, Error> {
        let opened = firewalld::open_for(&self.pools);
        let refused = opened.as_ref().err().cloned();
        self.seen().refused = refused.map(|error| (error, Instant::now() + RETRY));
        opened
    }
}
