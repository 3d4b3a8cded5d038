//! Chance that can be had again: all of it follows from one printed number. Must never be used where guessing matters.

use std::time::Duration;

/// A sequence of numbers (SplitMix64).
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// The sequence of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        Self(seed)
    }

    /// A seed from the environment (`SELVEDGE_CUSTODY_SEED`), or one of the clock's.
    #[must_use]
    pub fn seed() -> u64 {
        let given = std::env::var("SELVEDGE_CUSTODY_SEED").ok().and_then(|text| text.parse().ok());
        let clock = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        given.unwrap_or_else(|| clock().map_or(1, |now| u64::from(now.subsec_nanos())))
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of so many, from 0.
    pub fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.draw() % u64::try_from(count.max(1)).unwrap_or(1)).unwrap_or(0)
    }

    /// Either.
    pub fn coin(&mut self) -> bool {
        self.below(2) == 0
    }

    /// A pause like those between events that know nothing of each other, with this mean.
    pub fn pause(&mut self, mean: Duration) -> Duration {
        let share = (self.draw() >> 11) as f64 / (1_u64 << 53) as f64;
        mean.mul_f64(-(1.0 - share).max(1e-9).ln())
    }
}
