//! What an agent has seen, and what of it is wrong.
//!
//! It must never excuse a task without the engine's own word.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::database::Most;
use super::task::{Report, State};

/// What was seen.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Every task's report.
    pub reports: Vec<Report>,
    /// When the worker or the keeper was killed.
    pub kills: Vec<Instant>,
    /// From when to when the engine was restarted.
    pub restarts: Vec<(Instant, Instant)>,
    /// Wires that no container has.
    pub orphaned_wires: Vec<String>,
    /// The keeper's descriptors before and after.
    pub descriptors: (usize, usize),
    /// The database, of which there must be one.
    pub database: Most,
    /// Recoveries of the agent that failed.
    pub recoveries: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

impl Outcome {
    /// What is to be none by README, and how many there are.
    #[must_use]
    pub fn table(&self) -> BTreeMap<&'static str, usize> {
        let mut table =
            wrongs(&self.reports.iter().filter(|one| !self.is_half_started(one)).collect::<Vec<_>>());
        table.extend([
            ("databases that ran, or were answered, beside another", self.database.duplicates()),
            ("failed recoveries of the agent", self.recoveries.len()),
            ("orphaned wires", self.orphaned_wires.len()),
            ("leaked descriptors", self.descriptors.1.saturating_sub(self.descriptors.0)),
        ]);
        table
    }

    /// How many tasks ended as what.
    #[must_use]
    pub fn verdicts(&self) -> String {
        let count =
            |what: &dyn Fn(State) -> bool| self.reports.iter().filter(|one| what(one.verdict())).count();
        format!(
            "{} finished, {} failed, {} killed",
            count(&|state| state == State::Finished),
            count(&|state| matches!(state, State::Failed(_))),
            count(&|state| state == State::Killed)
        )
    }

    /// Of how many tasks the launch was under way when worker or keeper was killed.
    #[must_use]
    pub fn struck(&self) -> usize {
        self.reports.iter().filter(|one| self.is_struck(one)).count()
    }

    /// Of how many tasks the launch was under way when the engine was restarted.
    #[must_use]
    pub fn restarted(&self) -> usize {
        self.reports.iter().filter(|one| self.is_restarted(one)).count()
    }

    /// Launches that the engine's end left half done: it has the container, and refuses each start of it, ours or not.
    #[must_use]
    pub fn half_started(&self) -> usize {
        self.reports.iter().filter(|one| self.is_half_started(one)).count()
    }

    fn is_half_started(&self, report: &Report) -> bool {
        report.unstartable.is_some() && self.is_restarted(report)
    }

    fn is_restarted(&self, report: &Report) -> bool {
        let (began, ran) = report.launch;
        self.restarts.iter().any(|(end, there)| began <= *there && *end <= ran)
    }

    fn is_struck(&self, report: &Report) -> bool {
        let (began, ran) = report.launch;
        self.kills.iter().any(|kill| (began..=ran).contains(kill))
    }

    /// The tasks about which there is something to say.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let odd = |one: &&Report| {
            one.is_wronged() || one.orphaned || one.hung || one.is_garbled() || !one.wrong_inspects.is_empty()
        };
        let recoveries = self.recoveries.iter().map(|error| format!("recovery: {}", error.trim()));
        self.reports
            .iter()
            .filter(odd)
            .map(|one| {
                let at = one.output.bytes().zip(one.logged.bytes()).take_while(|(a, b)| a == b).count();
                format!(
                    "task {}{}{}: {:?}, {} of {} bytes, same up to {at}, inspects {:?}, stderr {:?}, a start {:?}",
                    one.spec.number,
                    if self.is_struck(one) { ", struck in its launch" } else { "" },
                    if self.is_restarted(one) { ", the engine restarted in its launch" } else { "" },
                    one.history,
                    one.output.len(),
                    one.logged.len(),
                    one.wrong_inspects,
                    one.complaint,
                    one.unstartable
                )
            })
            .chain(recoveries)
            .collect()
    }
}

/// What went wrong with these tasks, and with how many of them.
fn wrongs(reports: &[&Report]) -> BTreeMap<&'static str, usize> {
    let count = |what: &dyn Fn(&Report) -> bool| reports.iter().filter(|one| what(one)).count();
    BTreeMap::from([
        ("tasks failed that did not fail themselves", count(&Report::is_wronged)),
        ("tasks told to be over whose container ran on", count(&|one| one.orphaned)),
        ("`docker run` that hung", count(&|one| one.hung)),
        ("wrong inspect answers", reports.iter().map(|one| one.wrong_inspects.len()).sum()),
        ("tasks with output lost or repeated", count(&Report::is_garbled)),
        ("tasks killed for their health", count(&|one| one.unhealthy >= 3)),
    ])
}
