//! What a seed draws: a cluster, its network, its liars, its writers, and what befalls it when.
//!
//! Rule    members that lie, and members whose vote journal is deleted, are never more than f together: all else may happen to all.

use fluence_consensus::{Bug, Timing};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How far an honest clock is from the right time.
pub(crate) const CLOCK_MS_MAX: i64 = 25_000;

/// A bug put in on purpose, in every honest member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Planted {
    /// A quorum of 2f wherever our own code counts one.
    ShortQuorum,
    /// Votes are given without comparing the executed root.
    UncheckedRoot,
    /// Operations leave the mempool when they are proposed.
    DrainedMempool,
    /// A member whose vote journal is gone votes again in the same epoch.
    LostVoteJournal,
    /// Cells that a member sends for a missing segment are taken as they are.
    BadPage,
}

impl Planted {
    /// All of them, with their names.
    pub const ALL: [(&'static str, Self); 5] = [
        ("short-quorum", Self::ShortQuorum),
        ("unchecked-root", Self::UncheckedRoot),
        ("drained-mempool", Self::DrainedMempool),
        ("lost-vote-journal", Self::LostVoteJournal),
        ("bad-page", Self::BadPage),
    ];

    /// The bug in a replica, where it is one of the replica's.
    pub(crate) const fn bug(self) -> Option<Bug> {
        match self {
            Self::ShortQuorum | Self::BadPage => None,
            Self::UncheckedRoot => Some(Bug::UncheckedRoot),
            Self::DrainedMempool => Some(Bug::DrainedMempool),
            Self::LostVoteJournal => Some(Bug::LostVoteJournal),
        }
    }
}

impl FromStr for Planted {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(n, _)| *n == name);
        found.map(|(_, planted)| *planted).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|(n, _)| *n).collect();
            format!("no such bug; there are {}", names.join(", "))
        })
    }
}

impl fmt::Display for Planted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(_, p)| p == self).map_or("", |(n, _)| *n);
        f.write_str(name)
    }
}

/// How a Byzantine member behaves. All of them run a replica; what differs is what leaves it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conduct {
    /// Two replicas with one key, each speaking with a part of the others that changes with time.
    Twins,
    /// Hears everything, says nothing.
    Silent,
    /// Sends garbage beside its messages: random bytes, its own with bits flipped or the end cut off.
    Garbage,
    /// Sends its old messages again.
    Replay,
    /// Keeps its blocks and its answers to itself, but votes.
    Withhold,
    /// Answers with wrong cells when a member asks for a segment that it misses, and with wrong snapshots when a newcomer asks for one.
    BadPages,
    /// Honest, but its clock is wrong by minutes.
    Clock,
    /// Proposes wrong blocks, votes for everything, and signs receipts for segments that it does not keep.
    Lie(Falsehood),
}

impl Conduct {
    /// What the table calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Twins => "twins: two replicas, one key",
            Self::Silent => "silent",
            Self::Garbage => "garbage among its messages",
            Self::Replay => "old messages again",
            Self::Withhold => "withholds blocks, cells and answers",
            Self::BadPages => "serves wrong cells and snapshots",
            Self::Clock => "a clock wrong by minutes",
            Self::Lie(Falsehood::Root) => "proposes a wrong executed root",
            Self::Lie(Falsehood::Committee) => "proposes a wrong next committee",
            Self::Lie(Falsehood::Future) => "proposes a time a day ahead",
            Self::Lie(Falsehood::Signature) => "proposes a forged signature",
            Self::Lie(Falsehood::Operations) => "proposes other operations than the header names",
            Self::Lie(Falsehood::Again) => "proposes what was done again",
            Self::Lie(Falsehood::Height) => "proposes an older root than its parent",
        }
    }

    /// Whether it signs receipts for what it does not keep.
    pub(crate) const fn signs_blindly(self) -> bool {
        matches!(self, Self::Withhold | Self::Lie(_))
    }
}

