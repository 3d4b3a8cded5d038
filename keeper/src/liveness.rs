//! Whether a worker still does its work: it is asked twice a second, and one that owes an answer for too long is hung.
//!
//! It must never count time in which the keeper itself stood still, as on a host that was suspended: it counts its own
//! turns, not the clock.

use std::time::{Duration, Instant};

/// The time between two looks.
const EVERY: Duration = Duration::from_millis(500);

/// What a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Ask it.
    Ask,
    /// It owes an answer, not for long yet.
    Wait,
    /// It owes an answer for longer than it may.
    Hung,
}

/// The questions to one worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Liveness {
    next: Instant,
    /// Looks since the question that is not answered yet.
    owed: Option<u32>,
}

impl Liveness {
    /// One that is asked first after a while.
    pub(crate) fn new(now: Instant) -> Self {
        Self { next: now + EVERY, owed: None }
    }

    /// When to look.
    pub(crate) fn due(&self) -> Instant {
        self.next
    }

    /// It answered.
    pub(crate) fn answered(&mut self) {
        self.owed = None;
    }

    /// Looks, when it is due. `limit`: for how long it may owe an answer; zero for ever.
    pub(crate) fn look(&mut self, now: Instant, limit: Duration) -> Look {
        self.next = now + EVERY;
        let Some(looks) = self.owed else {
            self.owed = Some(0);
            return Look::Ask;
        };
        self.owed = Some(looks + 1);
        match !limit.is_zero() && EVERY * (looks + 1) >= limit {
            true => Look::Hung,
            false => Look::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    #[test]
    fn one_that_answers_is_asked_again_and_one_that_does_not_is_hung_in_time() {
        let mut now = Instant::now();
        let mut liveness = Liveness::new(now);
        for _ in 0..3 {
            now = liveness.due();
            assert_eq!(liveness.look(now, LIMIT), Look::Ask);
            liveness.answered();
        }
        let (asked, mut looks) = (now, 0);
        now = liveness.due();
        assert_eq!(liveness.look(now, LIMIT), Look::Ask);
        while liveness.look(liveness.due(), LIMIT) == Look::Wait {
            looks += 1;
            assert!(looks < 20);
        }
        assert_eq!(liveness.due() - asked, Duration::from_secs(6), "asked, five seconds, and the next look");
    }

    #[test]
    fn time_in_which_the_keeper_stood_still_does_not_count() {
        let now = Instant::now();
        let mut liveness = Liveness::new(now);
        assert_eq!(liveness.look(now, LIMIT), Look::Ask);
        assert_eq!(liveness.look(now + Duration::from_secs(3600), LIMIT), Look::Wait);
    }

    #[test]
    fn without_a_limit_none_is_hung() {
        let mut liveness = Liveness::new(Instant::now());
        let _ = liveness.look(liveness.due(), Duration::ZERO);
        assert!((0..1000).all(|_| liveness.look(liveness.due(), Duration::ZERO) == Look::Wait));
    }
}
