//! The one that breaks things, as planned, and mends them.
//!
//! Rule    after [`Nemesis::mend`] every node runs, sees the true time, has room on its disk and hears every other.

use crate::plan::{Fault, Strike};
use crate::process::{Node, Pace};
use serde::Serialize;
use std::time::{Duration, Instant};

/// How long a node may take to notice that its disk is full.
const FULL_LIMIT: Duration = Duration::from_secs(20);

/// What came of one stroke.
#[derive(Serialize, Clone, Debug)]
pub struct Struck {
    /// What.
    pub fault: &'static str,
    /// Whom.
    pub victims: Vec<usize>,
    /// How long, in milliseconds.
    pub lasted_ms: u64,
    /// Nodes that ended by themselves of it, with their exit status.
    pub ended: Vec<(usize, String)>,
    /// Nodes that did not stop when asked, and were killed.
    pub stubborn: Vec<usize>,
}

/// Breaks and mends nodes.
pub(crate) struct Nemesis {
    pub(crate) nodes: Vec<Node>,
    pub(crate) machine: crate::machine::Machine,
    pub(crate) pace: Pace,
}

impl Nemesis {
    /// Breaks something, holds it, and mends it. Blocks.
    ///
    /// # Errors
    /// Where the machine does not do as it is told, or a node does not start again.
    pub(crate) fn strike(&mut self, strike: &Strike) -> anyhow::Result<Struck> {
        let Strike { fault, victims, lasts, skew, .. } = strike;
        let begun = Instant::now();
        let mut stubborn = Vec::new();
        for i in victims {
            let node = &mut self.nodes[*i];
            match fault {
                Fault::Kill => node.kill(),
                Fault::Pause => node.pause(),
                Fault::Restart => {
                    if !node.stop() {
                        stubborn.push(*i);
                    }
                    node.spawn()?;
                }
                Fault::Full => {
                    node.fill()?;
                }
                Fault::Clock => node.set_clock(*skew)?,
                Fault::Unplug => self.machine.link(*i, false)?,
                Fault::Split => self.split(victims, *i, false)?,
            }
        }
        match fault {
            // A node that notices stops by itself.
            Fault::Full => self.await_ends(victims, *lasts.max(&FULL_LIMIT)),
            _ => std::thread::sleep(*lasts),
        }
        let mut ended = Vec::new();
        for node in self.nodes.iter_mut() {
            if let Some(status) = node.ended() {
                ended.push((node.i, status.to_string()));
            }
        }
        for i in victims {
            let node = &self.nodes[*i];
            match fault {
                Fault::Kill | Fault::Restart => {}
                Fault::Pause => node.go_on(),
                Fault::Full => node.empty(),
                Fault::Clock => node.set_clock(0)?,
                Fault::Unplug => self.machine.link(*i, true)?,
                Fault::Split => self.split(victims, *i, true)?,
            }
        }
        self.start_those_down()?;
        let lasted_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(Struck { fault: fault.name(), victims: victims.clone(), lasted_ms, ended, stubborn })
    }

    /// Between member `i` of a group and everybody outside of it.
    fn split(&self, group: &[usize], i: usize, may: bool) -> anyhow::Result<()> {
        for other in (0..self.nodes.len()).filter(|o| !group.contains(o)) {
            self.machine.hears(i, other, may)?;
            self.machine.hears(other, i, may)?;
        }
        Ok(())
    }

    fn await_ends(&mut self, victims: &[usize], limit: Duration) {
        let begun = Instant::now();
        // Looked at, not taken: the caller counts them.
        let all_ended = |nodes: &mut [Node]| victims.iter().all(|i| nodes[*i].has_ended());
        while begun.elapsed() < limit && !all_ended(&mut self.nodes) {
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Starts every node that is down, all at once.
    fn start_those_down(&mut self) -> anyhow::Result<()> {
        for node in self.nodes.iter_mut().filter(|n| !n.runs()) {
            node.spawn()?;
        }
        let pace = self.pace;
        self.nodes.iter_mut().try_for_each(|node| node.ready(pace))
    }

    /// After the last stroke: whatever ended meanwhile runs again. Says which that were.
    ///
    /// # Errors
    /// Where one does not start.
    pub(crate) fn mend(&mut self) -> anyhow::Result<Vec<(usize, String)>> {
        let ended = self.nodes.iter_mut().filter_map(|n| Some((n.i, n.ended()?.to_string()))).collect();
        self.start_those_down()?;
        Ok(ended)
    }
}