/// What is wrong with a liar's proposals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Falsehood {
    /// The executed root.
    Root,
    /// The next committee.
    Committee,
    /// The time: a day ahead.
    Future,
    /// A signature of an operation.
    Signature,
    /// The operations are in the header's hash, but not in the block.
    Operations,
    /// An operation that was done before is proposed again.
    Again,
    /// The executed height: older than its parent's.
    Height,
}

impl Falsehood {
    const ALL: [Self; 7] =
        [Self::Root, Self::Committee, Self::Future, Self::Signature, Self::Operations, Self::Again, Self::Height];
}

/// Something that befalls the cluster. Times are virtual milliseconds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The members in `side` hear only each other, and so do the others.
    Partition {
        /// Bit i is member i.
        side: u32,
        /// For how long.
        ms: u64,
    },
    /// The next leader that waits for something to propose is cut off from all members, and clients find only it.
    Leader {
        /// For how long.
        ms: u64,
    },
    /// Nothing gets from one member to another; the way back is open.
    Cut {
        /// Who is not heard.
        from: usize,
        /// By whom.
        to: usize,
        /// For how long.
        ms: u64,
    },
    /// All links lose messages.
    Loss {
        /// Of a hundred.
        percent: u64,
        /// For how long.
        ms: u64,
    },
    /// All links are slow, and overtake each other.
    Delay {
        /// Mean latency, with half of it as jitter.
        latency_ms: u64,
        /// For how long.
        ms: u64,
    },
    /// One member is slow.
    Slow {
        /// Which.
        member: usize,
        /// For how long.
        ms: u64,
    },
    /// A member loses what it has not synced, and starts again.
    Crash {
        /// Which.
        member: usize,
        /// When it starts again.
        down_ms: u64,
        /// Whether its vote journals are deleted meanwhile.
        lose_journal: bool,
    },
    /// All members crash at once.
    Outage {
        /// When they start again, one after the other.
        down_ms: u64,
    },
    /// The engine's disk fails, and the member starts again.
    Disk {
        /// Which.
        member: usize,
        /// The write that fails, from now.
        write: u64,
        /// Whether the failing write took effect.
        written: bool,
        /// When it starts again after it has stopped.
        down_ms: u64,
    },
}

impl Fault {
    /// Names of all kinds, for the table.
    pub const KINDS: [&'static str; 10] = [
        "partition",
        "one-way cut",
        "loss",
        "delay and reordering",
        "slow member",
        "crash and restart",
        "crash, vote journal deleted",
        "all crash at once",
        "disk failure",
        "leader cut off",
    ];

    /// Its place in [`Fault::KINDS`].
    #[must_use]
    pub const fn kind(&self) -> usize {
        match self {
            Self::Partition { .. } => 0,
            Self::Cut { .. } => 1,
            Self::Loss { .. } => 2,
            Self::Delay { .. } => 3,
            Self::Slow { .. } => 4,
            Self::Crash { lose_journal: false, .. } => 5,
            Self::Crash { lose_journal: true, .. } => 6,
            Self::Outage { .. } => 7,
            Self::Disk { .. } => 8,
            Self::Leader { .. } => 9,
        }
    }

    const fn lasts(&self) -> u64 {
        match self {
            Self::Partition { ms, .. }
            | Self::Leader { ms }
            | Self::Cut { ms, .. }
            | Self::Loss { ms, .. }
            | Self::Delay { ms, .. }
            | Self::Slow { ms, .. } => *ms,
            Self::Crash { down_ms, .. } | Self::Outage { down_ms } | Self::Disk { down_ms, .. } => *down_ms,
        }
    }
}

/// What the owner wishes of the cluster's members while everything else goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// The newcomer joins.
    Join,
    /// A member leaves.
    Leave(usize),
    /// The newcomer takes a member's place.
    Replace(usize),
}

