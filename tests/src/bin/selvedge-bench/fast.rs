//! Everything behind an upstream that costs next to nothing: shows a proxy's own cost.

use std::path::Path;

use selvedge_tests::host::Host;

use crate::Effort;
use crate::candidate::{Candidate, DIRECT, OTHER};
use crate::report::Report;
use crate::{idle, requests, streams};

/// The upstream, and all candidates in front of it.
#[derive(Debug)]
pub(crate) struct Lab {
    // Dropped in this order: candidates before what they talk to.
    candidates: Vec<Candidate>,
    _upstream: Candidate,
    _hosts: [Host; 2],
}

impl Lab {
    /// Starts them; `other` is another build of Selvedge, `inspect` an engine's answer to an inspect.
    ///
    /// # Errors
    /// One of them does not start.
    pub(crate) fn start(
        selvedge: &Path,
        other: Option<&Path>,
        inspect: Option<&[u8]>,
    ) -> anyhow::Result<Self> {
        // Two of them cannot share a network namespace: each would want the gateway's address.
        let (host, beside) = (Host::new(), Host::new());
        let upstream = Candidate::upstream(&host, inspect)?;
        let mut candidates = vec![
            Candidate::direct(&upstream.socket),
            Candidate::relay(&host, &upstream.socket)?,
            Candidate::splice(&host, &upstream.socket)?,
            Candidate::haproxy(&host, &upstream.socket)?,
            Candidate::selvedge(&host, selvedge, &upstream.socket)?,
        ];
        if let Some(other) = other {
            let mut candidate = Candidate::selvedge(&beside, other, &upstream.socket)?;
            candidate.name = OTHER;
            candidates.push(candidate);
        }
        Ok(Self { candidates, _upstream: upstream, _hosts: [host, beside] })
    }

    fn for_requests(&self) -> Vec<&Candidate> {
        self.candidates.iter().filter(|candidate| requests::is_in_table(candidate)).collect()
    }

    /// `/_ping` and inspect.
    ///
    /// # Errors
    /// A candidate does not answer.
    pub(crate) fn requests(&self, effort: Effort, report: &mut Report) -> anyhow::Result<()> {
        let kinds = [("/_ping", "/_ping"), ("inspect", "/containers/x/json")];
        requests::measure(effort, "fast upstream", &self.for_requests(), &kinds, report)
    }

    /// Bulk transfers.
    ///
    /// # Errors
    /// A candidate does not pass them.
    pub(crate) fn streams(&self, effort: Effort, report: &mut Report) -> anyhow::Result<()> {
        streams::measure(effort, &self.candidates, report)
    }

    /// Idle connections.
    ///
    /// # Errors
    /// A candidate does not hold them.
    pub(crate) fn idle(&self, report: &mut Report) -> anyhow::Result<()> {
        let proxies: Vec<_> =
            self.for_requests().into_iter().filter(|candidate| candidate.name != DIRECT).collect();
        idle::measure(&proxies, report)
    }
}
