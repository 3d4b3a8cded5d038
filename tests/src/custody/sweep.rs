//! Each step of [`super::steps`] again and again, with the worker killed at its first system call, at its second, and so on,
//! until the call is answered before there is one to be killed at.

use std::time::{Duration, Instant};

use super::killer::worker_of;
use super::raw::Raw;
use super::scene::Scene;
use super::steps::Step;
use super::tally::{Tally, Trouble, Verdict};
use super::trace::killed_at;

/// A next worker serves by then.
const NEXT: Duration = Duration::from_secs(60);

/// Which of the points of a step to take.
#[derive(Debug, Clone, Copy)]
pub struct Sweep {
    /// The first.
    pub first: usize,
    /// One of so many.
    pub every: usize,
}

impl Sweep {
    /// As the environment says (`SELVEDGE_CUSTODY_EVERY`), or one of so many, from one that the seed says.
    #[must_use]
    pub fn of(every: usize, seed: u64) -> Self {
        let given = std::env::var("SELVEDGE_CUSTODY_EVERY").ok().and_then(|text| text.parse().ok());
        let every = given.unwrap_or(every).max(1);
        Self { first: 1 + usize::try_from(seed % every as u64).unwrap_or(0), every }
    }

    /// Takes a step through its points; how many there were, and at how many the worker was killed.
    #[must_use]
    pub fn through(self, scene: &Scene, step: &Step, tally: &Tally) -> (usize, usize) {
        let (mut nth, mut covered) = (self.first, 0);
        loop {
            let (stops, verdict) = point(scene, step, nth);
            let verdict = verdict.map_err(|trouble| at(&trouble, step, nth));
            tally.count(step.name, verdict);
            match stops {
                Some(stops) => return (stops, covered),
                None => covered += 1,
            }
            nth += self.every;
        }
    }
}

fn at(trouble: &Trouble, step: &Step, nth: usize) -> Trouble {
    let of =
        |make: fn(String) -> Trouble, what: &str| make(format!("{} killed at stop {nth}: {what}", step.name));
    match trouble {
        Trouble::Failed(what) => of(Trouble::Failed, what),
        Trouble::Hung(what) => of(Trouble::Hung, what),
        Trouble::Twice(what) => of(Trouble::Twice, what),
        Trouble::Wrong(what) => of(Trouble::Wrong, what),
    }
}

/// The verdict, and how often the worker stopped if it was not killed before the end.
fn point(scene: &Scene, step: &Step, nth: usize) -> (Option<usize>, Verdict) {
    let subject = match step.prepare(scene) {
        Ok(subject) => subject,
        // What came before has left it in a state that no call can be made in.
        Err(trouble) => return (Some(0), Err(trouble)),
    };
    let Some(worker) = serving(scene) else {
        return (Some(0), Err(Trouble::Hung("no next worker".to_owned())));
    };
    let (followed, verdict) = killed_at(worker, nth, || step.act(scene, &subject));
    let cleared = step.clear(scene, &subject);
    ((!followed.killed).then_some(followed.stops), verdict.and(cleared))
}

/// The worker, when it serves.
fn serving(scene: &Scene) -> Option<u32> {
    let until = Instant::now() + NEXT;
    let keeper = scene.lab.selvedge.keeper();
    while Instant::now() < until {
        let before = worker_of(keeper);
        let pong = Raw::new(&scene.lab.socket(), false).expect(200, "GET", "/_ping", None);
        if before.is_some() && pong.is_ok() && worker_of(keeper) == before {
            return before;
        }
    }
    None
}