impl Change {
    /// Names of all kinds, for the table.
    pub const KINDS: [&'static str; 3] = ["a node joins", "a member leaves", "a node takes a member's place"];

    /// Its place in [`Change::KINDS`].
    #[must_use]
    pub const fn kind(&self) -> usize {
        match self {
            Self::Join => 0,
            Self::Leave(_) => 1,
            Self::Replace(_) => 2,
        }
    }

    /// Whom it sends away.
    #[must_use]
    pub const fn out(&self) -> Option<usize> {
        match self {
            Self::Join => None,
            Self::Leave(out) | Self::Replace(out) => Some(*out),
        }
    }

    /// Whether somebody comes.
    #[must_use]
    pub const fn joins(&self) -> bool {
        matches!(self, Self::Join | Self::Replace(_))
    }
}

/// What a writer does, and how it treats the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// One operation after the other; after a timeout the same through another member.
    Plain,
    /// Stays with the member that took its operation for as long as that runs.
    Patient,
    /// Signs two operations with one number and sends each to another member.
    Double,
    /// Sends what was done again, and sends everything to two members.
    Repeat,
    /// Names too few receipts in some of its operations.
    ShortReceipts,
    /// Uploads some of its segments to a quorum of members, and names their receipts.
    Upload,
}

/// A writer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Writer {
    /// How it behaves.
    pub manner: Manner,
    /// Operations it wants to have done.
    pub ops: u32,
    /// Milliseconds between them, at most.
    pub pause_ms: u64,
}

/// A run, before it runs.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What it was drawn from.
    pub seed: u64,
    /// Members of the cluster.
    pub members: usize,
    /// Times of its replicas.
    pub timing: Timing,
    /// Mean latency of its links.
    pub latency_ms: u64,
    /// Of a hundred messages, how many are lost at all times before the end of all faults.
    pub loss_percent: u64,
    /// Who lies, and how.
    pub liars: BTreeMap<usize, Conduct>,
    /// What happens when, in order.
    pub faults: Vec<(u64, Fault)>,
    /// Its writers; the first is the owner.
    pub writers: Vec<Writer>,
    /// Its projections.
    pub projections: u32,
    /// What the owner wishes of the members, and when. A newcomer has the number after the last member's.
    pub change: Option<(u64, Change)>,
    /// How far each node's clock is ahead, in milliseconds.
    pub clocks_ms: Vec<i64>,
    /// When all faults end.
    pub heal_ms: u64,
    /// The height that must be reached, so that epochs change.
    pub height_min: u64,
    /// What is planted.
    pub planted: Option<Planted>,
}

