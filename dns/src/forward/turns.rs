//! Decides whose answer counts: name servers take turns in the order of their list. Time and answers come from outside.
//! It must never let a "no" win over a server that is earlier in the list and has time left.

use std::time::Duration;

use tokio::time::Instant;

use crate::forward::message::{self, Verdict};
use crate::forward::received::Received;

/// How long to keep an address that did not come from the first server of the list, which may soon know better.
const NOT_THE_FIRST_S: Duration = Duration::from_secs(10);
/// How long a silent server holds up an address from another one. Some resolvers (musl) wait no longer than 5 s for all
/// servers together, so a dead one must not cost them the answer.
const HOLD: Duration = Duration::from_millis(1500);
/// Later than the end of any lookup.
const FAR: Duration = Duration::from_secs(3600);

/// A server's reply.
#[derive(Debug)]
pub(crate) enum Said {
    /// The name has what was asked for.
    Yes(Received),
    /// There is no such name, or no record of that type.
    No(Received),
    /// It does not know (SERVFAIL, REFUSED, ...), or cannot be asked.
    Useless(Option<Received>),
}

impl Said {
    pub(crate) fn of(received: Received) -> Self {
        match message::verdict(&received.bytes) {
            Verdict::Yes => Self::Yes(received),
            Verdict::No => Self::No(received),
            Verdict::Useless => Self::Useless(Some(received)),
        }
    }
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// This server's answer is the one.
    Take(usize),
    /// All have answered, and none knows.
    NobodyKnows,
    /// Nothing to do before that time, unless an answer arrives.
    Wait(Instant),
}

#[derive(Debug)]
struct Place {
    turn: Duration,
    doubtful: bool,
    asked: Option<Instant>,
    said: Option<Said>,
}

impl Place {
    /// How long it holds up a yes from another server.
    fn hold(&self) -> Duration {
        if self.doubtful { Duration::ZERO } else { self.turn.min(HOLD) }
    }

    /// Whether the next server has to be asked too.
    fn is_no_hope(&self) -> bool {
        self.doubtful || matches!(self.said, Some(Said::Useless(_)))
    }
}

/// The servers of one lookup.
#[derive(Debug)]
pub(crate) struct Table(Vec<Place>);

impl Table {
    /// For each server: the length of its turn, and whether it counts as dead.
    pub(crate) fn new(servers: impl Iterator<Item = (Duration, bool)>) -> Self {
        let place = |(turn, doubtful)| Place { turn, doubtful, asked: None, said: None };
        Self(servers.map(place).collect())
    }

    /// The servers to ask now, which then count as asked: one after the other, or all of them if `all` is true.
    pub(crate) fn ask_now(&mut self, now: Instant, all: bool) -> Vec<usize> {
        let asked = self.0.iter().take_while(|place| all || place.is_no_hope()).count() + 1;
        let mut fresh = Vec::new();
        for (at, place) in self.0.iter_mut().enumerate().take(asked) {
            if place.asked.is_none() {
                place.asked = Some(now);
                fresh.push(at);
            }
        }
        fresh
    }

    pub(crate) fn next(&self, now: Instant) -> Next {
        // Until when earlier servers hold up a no and a yes.
        let (mut no, mut yes) = (now, now);
        let mut wake = now + FAR;
        for (at, place) in self.0.iter().enumerate() {
            let held_until = match &place.said {
                Some(Said::Useless(_)) => continue,
                Some(Said::Yes(_)) => yes,
                Some(Said::No(_)) => no,
                None => {
                    let asked = place.asked.unwrap_or(now + FAR);
                    no = no.max(asked + place.turn);
                    yes = yes.max(asked + place.hold());
                    wake = [asked + place.hold(), asked + place.turn]
                        .into_iter()
                        .filter(|time| *time > now)
                        .fold(wake, Instant::min);
                    continue;
                }
            };
            return if held_until <= now { Next::Take(at) } else { Next::Wait(held_until) };
        }
        let is_useless = |place: &Place| matches!(place.said, Some(Said::Useless(_)));
        if self.0.iter().all(is_useless) { Next::NobodyKnows } else { Next::Wait(wake) }
    }

    pub(crate) fn said(&mut self, at: usize, said: Said) {
        if let Some(place) = self.0.get_mut(at) {
            place.said = Some(said);
        }
    }

