//! Many clients at once, while workers are killed: until so many kills, and then all that is under way to its end.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::chance::Chance;
use super::killer::Killer;
use super::raw::Raw;
use super::scene::Scene;
use super::tally::{Tally, Verdict};
use super::{cli_files, cli_lives, lifecycle, questions};
use crate::docker::Docker;

/// How large it is.
#[derive(Debug, Clone, Copy)]
pub struct Storm {
    /// How many kills.
    pub kills: usize,
    /// How long a worker lives on average, from its first instruction or its first answer on.
    pub mean: Duration,
    /// Clients by hand that only ask.
    pub askers: usize,
    /// Clients by hand that change something.
    pub changers: usize,
    /// Clients that are CLIs.
    pub clis: usize,
}

type ByHand = fn(&Scene, &mut Raw) -> Verdict;
type ByCli = fn(&Scene, &Docker) -> Verdict;

/// Questions by hand.
pub const QUESTIONS: [(&str, ByHand); 7] = [
    ("raw ping", questions::ping),
    ("raw version", questions::version),
    ("raw list", questions::list),
    ("raw inspect", questions::inspect),
    ("raw inspect of none", questions::absent),
    ("raw image", questions::images),
    ("raw events", questions::events),
];

/// Changes by hand.
pub const CHANGES: [(&str, ByHand); 6] = [
    ("raw creates", lifecycle::creates),
    ("raw life", lifecycle::life),
    ("raw restarts", lifecycle::restarts),
    ("raw changes", lifecycle::changes),
    ("raw copies", lifecycle::copies),
    ("raw exec", questions::exec),
];

/// Calls of the CLI.
pub const CALLS: [(&str, ByCli); 12] = [
    ("cli look", cli_files::look),
    ("cli run", cli_lives::run),
    ("cli run -i", cli_lives::run_with_stdin),
    ("cli run -d", cli_lives::run_detached),
    ("cli verbs", cli_lives::verbs),
    ("cli follow", cli_lives::follow),
    ("cli exec", cli_files::exec),
    ("cli cp", cli_files::copy),
    ("cli commit", cli_files::commit),
    ("cli build", cli_files::build),
    ("cli network", cli_files::network),
    ("cli pull", cli_files::pull),
];

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// By the kind of operation.
    pub tally: Tally,
    /// How many were killed.
    pub kills: usize,
    /// What was there at the end that should not be.
    pub left_over: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

impl Storm {
    /// As the environment says (`SELVEDGE_CUSTODY_KILLS`), or this many kills.
    #[must_use]
    pub fn of(kills: usize) -> Self {
        let given = std::env::var("SELVEDGE_CUSTODY_KILLS").ok().and_then(|text| text.parse().ok());
        Self {
            kills: given.unwrap_or(kills),
            mean: Duration::from_millis(100),
            askers: 1,
            changers: 1,
            clis: 2,
        }
    }

    /// Lets it rage. Without kills it lasts for half a minute: what goes wrong then is no fault of a kill's.
    #[must_use]
    pub fn rage(self, scene: &Scene, seed: u64) -> Outcome {
        let (tally, over, began) = (Tally::default(), AtomicBool::new(false), Instant::now());
        let killed = std::thread::scope(|scope| {
            for nth in 0..self.askers + self.changers + self.clis {
                let (tally, over) = (&tally, &over);
                scope.spawn(move || self.client(scene, (nth, seed), tally, over));
            }
            let killed = self.kill(scene, seed);
            over.store(true, Relaxed);
            killed
        });
        Outcome { tally, kills: killed, left_over: scene.left_over(), took: began.elapsed() }
    }

    fn kill(self, scene: &Scene, seed: u64) -> usize {
        if self.kills == 0 {
            std::thread::sleep(Duration::from_secs(30));
            return 0;
        }
        let socket = scene.lab.socket();
        let served = move || drop(Raw::new(&socket, false).expect(200, "GET", "/_ping", None));
        let killer = Killer::start(scene.lab.selvedge.keeper(), seed, self.mean, served);
        while killer.kills() < self.kills {
            std::thread::sleep(Duration::from_millis(50));
        }
        killer.stop()
    }

    fn client(self, scene: &Scene, (nth, seed): (usize, u64), tally: &Tally, over: &AtomicBool) {
        let mut chance = Chance::of(seed ^ (nth as u64 + 1).wrapping_mul(0xa5a5_5a5a_1234_4321));
        let mut raw = scene.raw(&mut chance);
        while !over.load(Relaxed) {
            if nth < self.askers {
                let (kind, ask) = QUESTIONS[chance.below(QUESTIONS.len())];
                tally.count(kind, ask(scene, &mut raw));
            } else if nth < self.askers + self.changers {
                let (kind, change) = CHANGES[chance.below(CHANGES.len())];
                tally.count(kind, change(scene, &mut raw));
            } else {
                let (kind, call) = CALLS[chance.below(CALLS.len())];
                tally.count(kind, call(scene, scene.cli(&mut chance)));
            }
        }
    }
}
