//! What a seed draws: how many members, and which faults strike whom, for how long, one after the other.
//!
//! Rule    no clock, no machine: the same seed and the same kinds of faults give the same plan everywhere.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use std::time::Duration;

/// What may be broken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, clap::ValueEnum)]
pub enum Fault {
    /// `kill -9`, and a new start when healed.
    Kill,
    /// SIGSTOP, and SIGCONT when healed.
    Pause,
    /// A graceful stop, and a new start at once.
    Restart,
    /// The file system of the data directory is filled to the last byte, and emptied when healed.
    Full,
    /// The wall clock jumps, and jumps back when healed; the monotonic clock goes on.
    Clock,
    /// The link to everybody is down.
    Unplug,
    /// The members are split into two groups that do not hear each other; clients hear all.
    Split,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Self; 7] =
        [Self::Kill, Self::Pause, Self::Restart, Self::Full, Self::Clock, Self::Unplug, Self::Split];

    /// Its name, as `--faults` takes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Restart => "restart",
            Self::Full => "full",
            Self::Clock => "clock",
            Self::Unplug => "unplug",
            Self::Split => "split",
        }
    }
}

/// One stroke.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Strike {
    /// Time with nothing broken before it.
    pub after: Duration,
    /// What.
    pub fault: Fault,
    /// Whom, by number; of a split, one of the two groups.
    pub victims: Vec<usize>,
    /// How long it lasts.
    pub lasts: Duration,
    /// Seconds that a clock jumps.
    pub skew: i64,
}

/// A round.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Nodes, all members of every database.
    pub members: usize,
    /// What happens.
    pub strikes: Vec<Strike>,
}

/// Longest time that a fault lasts, and between two, in milliseconds.
const LASTS_MS: std::ops::Range<u64> = 1000..5000;
const AFTER_MS: std::ops::Range<u64> = 300..2000;
/// One stroke in so many takes the quorum away.
const QUORUM_LOST_ONE_IN: u32 = 5;

impl Plan {
    /// Draws a round that lasts about `length`, and in which every kind strikes.
    ///
    /// # Panics
    /// Where no kind of fault is given.
    #[must_use]
    pub fn draw(seed: u64, members: Option<usize>, kinds: &[Fault], length: Duration) -> Self {
        assert!(!kinds.is_empty(), "a plan needs a kind of fault");
        let mut rng = StdRng::seed_from_u64(seed ^ 0x0c4a_0500_fa17);
        let members = members.unwrap_or_else(|| *[4, 4, 4, 5, 7].choose(&mut rng).expect("some"));
        let bears = (members - 1) / 3;
        let (mut strikes, mut total) = (Vec::new(), Duration::ZERO);
        // Every kind comes once before any comes again.
        let mut next: Vec<Fault> = Vec::new();
        while total < length || strikes.len() < kinds.len() {
            if next.is_empty() {
                next = kinds.to_vec();
                next.shuffle(&mut rng);
            }
            let fault = next.pop().expect("just filled");
            let many = rng.gen_ratio(1, QUORUM_LOST_ONE_IN);
            let count = match (fault, many) {
                // A split has two sides whatever their size.
                (Fault::Split, _) => rng.gen_range(1..=members / 2),
                // Members whose clocks are wrong are members that err: more of them than the cluster bears is another experiment.
                (Fault::Clock, _) | (_, false) => rng.gen_range(1..=bears.max(1)),
                (_, true) => rng.gen_range(bears + 1..=members),
            };
            let mut all: Vec<usize> = (0..members).collect();
            all.shuffle(&mut rng);
            let mut victims = all[..count].to_vec();
            victims.sort_unstable();
            let skew = rng.gen_range(5..=300) * if rng.gen_bool(0.5) { 1 } else { -1 };
            let (after, lasts) = (rng.gen_range(AFTER_MS), rng.gen_range(LASTS_MS));
            let (after, lasts) = (Duration::from_millis(after), Duration::from_millis(lasts));
            total += after + lasts;
            strikes.push(Strike { after, fault, victims, lasts, skew });
        }
        Self { members, strikes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_seed_draws_the_same_plan_and_another_seed_another() {
        let draw = |seed| Plan::draw(seed, None, &Fault::ALL, Duration::from_secs(60));
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn every_kind_comes_and_victims_are_members() {
        let (mut kinds, mut lost) = (BTreeSet::new(), 0);
        for seed in 0..50 {
            let plan = Plan::draw(seed, None, &Fault::ALL, Duration::from_secs(40));
            for strike in &plan.strikes {
                kinds.insert(strike.fault);
                assert!(!strike.victims.is_empty() && strike.victims.iter().all(|v| *v < plan.members), "{strike:?}");
                let bears = (plan.members - 1) / 3;
                lost += usize::from(strike.victims.len() > bears && strike.fault != Fault::Split);
                assert!(strike.fault != Fault::Clock || strike.victims.len() <= bears, "{strike:?}");
            }
        }
        assert_eq!(kinds.len(), Fault::ALL.len());
        assert!(lost > 10, "{lost} strokes took the quorum away");
    }
}