impl Scenario {
    /// The scenario of a seed.
    #[must_use]
    pub fn draw(seed: u64, planted: Option<Planted>) -> Self {
        let rng = &mut StdRng::seed_from_u64(seed ^ 0x5ce0_a210);
        // One in ten goes on until the epoch changes, with shorter waits; in most of those the members change with it.
        let long = rng.gen_bool(0.1);
        let changes = long && rng.gen_bool(0.7);
        let members = match (changes, rng.gen_bool(0.75)) {
            (true, true) => rng.gen_range(4..6),
            (_, true) => 4,
            (_, false) => 7,
        };
        let change = changes.then(|| {
            let change = match rng.gen_range(0..4) {
                // Four members without a fault to bear are too few.
                0 if members > 4 => Change::Leave(rng.gen_range(0..members)),
                0 | 1 => Change::Join,
                _ => Change::Replace(rng.gen_range(0..members)),
            };
            (rng.gen_range(0..2_500), change)
        });
        // As many lie as both committees bear.
        let after = members - usize::from(matches!(change, Some((_, Change::Leave(_)))));
        let mut budget = (members.min(after) - 1) / 3;
        let mut order: Vec<usize> = (0..members).collect();
        order.shuffle(rng);
        let mut liars = BTreeMap::new();
        let mut forgetful = Vec::new();
        for member in order {
            if budget == 0 || rng.gen_bool(0.15) {
                break;
            }
            budget -= 1;
            if rng.gen_bool(0.25) {
                forgetful.push(member);
            } else {
                liars.insert(member, draw_conduct(rng));
            }
        }
        let idle = if long { 40 } else { rng.gen_range(300..1000) };
        // A leader with nothing to propose waits for `idle`: it must not be given up before.
        let leader = idle + rng.gen_range(500..1200);
        let ms = Duration::from_millis;
        let timing = Timing {
            idle: ms(idle),
            leader: ms(leader),
            certification: ms(leader * 3 / 2),
            retry: ms(leader * 2),
            skip: ms((leader * 5 / 2).max(4000)),
            fetch: ms(rng.gen_range(400..1000)),
            again: ms(rng.gen_range(800..2000)),
            expiry: Duration::from_secs(600),
            ..Timing::default()
        };
        let heal_ms = if long && !changes { 4_000 } else { rng.gen_range(5_000..12_000) };
        let mut faults: Vec<(u64, Fault)> = Vec::new();
        for member in &forgetful {
            let fault = Fault::Crash { member: *member, down_ms: rng.gen_range(50..1500), lose_journal: true };
            faults.push((rng.gen_range(1_000..heal_ms), fault));
        }
        let nodes = members + usize::from(change.is_some_and(|(_, change)| change.joins()));
        let honest: Vec<usize> = (0..nodes).filter(|m| !liars.contains_key(m)).collect();
        for _ in 0..rng.gen_range(0..6) {
            let at = rng.gen_range(0..heal_ms);
            faults.push((at, draw_fault(rng, nodes, &honest)));
        }
        // Honest clocks differ by less than a proposal may be early.
        let clocks_ms = (0..nodes).map(|node| match liars.get(&node) {
            Some(Conduct::Clock) => rng.gen_range(90_000..900_000) * if rng.gen_bool(0.5) { 1 } else { -1 },
            _ => rng.gen_range(-CLOCK_MS_MAX..=CLOCK_MS_MAX),
        });
        let clocks_ms = clocks_ms.collect();
        for (at, fault) in &mut faults {
            // What would last beyond the end is cut off there by the driver; a crash near the end restarts at it.
            *at = (*at).min(heal_ms.saturating_sub(fault.lasts().min(heal_ms / 2)));
        }
        faults.sort_by_key(|(at, _)| *at);
        let manners = [
            Manner::Plain,
            Manner::Patient,
            Manner::Patient,
            Manner::Double,
            Manner::Repeat,
            Manner::ShortReceipts,
            Manner::Upload,
            Manner::Upload,
        ];
        let mut writers: Vec<Writer> = (0..rng.gen_range(2..5usize))
            .map(|i| {
                let manner = match i {
                    0 => Manner::Plain,
                    _ => *manners.choose(rng).expect("there are some"),
                };
                Writer { manner, ops: rng.gen_range(4..10), pause_ms: rng.gen_range(50..1500) }
            })
            .collect();
        // Who serves wrong cells has somebody to serve.
        let last = writers.last_mut().expect("there are two at least");
        if liars.values().any(|conduct| *conduct == Conduct::BadPages) {
            last.manner = Manner::Upload;
        }
        Self {
            seed,
            members,
            timing,
            latency_ms: rng.gen_range(2..40),
            loss_percent: *[0, 0, 0, 1, 3, 8].choose(rng).expect("there are some"),
            liars,
            faults,
            writers,
            projections: rng.gen_range(1..4),
            change,
            clocks_ms,
            heal_ms,
            height_min: if long { rng.gen_range(66..76) } else { 0 },
            planted,
        }
    }