    /// Servers that were silent for so long that they no longer hold up an address; each is reported once.
    pub(crate) fn silent(&mut self, now: Instant) -> Vec<usize> {
        let mut silent = Vec::new();
        for (at, place) in self.0.iter_mut().enumerate() {
            let over = place.asked.is_some_and(|asked| asked + place.hold() <= now);
            if over && place.said.is_none() && !place.doubtful {
                place.doubtful = true;
                silent.push(at);
            }
        }
        silent
    }

    /// This server's answer. Unless the server is first in the list, an address is
    /// cached only briefly, and a "no" not at all.
    pub(crate) fn take(self, at: usize) -> Option<Received> {
        let keep = |received: Received, keep| if at == 0 { received } else { received.kept_at_most(keep) };
        match self.0.into_iter().nth(at)?.said? {
            Said::Yes(received) => Some(keep(received, NOT_THE_FIRST_S)),
            Said::No(received) => Some(keep(received, Duration::ZERO)),
            Said::Useless(received) => received,
        }
    }

    /// The best result when time is up: the first yes or no, else an answer of a server that does not know.
    pub(crate) fn last_resort(self) -> Option<Received> {
        let known = |place: &Place| matches!(place.said, Some(Said::Yes(_) | Said::No(_)));
        match self.0.iter().position(known) {
            Some(at) => self.take(at),
            None => self.unhelpful(),
        }
    }

    /// The first answer of a server that does not know.
    pub(crate) fn unhelpful(self) -> Option<Received> {
        self.0.into_iter().find_map(|place| match place.said {
            Some(Said::Useless(received)) => received,
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TURN: Duration = Duration::from_secs(5);

    fn received() -> Received {
        Received { bytes: Vec::new(), shape: crate::forward::message::Shape::default() }
    }

    fn table(now: Instant, count: usize, doubtful: &[usize]) -> Table {
        let mut table = Table::new((0..count).map(|at| (TURN, doubtful.contains(&at))));
        table.ask_now(now, true);
        table
    }

    #[tokio::test]
    async fn a_no_waits_for_the_turns_before_it() {
        let now = Instant::now();
        let mut table = table(now, 3, &[]);
        table.said(2, Said::No(received()));
        table.said(1, Said::Useless(None));
        assert_eq!(table.next(now), Next::Wait(now + TURN));
        assert_eq!(table.next(now + TURN), Next::Take(2));
        table.said(0, Said::Yes(received()));
        assert_eq!(table.next(now), Next::Take(0));
    }

    #[tokio::test]
    async fn a_yes_waits_too_but_not_for_the_dead() {
        let now = Instant::now();
        let mut alive = table(now, 2, &[]);
        alive.said(1, Said::Yes(received()));
        assert_eq!(alive.next(now), Next::Wait(now + HOLD), "the first may say another address");
        assert_eq!(alive.next(now + HOLD), Next::Take(1));
        let mut dead = table(now, 3, &[0]);
        dead.said(2, Said::Yes(received()));
        assert_eq!(dead.next(now), Next::Wait(now + HOLD), "the second is alive");
        dead.said(1, Said::No(received()));
        assert_eq!(dead.next(now), Next::Wait(now + TURN), "and its no is before the third's yes");
        assert_eq!(dead.next(now + HOLD), Next::Wait(now + TURN));
        dead.said(1, Said::Yes(received()));
        assert_eq!(dead.next(now), Next::Take(1));
    }

    #[tokio::test]
    async fn one_is_asked_after_the_other_and_silence_is_noted_once() {
        let now = Instant::now();
        let mut table = Table::new([(TURN, false); 3].into_iter());
        assert_eq!(table.ask_now(now, false), [0]);
        assert!(table.ask_now(now, false).is_empty());
        table.said(0, Said::Useless(None));
        assert_eq!(table.ask_now(now, false), [1]);
        assert_eq!(table.silent(now + TURN), [1]);
        assert!(table.silent(now + TURN).is_empty());
        assert_eq!(table.ask_now(now + TURN, false), [2]);
        table.said(1, Said::Useless(None));
        assert!(matches!(table.next(now + TURN), Next::Wait(_)));
        table.said(2, Said::Useless(Some(received())));
        assert_eq!(table.next(now + TURN), Next::NobodyKnows);
        assert!(table.unhelpful().is_some());
        assert_eq!(Table::new(std::iter::empty()).next(now), Next::NobodyKnows);
    }
}
