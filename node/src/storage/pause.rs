//! When proofs hold still: while the operator's file is there, and while the machine is busy with other things.
//!
//! File     `DATA_DIR/pause-proving`: as long as it is there, over restarts too. `touch` pauses, `rm` resumes
//! Load     above `proving.pause_above_load`, the load average of the last minute less the threads that prove; for at most
//!          `proving.pause_minutes_max`, then proofs go on for as long at least: a proof that is late costs the node its stake
//! Rule     a paused proof holds its memory and goes on where it was; `Scheduler` says between which pieces of work
//! Limits   a load is what Linux says it is; where the system says none, that part is off

use crate::config::ProvingConfig;
use fluence_prover::Scheduler;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Time between two looks.
pub(super) const EVERY: Duration = Duration::from_secs(1);

/// Why proofs hold still.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Why {
    Operator,
    Load,
}

/// What there is to see at one moment.
#[derive(Clone, Copy, Debug)]
struct Sight {
    now: Instant,
    file_there: bool,
    /// Load average of the last minute, less ours.
    load: Option<f64>,
}

/// Decides.
#[derive(Debug)]
struct Rules {
    load_max: Option<f64>,
    at_most: Duration,
    /// Since when proofs hold still for the load, or do not though it is high.
    held: Option<Instant>,
    spared: Option<Instant>,
}

impl Rules {
    fn new(config: &ProvingConfig) -> Self {
        let at_most = Duration::from_secs(60 * u64::from(config.pause_minutes_max));
        Self { load_max: config.pause_above_load, at_most, held: None, spared: None }
    }

    fn judge(&mut self, sight: &Sight) -> Option<Why> {
        let busy = self.load_max.zip(sight.load).is_some_and(|(max, load)| load > max);
        let since = |at: Option<Instant>| at.map(|at| sight.now.saturating_duration_since(at));
        if since(self.spared).is_some_and(|time| time >= self.at_most) {
            self.spared = None;
        }
        if since(self.held).is_some_and(|time| time >= self.at_most) {
            self.spared = Some(sight.now);
        }
        let holds = busy && self.spared.is_none();
        self.held = holds.then(|| self.held.unwrap_or(sight.now));
        if sight.file_there { Some(Why::Operator) } else { holds.then_some(Why::Load) }
    }
}

/// Pauses and resumes a scheduler as the rules say.
pub(super) struct Pauser {
    file: PathBuf,
    rules: Rules,
    paused: Option<Why>,
}

impl Pauser {
    pub(super) fn new(file: PathBuf, config: &ProvingConfig) -> Self {
        metrics::gauge!("fluence_proving_paused").set(0.0);
        Self { file, rules: Rules::new(config), paused: None }
    }

    /// One look. The load is read only where it counts.
    pub(super) fn look(&mut self, scheduler: &Scheduler) {
        let load = self.rules.load_max.and_then(|_| load_average());
        self.see(scheduler, Instant::now(), load);
    }

    fn see(&mut self, scheduler: &Scheduler, now: Instant, load: Option<f64>) {
        // A proof that holds still is no load.
        let ours = if scheduler.is_paused() { 0 } else { scheduler.busy_threads() };
        let load = load.map(|load| load - ours as f64);
        let why = self.rules.judge(&Sight { now, file_there: self.file.exists(), load });
        if why == self.paused {
            return;
        }
        match why {
            Some(Why::Operator) => {
                tracing::warn!(file = %self.file.display(), "proving is paused; proofs that come late cost stake")
            }
            Some(Why::Load) => tracing::info!(load, "proving is paused: the machine is busy"),
            None => tracing::info!("proving goes on"),
        }
        if why.is_some() {
            scheduler.pause()
        } else {
            scheduler.resume()
        }
        metrics::gauge!("fluence_proving_paused").set(f64::from(u8::from(why.is_some())));
        self.paused = why;
    }
}

fn load_average() -> Option<f64> {
    parse(&std::fs::read_to_string("/proc/loadavg").ok()?)
}

fn parse(line: &str) -> Option<f64> {
    line.split(' ').next()?.parse().ok().filter(|load: &f64| load.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroUsize;

    fn config(load: f64) -> ProvingConfig {
        let threads = NonZeroUsize::new(2);
        ProvingConfig { threads, pause_above_load: Some(load), pause_minutes_max: 10, ..ProvingConfig::default() }
    }

    #[test]
    fn a_load_above_the_limit_holds_and_one_at_it_does_not() {
        let mut rules = Rules::new(&config(1.5));
        let now = Instant::now();
        let mut judge = |load| rules.judge(&Sight { now, file_there: false, load });
        assert_eq!(judge(Some(1.5)), None);
        assert_eq!(judge(Some(1.6)), Some(Why::Load));
        assert_eq!(judge(Some(0.1)), None);
        assert_eq!(judge(None), None, "a system that says nothing");
        let mut off = Rules::new(&ProvingConfig::default());
        assert_eq!(off.judge(&Sight { now, file_there: false, load: Some(1e9) }), None);
    }

    #[test]
    fn a_load_that_stays_holds_ten_minutes_of_twenty() {
        let mut rules = Rules::new(&config(1.0));
        let start = Instant::now();
        let held: Vec<u64> = (0..60)
            .filter(|minute| {
                let sight = Sight { now: start + Duration::from_secs(60 * minute), file_there: false, load: Some(9.0) };
                rules.judge(&sight).is_some()
            })
            .collect();
        assert_eq!(held, (0..10).chain(20..30).chain(40..50).collect::<Vec<_>>());
        // A load that goes and comes again is a new one, but does not shorten what proofs were promised.
        let mut at = |minute: u64, load| {
            rules.judge(&Sight { now: start + Duration::from_secs(60 * minute), file_there: false, load: Some(load) })
        };
        assert_eq!(at(55, 0.0), None);
        assert_eq!(at(56, 9.0), None);
        assert_eq!(at(61, 9.0), Some(Why::Load));
    }

    #[test]
    fn the_operators_file_pauses_without_end_and_wins_over_the_load() {
        let dir = tempfile::tempdir().unwrap();
        let (file, config) = (dir.path().join("pause-proving"), config(1.0));
        let scheduler = Scheduler::new(config.limits());
        let mut pauser = Pauser::new(file.clone(), &config);
        let start = Instant::now();
        pauser.see(&scheduler, start, Some(0.0));
        assert!(!scheduler.is_paused());
        std::fs::write(&file, "").unwrap();
        for hour in 0..3 {
            pauser.see(&scheduler, start + Duration::from_secs(3600 * hour), Some(9.0));
            assert!(scheduler.is_paused(), "hour {hour}");
            assert_eq!(pauser.paused, Some(Why::Operator));
        }
        std::fs::remove_file(&file).unwrap();
        pauser.see(&scheduler, start + Duration::from_secs(3 * 3600), Some(0.5));
        assert!(!scheduler.is_paused());
    }

    #[test]
    fn the_load_is_the_first_number() {
        assert_eq!(parse("2.26 2.33 2.74 3/87 20755\n"), Some(2.26));
        for bad in ["", "x 1", "NaN 1", "inf"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