    /// Members that are honest.
    pub fn honest(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.members).filter(|m| !self.liars.contains_key(m))
    }

    /// The node that wants to become a member.
    #[must_use]
    pub fn newcomer(&self) -> Option<usize> {
        self.change.filter(|(_, change)| change.joins()).map(|_| self.members)
    }

    /// All nodes: the members, then the newcomer.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.members + usize::from(self.newcomer().is_some())
    }

    /// Honest nodes that are members once everything wished for has come true.
    pub fn staying(&self) -> impl Iterator<Item = usize> + '_ {
        let out = self.change.and_then(|(_, change)| change.out());
        self.honest().filter(move |m| Some(*m) != out).chain(self.newcomer())
    }
}

fn draw_conduct(rng: &mut StdRng) -> Conduct {
    match rng.gen_range(0..15) {
        0..=3 => Conduct::Twins,
        4 => Conduct::Silent,
        5 => Conduct::Garbage,
        6 => Conduct::Replay,
        7 => Conduct::Withhold,
        8 | 9 => Conduct::BadPages,
        10 => Conduct::Clock,
        _ => Conduct::Lie(*Falsehood::ALL.choose(rng).expect("there are some")),
    }
}

fn draw_fault(rng: &mut StdRng, members: usize, honest: &[usize]) -> Fault {
    let member = *honest.choose(rng).expect("most are honest");
    let ms = rng.gen_range(500..5_000);
    match rng.gen_range(0..17) {
        14..=16 => Fault::Leader { ms: ms.max(2_000) },
        0..=2 => Fault::Partition { side: rng.gen_range(1..(1u32 << members) - 1), ms },
        3 => {
            let to = (member + rng.gen_range(1..members)) % members;
            Fault::Cut { from: member, to, ms }
        }
        4 | 5 => Fault::Loss { percent: rng.gen_range(10..60), ms },
        6 => Fault::Delay { latency_ms: rng.gen_range(50..500), ms },
        7 => Fault::Slow { member, ms },
        8..=10 => Fault::Crash { member, down_ms: rng.gen_range(20..4_000), lose_journal: false },
        11 => Fault::Outage { down_ms: rng.gen_range(20..2_000) },
        _ => Fault::Disk {
            member,
            write: rng.gen_range(0..12),
            written: rng.gen_bool(0.5),
            down_ms: rng.gen_range(20..2_000),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What no scenario may ask for, whatever the seed: then a violation is a bug, and not the generator's.
    #[test]
    fn no_seed_draws_what_a_cluster_need_not_bear() {
        let (mut changes, mut clocks) = ([0; Change::KINDS.len()], 0);
        for seed in 0..20_000 {
            let s = Scenario::draw(seed, None);
            s.timing.check().unwrap_or_else(|why| panic!("seed {seed}: {why}"));
            let out = s.change.and_then(|(_, change)| change.out());
            let after = s.members - usize::from(matches!(s.change, Some((_, Change::Leave(_)))));
            let forgetful: std::collections::BTreeSet<_> = s
                .faults
                .iter()
                .filter_map(|(_, f)| match f {
                    Fault::Crash { member, lose_journal: true, .. } => Some(*member),
                    _ => None,
                })
                .collect();
            assert!(s.liars.len() + forgetful.len() <= (after.min(s.members) - 1) / 3, "seed {seed}: too many faults");
            assert!(forgetful.iter().all(|m| !s.liars.contains_key(m)), "seed {seed}");
            assert!(out.is_none_or(|out| out < s.members) && s.faults.iter().all(|(at, _)| *at <= s.heal_ms));
            assert_eq!(s.clocks_ms.len(), s.nodes());
            for (node, ms) in s.clocks_ms.iter().enumerate() {
                let wrong = s.liars.get(&node) == Some(&Conduct::Clock);
                clocks += u64::from(wrong);
                assert_eq!(ms.abs() > CLOCK_MS_MAX, wrong, "seed {seed}");
            }
            if let Some((_, change)) = s.change {
                changes[change.kind()] += 1;
            }
        }
        assert!(changes.iter().all(|count| *count > 100) && clocks > 100, "{changes:?} {clocks}");
    }
}
