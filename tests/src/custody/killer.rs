//! Ends workers with SIGKILL, one after the other, each at an instant of its own. Must never end any other process.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::chance::Chance;

/// How often to look for the next worker.
const LOOK: Duration = Duration::from_micros(500);

/// The worker of a keeper, from its first instruction on; none between two.
#[must_use]
pub fn worker_of(keeper: u32) -> Option<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{keeper}/task")).ok()?;
    let children =
        tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let children: Vec<u32> = children
        .flat_map(|line| line.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect();
    children.into_iter().rev().find(|pid| is_worker(*pid))
}

fn is_worker(pid: u32) -> bool {
    let line = std::fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).nth(1) == Some(b"worker")
}

/// Ends a process at once.
pub fn end(pid: u32) {
    let _ = kill(Pid::from_raw(i32::try_from(pid).unwrap_or(0)), Signal::SIGKILL);
}

fn end_after(pid: u32, pause: Duration) {
    std::thread::sleep(pause);
    end(pid);
}

/// Kills until told to stop.
#[derive(Debug)]
pub struct Killer {
    stop: Arc<AtomicBool>,
    kills: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Killer {
    /// Each worker lives for a random time with this mean: one from its first instruction on, the next from its first answer on.
    /// So they are killed while they start, while they serve, and never all of them sooner than they serve. `served` ends when
    /// one has answered.
    #[must_use]
    pub fn start(keeper: u32, seed: u64, mean: Duration, served: impl Fn() + Send + 'static) -> Self {
        let (stop, kills) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&kills));
        let mut chance = Chance::of(seed);
        let one = move |worker, nth: usize| {
            if nth.is_multiple_of(2) {
                served();
            }
            end_after(worker, chance.pause(mean));
        };
        let thread = std::thread::spawn(move || kill_all(keeper, &stopped, &counted, one));
        Self { stop, kills, thread }
    }

    /// How many were killed so far.
    #[must_use]
    pub fn kills(&self) -> usize {
        self.kills.load(Relaxed)
    }

    /// Ends it; how many were killed.
    ///
    /// # Panics
    /// When its thread did.
    #[must_use]
    pub fn stop(self) -> usize {
        self.stop.store(true, Relaxed);
        self.thread.join().expect("no panic in here");
        self.kills.load(Relaxed)
    }
}

/// Ends each worker by `one` until told to stop, and counts them.
fn kill_all(keeper: u32, stop: &AtomicBool, kills: &AtomicUsize, mut one: impl FnMut(u32, usize)) {
    let mut last = 0;
    while !stop.load(Relaxed) {
        if let Some(worker) = worker_of(keeper).filter(|worker| *worker != last) {
            one(worker, kills.load(Relaxed));
            kills.fetch_add(1, Relaxed);
            last = worker;
        }
        std::thread::sleep(LOOK);
    }
}
